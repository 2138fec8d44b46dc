"""What an English caption says of groups, relations and a sign, as a phrase, clause, order or tags.

Knows nothing of backgrounds and of what people put around a caption.
"""

from typing import Literal, NamedTuple

from lens.nano.world.languages.base import mark
from lens.nano.world.languages.english import frames, words
from lens.nano.world.languages.english.phrases import Phrases, article
from lens.nano.world.languages.english.relations import relation_text, two_relations_text
from lens.nano.world.scene_spec import ObjectGroup

BodyKind = Literal["phrase", "clause", "order", "tags"]


class Body(NamedTuple):
    """A part of a caption that stands alone."""

    text: str
    kind: BodyKind
    """A noun phrase goes after "draw", a clause after "a picture where", an order after "please"."""
    is_plural: bool = False


class Bodies(Phrases):
    """Writer of bodies for one scene."""

    def body(self) -> Body:
        """Return all that a caption says, apart from the background."""
        spec = self.spec
        if not spec.groups:
            if self.chance(0.25):
                return Body(self.sign(self.usual(frames.SIGN_TAGS)), "tags")
            return Body(self.sign(self.usual(frames.SIGN_PHRASES)), "phrase")
        body = self._relations() if spec.relations else self._groups()
        return body if spec.text is None else self._with_sign(body)

    def terse_body(self) -> Body:
        """Return all of it in as few words as people type."""
        spec = self.spec
        if spec.text is not None:
            return self.body()
        if len(spec.relations) == 1 and len(spec.groups) == 2:
            text, first = relation_text(self, spec.relations[0], "terse")
            return Body(text, "phrase", self.is_plural(first))
        if spec.relations:
            return self._relations()
        order = list(range(len(spec.groups)))
        self.random.shuffle(order)
        parts = [self.terse(index) for index in order]
        last = self.usual(words.TERSE_CONJUNCTIONS)
        comma = last if last[0] != " " else ", "
        text = comma.join(parts[:-1]) + last * (len(parts) > 1) + parts[-1]
        return Body(text, "phrase", self.is_plural(order[0]))

    def _with_sign(self, body: Body) -> Body:
        groups = self.spec.groups
        if body.kind == "phrase" and self.chance(0.8):
            sign = self.sign(self.usual(frames.SIGN_PHRASES))
            if len(groups) == 1 and groups[0].count == 1 and self.chance(0.15):
                return Body(f"{body.text} holding {sign}", "phrase")
            frame = self.usual(frames.WITH_SIGN)
            return Body(frame.format(x=body.text, s=sign), "phrase", body.is_plural and frame[1] == "x")
        if body.kind == "tags":
            return Body(f"{body.text}, {self.sign(self.usual(frames.SIGN_TAGS))}", "tags")
        return Body(f"{body.text}. {self.sign(self.usual(frames.SIGN_SENTENCES))}", body.kind, body.is_plural)

    def _relations(self) -> Body:
        kind: BodyKind = "phrase"
        draw = self.random.random()
        if draw < 0.5:
            kind = "clause" if draw < 0.28 else "order" if draw < 0.4 else "tags"
        relations = self.spec.relations
        if len(relations) == 2:
            text, first = two_relations_text(self, kind)
        else:
            text, first = relation_text(self, relations[0], kind)
            for index in set(range(len(self.spec.groups))) - {relations[0][0], relations[0][2]}:
                text += self.pick((", and ", ", plus ", "; also ", ", and also ", ". also "))
                text += self.group(index)
        return Body(text, kind, self.is_plural(first))

    def _groups(self) -> Body:
        groups = self.spec.groups
        if self.chance(0.12):
            return Body(", ".join(self.tag(index) for index in range(len(groups))), "tags")
        if len(groups) == 1:
            count, place = groups[0].count, groups[0].place
            if count not in (1, None) and self.chance(0.1):
                return Body(self.number_last(0), "tags")
            if place is not None and self.chance(0.3):
                return self._place_first(place)
        if len(groups) == 2 and self.chance(0.4) and (text := self._twins()):
            return Body(text, "phrase", groups[0].count != 1)
        if len(groups) == 2 and self.chance(0.12) and (text := self._comparison()):
            return Body(text, "phrase", False)
        order = list(range(len(groups)))
        if self.chance(0.3):
            self.random.shuffle(order)
        parts = [self.group(index) for index in order]
        return Body(self._join(parts), "phrase", self.is_plural(order[0]))

    def _join(self, parts: list[str]) -> str:
        last = self.usual(frames.CONJUNCTIONS)
        if len(parts) == 2 and self.chance(0.05):
            last = self.pick(frames.NEAR)
        if len(parts) < 3:
            return last.join(parts)
        comma = last if self.chance(0.1) else ", "
        return parts[0] + comma + parts[1] + last + parts[2]

    def _place_first(self, place: str) -> Body:
        where, what = self.place(place), self.group(0, with_place=False)
        be = "are" if self.is_plural(0) else "is"
        if self.chance(0.35):
            frame = self.pick(
                ("{what}, {where}", "{what} placed {where}", "{what} ({where})", "{what} that {be} {where}")
            )
            return Body(frame.format(where=where, what=what, be=be), "phrase")
        frame = self.pick(
            ("{where}, {what}", "{where}: {what}", "{where} {be} {what}", "{where} there {be} {what}",
             "{what} {be} {where}")
        )
        return Body(frame.format(where=where, what=what, be=be), "clause")

    def _twins(self) -> str:
        """Return two groups of one class that differ in colour or size: "two cars, one green and one red"."""
        a, b = self.spec.groups
        if a.class_name != b.class_name or None in (a.count, b.count):
            return ""
        manner_a, manner_b = (" ".join(self._attributes_before(group)) for group in (a, b))
        noun = self.nouns[0]
        if not manner_a or not manner_b or not noun.takes_article:
            return ""
        number_a, number_b = (words.NUMBERS[group.count or 0] for group in (a, b))
        if a.count == b.count == 1:
            manners = (manner_a, manner_b)
            lead_a, lead_b = (article(manner) if self.chance(0.7) else "one" for manner in manners)
            frame = self.pick(
                (
                    "{la} {ma} {one} and {lb} {mb} {one}", "{la} {ma} {one} and {lb} {mb} one",
                    "{la} {ma} and {lb} {mb} {one}",
                    "two {many}, one {ma} and one {mb}", "two {many}: one {ma}, one {mb}",
                    "2 {many}, one {ma}, the other {mb}",
                    "two {many}, one is {ma} and the other is {mb}",
                    "a couple of {many}, {la} {ma} one and {lb} {mb} one",
                    "two {many}, the first {ma}, the second {mb}",
                    "two {many}: {la} {ma} one and {lb} {mb} one",
                )
            )  # fmt: skip
        else:
            lead_a, lead_b = (
                article(manner) if number == "one" else number
                for manner, number in ((manner_a, number_a), (manner_b, number_b))
            )
            frame = "{la} {ma} {nouns_a} and {lb} {mb} " + self.pick(("{ones}", "{nouns_b}", "{nouns_b}"))
        return frame.format(
            la=lead_a, lb=lead_b, ma=mark(0, manner_a), mb=mark(1, manner_b), one=noun.singular,
            many=noun.plural,
            nouns_a=noun.singular if a.count == 1 else noun.plural, ones="one" if b.count == 1 else "ones",
            nouns_b=noun.singular if b.count == 1 else noun.plural,
        )  # fmt: skip

    def _attributes_before(self, group: ObjectGroup) -> list[str]:
        size = [self.usual(words.SIZE_ADJECTIVES[group.size])] if group.size else []
        return [*size, *([group.colour] if group.colour else [])]

    def _comparison(self) -> str:
        """Return one large and one small group compared, if they are."""
        sizes = [group.size for group in self.spec.groups]
        if set(sizes) != {"small", "large"}:
            return ""
        first = int(self.chance(0.5))
        degree = {
            "large": ("bigger", "larger", "much bigger", "much larger", "way bigger", "far larger"),
            "small": ("smaller", "much smaller", "tinier", "way smaller", "far smaller"),
        }[sizes[first] or "small"]
        be = "are" if self.spec.groups[first].count != 1 else "is"
        frame = self.pick(("{a} {than} than {b}", "{a} that {be} {than} than {b}", "{a}, {than} than {b}"))
        return frame.format(a=self.group(first), b=self.group(1 - first), than=self.pick(degree), be=be)
