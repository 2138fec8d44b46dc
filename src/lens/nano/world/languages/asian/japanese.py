"""Japanese captions of the nano world."""
# ruff: noqa: RUF001  (full-width punctuation is what people type)

import numpy as np

from lens.nano.world.languages.asian.east_asian import CountedNoun, EastAsianLanguage, full_width, pick
from lens.nano.world.languages.base import Frames
from lens.nano.world.scene_spec import OPPOSITE, ObjectGroup

_NUMERALS = "一二三四五六七八"
_THINGS = ("一つ", "二つ", "三つ", "四つ", "五つ", "六つ", "七つ", "八つ")
_ANIMATE = "匹羽頭体人尾"
"""Classifiers of things that are somewhere as living ones are: iru, not aru."""

_VERBS = {
    "いる": "ある", "います": "あります", "いて": "あって", "いた": "あった", "いるところ": "あるところ",
}  # fmt: skip
"""Forms of the verbs of living and of other things."""

_OBJECT_COLOURS = {
    "red": ("赤い", "赤い", "赤の", "赤色の", "真っ赤な"),
    "orange": ("オレンジ色の", "オレンジ色の", "オレンジの", "だいだい色の", "橙色の"),
    "yellow": ("黄色い", "黄色い", "黄色の", "イエローの"),
    "green": ("緑の", "緑色の", "グリーンの", "みどりの"),
    "blue": ("青い", "青い", "青の", "青色の", "ブルーの", "真っ青な"),
    "purple": ("紫の", "紫色の", "むらさきの", "パープルの"),
    "pink": ("ピンクの", "ピンク色の", "桃色の"),
    "brown": ("茶色い", "茶色の", "ブラウンの"),
}
_SIZES = {
    "small": ("小さな", "小さい", "小さな", "ちいさな", "ちっちゃな", "小型の"),
    "large": ("大きな", "大きい", "大きな", "おおきな", "巨大な", "でっかい"),
}
_BACKGROUNDS = {
    # name as a noun, | what precedes a noun
    "white": ("白 白色 純白 ホワイト", "白い 白の 白色の 真っ白な"),
    "grey": ("灰色 グレー ねずみ色", "灰色の グレーの"),
    "black": ("黒 黒色 真っ黒 ブラック", "黒い 黒の 黒色の 真っ黒な"),
    "red": ("赤 赤色 レッド 真っ赤", "赤い 赤の 赤色の 真っ赤な"),
    "orange": ("オレンジ色 オレンジ 橙色", "オレンジ色の オレンジの 橙色の"),
    "yellow": ("黄色 イエロー", "黄色い 黄色の"),
    "green": ("緑 緑色 グリーン", "緑の 緑色の グリーンの"),
    "blue": ("青 青色 ブルー", "青い 青の 青色の ブルーの"),
    "light blue": ("水色 空色 薄い青 ライトブルー", "水色の 空色の 薄い青の 薄い青色の 淡い青の"),
    "purple": ("紫 紫色 パープル", "紫の 紫色の パープルの"),
    "pink": ("ピンク ピンク色 桃色", "ピンクの ピンク色の 桃色の"),
    "brown": ("茶色 ブラウン", "茶色い 茶色の ブラウンの"),
    "dark blue": ("紺色 紺 ネイビー 濃い青", "紺色の 紺の ネイビーの 濃い青の 濃紺の"),
    "turquoise": ("ターコイズ 青緑 青緑色 ターコイズブルー", "ターコイズの 青緑の 青緑色の"),
    "light green": ("黄緑 黄緑色 薄緑 ライトグリーン", "黄緑の 黄緑色の 薄い緑の 薄緑色の 明るい緑の"),
    "beige": ("ベージュ クリーム色 砂色", "ベージュの ベージュ色の クリーム色の 砂色の"),
}
_PLACES = {
    "centre": ("真ん中", "中央", "中心"),
    "left": ("左", "左側", "左端"),
    "right": ("右", "右側", "右端"),
    "top": ("上", "上の方", "上部"),
    "top left": ("左上", "左上", "左上の隅"),
    "top right": ("右上", "右上", "右上の隅"),
    "bottom": ("下", "下の方", "下部"),
    "bottom left": ("左下", "左下", "左下の隅"),
    "bottom right": ("右下", "右下", "右下の隅"),
}
_SIDES = {
    "left of": (("左", "右"), ("左側", "右側")),
    "right of": (("右", "左"), ("右側", "左側")),
    "above": (("上", "下"), ("上側", "下側")),
    "below": (("下", "上"), ("下側", "上側")),
}
_RELATIONS = (
    "{b}の<に{a}",
    "{b}の<に{a}",
    "{b}の<に{a:いる}{a}",
    "{b}の<に{a:いる}{a}の絵",
    "{b}とその<に{a:いる}{a}",
    "{b}、その<に{a}",
    "<に{a}、>に{b}",
    "<に{a}、>に{b}",
    "<は{a}、>は{b}",
    "<が{a}で>が{b}",
    "{a}が<、{b}が>",
    "{a}（<）と{b}（>）",
    "<に{a:が}{a:いて}、>に{b:が}{b:いる}。",
    "<に{a:を}、>に{b:を}描いて。",
    "{b}の<に{a:が}{a:いる}。",
    "{b}の<に{a:が}{a:います}。",
    "{b}の<に{a:が}{a:いる}絵",
    "{a}が{b}の<に{a:いる}。",
    "{a}は{b}の<に{a:います}。",
    "{b}の<に{a:を}描いてください。",
    "{a:が}{b}の<に{a:いるところ}",
)
"""Frames of a relation: < is the side of a, > that of b."""


def _frames_of(relation: str) -> tuple[str, ...]:
    """Return the frames of a relation, a third of them said from the other side."""
    frames = [
        frame.replace("<", side).replace(">", other)
        for side, other in _SIDES[relation]
        for frame in _RELATIONS
    ]
    turned = {"a": "b", "b": "a"}
    for side, other in _SIDES[OPPOSITE[relation]]:
        for frame in _RELATIONS:
            swapped = "".join(
                turned.get(character, character) if before == "{" else character
                for before, character in zip(f" {frame}", frame, strict=False)
            )
            frames.append(swapped.replace("<", side).replace(">", other))
    return tuple(frames)


class Japanese(EastAsianLanguage):
    """Japanese."""

    code = "ja"
    name = "Japanese"
    colour_prefixes = "赤青緑黄白"
    endings = ("", "", "", "", "", "", "。", "。", "。", "！")

    frames = Frames(
        one=(
            "{a}", "{a}", "{a}", "{a}", "{a:に}", "{a:に}", "{a}の絵", "{a}の絵", "{a}のイラスト",
            "{a}の画像", "{a}の写真", "{a}の絵文字", "{a:を}描いて。", "{a:を}描いてください。",
            "{a}をお願いします。", "{a}の絵を描いて。", "{a}の絵をお願いします。",
            "{a}のイラストを描いてください。", "{a:が}{a:いる}。", "{a:が}{a:います}。",
            "{a:が}{a:いる}絵", "{a:が}{a:いる}イラスト", "{a}が見たい。", "{a:を}見せて。",
            "{a}の画像を作って。", "{a:を}生成してください。", "{a}、お願い！", "{a}、4K、高画質",
            "かわいい{a}",
        ),
        two=(
            "{a}と{b}", "{a}と{b}", "{a}と{b}", "{a}、{b}", "{a}、{b}", "{a} {b}", "{a:に}、{b:に}",
            "{a}と{b}の絵", "{a}と{b}のイラスト", "{a}と{b}を描いて。", "{a:を}、{b:を}描いて。",
            "{a:が}{a:いて}、{b:が}{b:いる}。", "{a}と{b}が{b:いる}。", "{a}と{b}が{b:います}。",
            "{a}と、それから{b}", "{a}、あと{b}", "{a}と{b}をお願いします。", "{a}および{b}",
            "{a}と{b}が{b:いる}絵", "{a:が}、そして{b:が}{b:いる}。", "{a}＋{b}",
            "{a}と{b}の画像を作ってください。",
        ),
        three=(
            "{a}と{b}と{c}", "{a}、{b}、{c}", "{a}、{b}、{c}", "{a}、{b}と{c}", "{a}、{b}、それから{c}",
            "{a} {b} {c}", "{a:に}、{b:に}、{c:に}", "{a}と{b}と{c}の絵", "{a}、{b}、{c}のイラスト",
            "{a}と{b}と{c}を描いて。", "{a:を}、{b:を}、{c:を}描いてください。",
            "{a}、{b}、{c}が{c:いる}。", "{a}と{b}と{c}が{c:います}。", "{a}と{b}、それに{c}",
            "{a}、{b}、そして{c}をお願いします。",
        ),
        relations={relation: _frames_of(relation) for relation in _SIDES},
        and_then=(
            "{x}、{y}", "{x}。{y}", "{x}、そして{y}", "{x}。そして{y}", "{x}、さらに{y}",
            "{x}。それから{y}", "{x}、また、{y}",
        ),
        backgrounds=(
            "{x}、{bg:の}背景", "{x}、{bg:の}背景", "{x}、背景は{bg}", "{x}。背景は{bg}。",
            "{x}。背景は{bg}です。", "{bg:の}背景に{x}", "{bg:の}背景に{x}", "{bg:の}背景、{x}",
            "背景は{bg}、{x}", "背景が{bg}で、{x}", "{x}。背景は{bg}でお願いします。", "{bg}の背景で、{x}",
            "{x}（背景は{bg}）", "{x}、{bg}背景", "{bg}背景、{x}", "{x}。{bg:の}背景で。",
            "{x} {bg:の}背景", "{bg:の}背景 {x}", "{bg}バックに{x}",
        ),
        only_background=(
            "{bg:の}背景", "{bg:の}背景だけ", "{bg}一色", "{bg}一色の背景", "無地の{bg:の}背景",
            "何もない{bg:の}背景", "{bg:の}背景だけを描いて。", "{bg:の}背景、他には何もなし",
            "ただの{bg:の}背景をお願いします。", "{bg}一色の画像",
        ),
        signs=(
            "「{t}」と書かれた看板", "「{t}」と書かれた看板", "「{t}」という看板",
            "『{t}』と書いてある看板", "“{t}”と書かれた看板", "\"{t}\"と書かれた看板", "{t}と書かれた看板",
            "「{t}」の看板", "看板に「{t}」の文字", "「{t}」と書いた看板を描いて。",
            "看板には「{t}」と書いてある。", "「{t}」と書かれた看板が立っている。",
            "「{t}」という文字の看板をお願いします。", "看板「{t}」",
        ),
        with_sign=(
            "{x}、「{t}」と書かれた看板", "{x}。看板には「{t}」と書いてある。",
            "{x}。「{t}」と書かれた看板もある。", "「{t}」と書かれた看板、{x}",
            "{x}、そして『{t}』という看板", "{x}。それと「{t}」の看板", "{x}、看板に“{t}”",
            "{x}。「{t}」の看板も描いて。", "{x}、\"{t}\"と書かれた看板", "「{t}」の看板があって、{x}",
        ),
    )  # fmt: skip
    phrase_backgrounds = (
        "{bg:の}背景の{x}", "{bg:の}背景の{x}", "{bg:の}背景に{x}を描いて。", "{x}、背景{bg}",
    )  # fmt: skip
    phrase_signs = (
        "{x}と「{t}」と書かれた看板", "{x}と「{t}」の看板", "「{t}」と書かれた看板と{x}",
        "{x}、それに「{t}」という看板を描いて。",
    )  # fmt: skip

    def word(self, group: ObjectGroup, noun: CountedNoun, form: str) -> str | None:
        """Return a verb of being somewhere."""
        if form not in _VERBS:
            return None
        return form if noun.classifier in _ANIMATE else _VERBS[form]

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a background colour as a noun, or in the form of an attribute."""
        return pick(rng, _BACKGROUNDS[colour][form == "の"].split())

    def phrase(
        self, group: ObjectGroup, noun: CountedNoun, form: str, rng: np.random.Generator, *, is_repeated: bool
    ) -> str:
        """Return a noun phrase; the forms ga and wo have the particle, with the number before or after it.

        The form ni is a phrase whose place comes first, with its particle.
        """
        attributes = [pick(rng, _SIZES[group.size])] if group.size else []
        if group.colour:
            attributes.append(pick(rng, _OBJECT_COLOURS[group.colour]))
        if rng.random() < 0.3:
            attributes.reverse()
        named = "".join(attributes) + noun.text
        number = self._number(group, noun, rng)
        if group.count is None and noun.classifier in _ANIMATE and rng.random() < 0.2:
            named, number = named + "たち", ""
        particle = form if form in ("が", "を") else ""
        if is_repeated:
            return named + particle
        if not number:
            text = named + particle
        elif not form and group.count is not None and rng.random() < 0.05:
            text = named + pick(rng, ("×", " x", "x")) + str(group.count)
        elif rng.random() < 0.5:
            text = f"{number}の{named}{particle}"
        elif particle and rng.random() < 0.7:
            text = f"{named}{particle}{number}"
        else:
            text = f"{named}{number}{particle}"
        return text if group.place is None else self._place(group, noun, form, rng) + text

    def _number(self, group: ObjectGroup, noun: CountedNoun, rng: np.random.Generator) -> str:
        """Return the number with its classifier; one is mostly not said."""
        classifier = noun.classifier
        is_animate = classifier in _ANIMATE
        if group.count is None:
            some = (f"数{classifier}", f"何{classifier}か")
            return pick(rng, some if is_animate else (*some, "いくつか"))
        if group.count == 1 and rng.random() < 0.6:
            return ""
        if not is_animate and rng.random() < (0.4 if classifier == "個" else 0.15):
            return pick(rng, (_THINGS[group.count - 1], f"{group.count}つ"))
        numerals = (_NUMERALS[group.count - 1], str(group.count), str(group.count), full_width(group.count))
        return f"{pick(rng, numerals)}{classifier}"

    def _place(self, group: ObjectGroup, noun: CountedNoun, form: str, rng: np.random.Generator) -> str:
        """Return a place before a noun phrase."""
        where = pick(rng, ("", "", "", "画面の", "画像の", "絵の", "画面"))
        where += pick(rng, _PLACES[group.place or "centre"])
        if form in ("が", "を", "に"):
            return f"{where}に"
        return where + pick(rng, ("の", "の", f"に{self.word(group, noun, 'いる')}"))
