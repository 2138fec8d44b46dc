"""English captions in people's own words, from bare nouns and tags to polite requests and stories.

A caption is a body, which states the groups and their relations, inside what people put around it: an opener,
the background, a sign, and words that mean nothing. Knows nothing of pixels; the grammar of the six tasks is
elsewhere (caption_grammar.py).
"""

from random import Random
from typing import Literal, NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption, Language, read_markers
from lens.nano.world.languages.english_parts import frames, noise, words
from lens.nano.world.languages.english_parts.phrases import SIGN_TEXT, Phrases, article
from lens.nano.world.languages.english_parts.relations import relation_text, two_relations_text
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

BodyKind = Literal["phrase", "clause", "order", "tags"]


class Body(NamedTuple):
    """What a caption says of the groups and a sign."""

    text: str
    kind: BodyKind
    """A noun phrase goes after "draw", a clause after "a picture where", an order after "please"."""
    is_plural: bool = False


class English(Language):
    """English. Without noise, captions have no words that mean nothing, no typos and no odd case."""

    code = "en"
    name = "English"

    def __init__(self, noise: bool = True, typo_share: float = 0.04) -> None:
        self.noise = noise
        self.typo_share = typo_share if noise else 0.0

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group; the form "the" makes it definite."""
        phrases = Phrases(SceneSpec((group,)), _random(rng), self.noise)
        return read_markers(phrases.group(0, lead=form or None), 1).text

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a name of a background colour; there are no forms."""
        return Phrases(SceneSpec(background=colour), _random(rng), self.noise).background("{w}")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption that states all of a spec and nothing else."""
        text = _Writer(spec, _random(rng), self.noise, self.typo_share).write()
        return read_markers(text, len(spec.groups))


class _Writer(Phrases):
    """Writer of one caption."""

    def __init__(self, spec: SceneSpec, random: Random, noise: bool, typo_share: float) -> None:
        super().__init__(spec, random, noise)
        self.typo_share = typo_share

    def write(self) -> str:
        """Return the caption, with marks of groups."""
        if not self.spec.groups and self.spec.text is None:
            text = self._only_background()
        else:
            body = self._body()
            text = self._tag_list(body) if body.kind == "tags" else self._sentence(body)
        return self._finish(text)

    # What the caption says

    def _body(self) -> Body:
        spec = self.spec
        if not spec.groups:
            if self.chance(0.25):
                return Body(self.sign(self.pick(frames.SIGN_TAGS)), "tags")
            return Body(self.sign(self.pick(frames.SIGN_PHRASES)), "phrase")
        body = self._relations() if spec.relations else self._groups()
        if spec.text is None:
            return body
        if body.kind == "phrase" and self.chance(0.8):
            sign = self.sign(self.pick(frames.SIGN_PHRASES))
            if len(spec.groups) == 1 and spec.groups[0].count == 1 and self.chance(0.15):
                return Body(f"{body.text} holding {sign}", "phrase")
            frame = self.pick(frames.WITH_SIGN)
            return Body(frame.format(x=body.text, s=sign), "phrase", body.is_plural and frame[1] == "x")
        if body.kind == "tags":
            return Body(f"{body.text}, {self.sign(self.pick(frames.SIGN_TAGS))}", "tags")
        return Body(f"{body.text}. {self.sign(self.pick(frames.SIGN_SENTENCES))}", body.kind, body.is_plural)

    def _relations(self) -> Body:
        kind: BodyKind = "phrase"
        draw = self.random.random()
        if draw < 0.5:
            kind = "clause" if draw < 0.3 else "order" if draw < 0.42 else "tags"
        relations = self.spec.relations
        if len(relations) == 2:
            text, first = two_relations_text(self, kind)
        else:
            text, first = relation_text(self, relations[0], kind)
            for index in set(range(len(self.spec.groups))) - {relations[0][0], relations[0][2]}:
                text += self.pick((", and ", ", plus ", "; also ", ", and also ", ". also ")) + self.group(index)
        return Body(text, kind, self.is_plural(first))

    def _groups(self) -> Body:
        groups = self.spec.groups
        if self.chance(0.15):
            return Body(", ".join(self.tag(index) for index in range(len(groups))), "tags")
        if len(groups) == 1:
            count, place = groups[0].count, groups[0].place
            if count not in (1, None) and self.chance(0.1):
                return Body(self.number_last(0), "tags")
            if place is not None and self.chance(0.3):
                return self._place_first(place)
        order = list(range(len(groups)))
        if self.chance(0.3):
            self.random.shuffle(order)
        if len(groups) == 2 and self.chance(0.12) and (text := self._comparison()):
            return Body(text, "phrase", False)
        parts = [self.group(index) for index in order]
        return Body(self._join(parts), "phrase", self.is_plural(order[0]))

    def _join(self, parts: list[str]) -> str:
        last = self.pick(frames.CONJUNCTIONS)
        if len(parts) < 3:
            return last.join(parts)
        comma = last if self.chance(0.1) else ", "
        return parts[0] + comma + parts[1] + last + parts[2]

    def _place_first(self, place: str) -> Body:
        where, what = self.place(place), self.group(0, with_place=False)
        be = "are" if self.is_plural(0) else "is"
        kind = self.pick(("phrase", "clause", "clause"))
        frame = self.pick(("{where}, {what}", "{where}: {what}", "{where} {be} {what}", "{where} there {be} {what}"))
        if kind == "phrase":
            frame = self.pick(("{what}, {where}", "{what} placed {where}", "{what} ({where})"))
        return Body(frame.format(where=where, what=what, be=be), "phrase" if kind == "phrase" else "clause")

    def _comparison(self) -> str:
        """Return one large and one small group compared, if they are."""
        sizes = [group.size for group in self.spec.groups]
        if set(sizes) != {"small", "large"}:
            return ""
        first = int(self.chance(0.5))
        words_of = {"large": ("bigger", "larger", "much bigger", "much larger"),
                    "small": ("smaller", "much smaller", "tinier")}  # fmt: skip
        than = self.pick(words_of[sizes[first] or ""])
        be = "are" if self.spec.groups[first].count != 1 else "is"
        frame = self.pick(("{a} {than} than {b}", "{a} that {be} {than} than {b}", "{a}, {than} than {b}"))
        return frame.format(a=self.group(first), b=self.group(1 - first), than=than, be=be)

    # What goes around it

    def _tag_list(self, body: Body) -> str:
        tags = [body.text]
        if self.spec.background is not None:
            tags.insert(0 if self.chance(0.25) else 1, self.background(self.pick(frames.BACKGROUND_TAGS)))
        if self.noise and self.chance(0.4):
            tags.insert(0 if self.chance(0.15) else len(tags), noise.boilerplate(self.random))
        return self.pick((", ", ", ", ", ", ", ", "; ", " | ", " - ", " / ", ". ")).join(tags)

    def _sentence(self, body: Body) -> str:
        has_background = self.spec.background is not None
        text, ending = body.text, ""
        if has_background and self.chance(0.2) and body.kind == "phrase":
            opener, ending = self._opener() if self.chance(0.3) else ("", "")
            first = self.background(self.pick(frames.BACKGROUNDS_FIRST))
            text = f"{opener}{first if opener == '' or first.startswith(('a ', 'an ')) else ''}"
            if text == opener:
                text = f"{opener}{body.text}{self.background(self.pick(frames.BACKGROUNDS))}"
            else:
                text += body.text
        else:
            opener, ending = self._opening(body)
            text = opener + body.text
            if has_background:
                text = self._with_background(text)
        if self.noise:
            text = self._with_noise(text)
        return text + ending

    def _with_background(self, text: str) -> str:
        if self.chance(0.7):
            return text + self.background(self.pick(frames.BACKGROUNDS))
        sentence = self.background(self.pick(frames.BACKGROUND_SENTENCES))
        if self.chance(0.15):
            return f"{sentence}. {text}"
        return text + self.pick((". ", ". ", ". ", "; ", ", ", "! ", " - ", "\n")) + sentence

    def _opening(self, body: Body) -> tuple[str, str]:
        """Return an opener that fits a body, and what ends the caption."""
        if body.kind == "phrase":
            if self.chance(0.12):
                be = "are" if body.is_plural else "is"
                there = ("there {be} ", "there {be} ", "in the picture there {be} ", "here {be} ", "in it there {be} ")
                return self.pick(there).format(be=be), ""
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
        if draw < 0.28:
            return "", ""
        if self.noise and draw < 0.4:
            return noise.invented_opener(self.random), ""
        medium = ""
        if self.chance(0.5):
            medium = self.pick(words.STYLES) + self.pick(words.MEDIA)
            if self.noise and self.chance(0.06):
                medium = noise.invented_word(self.random)
            lead = f"{article(medium)} " if self.chance(0.9) else ""
            medium = f"{lead}{medium} {self.pick(words.CONNECTIVES).lstrip()}".replace(" : ", ": ")
        if draw < 0.5 and medium:
            return medium, ""
        if draw < 0.62:
            verb = self.pick(words.QUESTION_STARTS) + self.pick(words.QUESTION_VERBS)
            if self.chance(0.4):
                verb = self.pick(words.QUESTIONS)
            return self._greeting() + verb + medium, self.pick(("?", "?", "?", "", " please?"))
        return self._greeting() + self.pick(words.REQUESTS) + medium, ""

    def _greeting(self) -> str:
        return self.pick(words.GREETINGS) if self.noise and self.chance(0.12) else ""

    def _with_noise(self, text: str) -> str:
        draw = self.random.random()
        if draw < 0.08:
            text = f"{text} {noise.purpose(self.random)}"
        elif draw < 0.1:
            text = f"{noise.purpose(self.random)}{self.pick((': ', ', ', ' - '))}{text}"
        elif draw < 0.17:
            text += self.pick(words.THANKS)
        if self.chance(0.1):
            separator = self.pick((", ", ", ", ", ", ". ", " -- ", " | ", "; "))
            text = text + separator + noise.boilerplate(self.random)
        return text

    def _only_background(self) -> str:
        if self.spec.background is None:
            return self.pick(("a picture", "an image", "a drawing", "anything", "something"))
        text = self.background(self.pick(frames.ONLY_BACKGROUND))
        if self.chance(0.3) and text.startswith(("a ", "an ")):
            text = self.pick(words.REQUESTS) + text
        return self._with_noise(text) if self.noise and self.chance(0.4) else text

    def _finish(self, text: str) -> str:
        ending = "" if text[-1] in ".?!" else self.pick(("", "", ".", ".", ".", "!", " "))
        text += ending
        if self.chance(self.typo_share):
            text = noise.misspell(text, self.random)
        if self.noise:
            text = noise.change_case(text, self.random)
        elif self.chance(0.5):
            text = text[:1].upper() + text[1:]
        if self.spec.text is not None:
            quotes = self.pick(frames.QUOTES)
            is_lower = quotes != "{}" and self.chance(0.12)
            text = text.replace(SIGN_TEXT, quotes.format(self.spec.text.lower() if is_lower else self.spec.text))
        return text.strip()


def _random(rng: np.random.Generator) -> Random:
    # A scalar of NumPy's generator takes microseconds, and a caption draws dozens.
    return Random(int(rng.integers(1 << 62)))
