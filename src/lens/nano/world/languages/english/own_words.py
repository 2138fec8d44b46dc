"""English captions in people's own words, from bare nouns and tags to polite requests and questions.

A caption is a body, which states the groups, their relations and a sign (english/bodies.py), inside
what people put around it: an opener, the background, and words that mean nothing. Knows nothing of pixels,
of case and typos (text_noise.py); the grammar of the six tasks is elsewhere (caption_grammar.py).
"""

from random import Random

import numpy as np

from lens.nano.world.languages.base import Caption, Language, read_markers
from lens.nano.world.languages.english import frames, noise, words
from lens.nano.world.languages.english.bodies import Bodies, Body
from lens.nano.world.languages.english.phrases import SIGN_TEXT, Phrases, article
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_TERSE_SHARE = 0.33
"""Share of captions in as few words as possible: most of what people type is short."""


class English(Language):
    """English. Without noise, captions have no invented words, no boilerplate, nothing that means nothing."""

    code = "en"
    name = "English"

    def __init__(self, noise: bool = True) -> None:
        self.noise = noise

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group; the form "the" makes it definite."""
        phrases = Phrases(SceneSpec((group,)), _random(rng), self.noise)
        return read_markers(phrases.group(0, lead=form or None), 1).text

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a name of a background colour; there are no forms."""
        return Phrases(SceneSpec(background=colour), _random(rng), self.noise).background("{w}")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption that states all of a spec and nothing else."""
        text = _Writer(spec, _random(rng), self.noise).write()
        return read_markers(text, len(spec.groups))


def _random(rng: np.random.Generator) -> Random:
    # A scalar of NumPy's generator takes microseconds, and a caption draws dozens.
    return Random(int(rng.integers(1 << 62)))


class _Writer(Bodies):
    """Writer of one caption: a body and what goes around it."""

    def write(self) -> str:
        """Return the caption, with marks of groups."""
        if not self.spec.groups and self.spec.text is None:
            return self._finish(self._only_background())
        if self.chance(_TERSE_SHARE):
            return self._finish(self._terse())
        body = self.body()
        return self._finish(self._tag_list(body) if body.kind == "tags" else self._sentence(body))

    def _terse(self) -> str:
        text = self.terse_body().text
        if self.spec.background is None:
            return text
        if self.chance(0.2):
            return self.background(self.usual(frames.TERSE_BACKGROUNDS_FIRST)) + text
        return text + self.background(self.usual(frames.TERSE_BACKGROUNDS))

    def _tag_list(self, body: Body) -> str:
        tags = [body.text]
        if self.spec.background is not None:
            tags.insert(0 if self.chance(0.25) else 1, self.background(self.pick(frames.BACKGROUND_TAGS)))
        if self.noise and self.chance(0.4):
            tags.insert(0 if self.chance(0.15) else len(tags), noise.boilerplate(self.random))
        return self.pick((", ", ", ", ", ", ", ", "; ", " | ", " - ", " / ", ". ")).join(tags)

    def _sentence(self, body: Body) -> str:
        has_background = self.spec.background is not None
        if has_background and self.chance(0.17) and body.kind == "phrase":
            text, ending = self.background(self.usual(frames.BACKGROUNDS_FIRST)) + body.text, ""
            if text.startswith(("a ", "an ")) and self.chance(0.4):
                text = self.pick(words.REQUESTS) + text
        elif self.noise and self.chance(0.07) and body.kind == "phrase":
            text, ending = self._wrapped(body), ""
        else:
            opener, ending = self._opening(body)
            text = opener + body.text
            if has_background:
                text = self._with_background(text)
        if self.noise:
            text = self._with_noise(text)
        return text + ending

    def _wrapped(self, body: Body) -> str:
        """Return a phrase inside a whole sentence, with its background within or after it."""
        frame = self.pick(words.WRAPPERS)
        background = self.spec.background is not None
        inside = background and self.chance(0.5)
        text = body.text + (self.background(self.usual(frames.BACKGROUNDS)) if inside else "")
        text = frame.format(x=text, person=noise.person(self.random))
        if background and not inside:
            text += " " if text[-1] in ".?!" else ". "
            text += self.background(self.usual(frames.BACKGROUND_SENTENCES))
        return text

    def _with_background(self, text: str) -> str:
        if self.chance(0.72):
            return text + self.background(self.usual(frames.BACKGROUNDS))
        sentence = self.background(self.usual(frames.BACKGROUND_SENTENCES))
        if self.chance(0.15):
            return f"{sentence}. {text}"
        return text + self.pick((". ", ". ", ". ", "; ", ", ", "! ", " - ", "\n")) + sentence

    def _opening(self, body: Body) -> tuple[str, str]:
        """Return an opener that fits a body, and what ends the caption."""
        if body.kind == "phrase":
            if self.chance(0.12):
                return self.pick(words.THERE).format(be="are" if body.is_plural else "is"), ""
            return self._opener()
        if self.chance(0.45):
            return "", ""
        if body.kind == "clause":
            return self._greeting() + self.pick(words.CLAUSE_OPENERS), ""
        if self.chance(0.5):
            return self.pick(words.QUESTION_STARTS), self.pick(("?", "?", ""))
        return self._greeting() + self.pick(("please ", "please ", "now ", "just ", "simply ", "")), ""

    def _opener(self) -> tuple[str, str]:
        draw = self.random.random()
        if draw < 0.26:
            return "", ""
        if self.noise and draw < 0.4:
            return noise.invented_opener(self.random), ""
        medium = self._medium() if self.chance(0.5) else ""
        if draw < 0.5 and medium:
            return medium, ""
        if draw < 0.62:
            verb = self.pick(words.QUESTION_STARTS) + self.pick(words.QUESTION_VERBS)
            if self.chance(0.4):
                verb = self.pick(words.QUESTIONS)
            return self._greeting() + verb + medium, self.pick(("?", "?", "?", "", " please?"))
        return self._greeting() + self.usual(words.REQUESTS) + medium, ""

    def _medium(self) -> str:
        """Return the kind of picture before a phrase: "a simple drawing of "."""
        medium = self.pick(words.STYLES) + self.usual(words.MEDIA)
        if self.noise and self.chance(0.06):
            medium = noise.invented_word(self.random)
        lead = f"{article(medium)} " if self.chance(0.9) else ""
        return f"{lead}{medium}{self.usual(words.CONNECTIVES)}"

    def _greeting(self) -> str:
        return self.pick(words.GREETINGS) if self.noise and self.chance(0.12) else ""

    def _with_noise(self, text: str) -> str:
        draw = self.random.random()
        if draw < 0.08:
            text = f"{text} {noise.purpose(self.random)}"
        elif draw < 0.1:
            text = f"{noise.purpose(self.random)}{self.pick((': ', ', ', ' - '))}{text}"
        elif draw < 0.16:
            text += self.pick(words.THANKS)
        if self.chance(0.1):
            separator = self.pick((", ", ", ", ", ", ". ", " -- ", " | ", "; "))
            text = text + separator + noise.boilerplate(self.random)
        return text

    def _only_background(self) -> str:
        if self.spec.background is None:
            return self.pick(("a picture", "an image", "a drawing", "anything", "something"))
        text = self.background(self.usual(frames.ONLY_BACKGROUND))
        if self.chance(0.3) and text.startswith(("a ", "an ")):
            text = self.pick(words.REQUESTS) + text
        return self._with_noise(text) if self.noise and self.chance(0.4) else text

    def _finish(self, text: str) -> str:
        """Return a text with its end, capitals of sentences in half of the cases, and the sign's text."""
        if text[-1] not in ".?!":
            text += self.pick(("", "", "", ".", ".", "!"))
        if self.chance(0.5):
            text = noise.capitalize_sentences(text)
        if self.spec.text is None:
            return text
        quotes = self.pick(frames.QUOTES)
        is_lower = quotes != "{}" and self.chance(0.12)
        sign = self.spec.text.lower() if is_lower else self.spec.text
        return text.replace(SIGN_TEXT, quotes.format(sign))
