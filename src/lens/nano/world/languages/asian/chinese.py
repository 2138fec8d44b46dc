"""Chinese captions of the nano world: most of them in simplified characters, some in traditional ones."""
# ruff: noqa: RUF001  (full-width punctuation is what people type)

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from lens.nano.world.languages.asian.east_asian import (
    CountedNoun,
    EastAsianLanguage,
    NounEntry,
    full_width,
    pick,
)
from lens.nano.world.languages.base import Caption, Frames
from lens.nano.world.scene_spec import OPPOSITE, ObjectGroup, SceneSpec

_NUMERALS = "一两三四五六七八"
_VERBS = ("画", "画出", "绘制", "生成", "来", "放")
"""Forms that are verbs before the phrase."""
_TRADITIONAL_SHARE = 0.15

_OBJECT_COLOURS = {
    "red": "红色的 红色的 红色 红 红的 大红色的",
    "orange": "橙色的 橙色的 橙色 橘色的 橘黄色的",
    "yellow": "黄色的 黄色的 黄色 黄 黄的",
    "green": "绿色的 绿色的 绿色 绿 绿的",
    "blue": "蓝色的 蓝色的 蓝色 蓝 蓝的",
    "purple": "紫色的 紫色的 紫色 紫 紫的",
    "pink": "粉色的 粉红色的 粉红色 粉色 粉红的",
    "brown": "棕色的 棕色的 棕色 褐色的 咖啡色的",
}
_SIZES = {"small": "小小的 很小的 小型 非常小的 小个的", "large": "大大的 很大的 巨大的 大型 特别大的"}
_SIZE_PREFIXES = {"small": "小", "large": "大"}
_BACKGROUNDS = {
    # names with the word for colour | names without it
    "white": ("白色 白色 纯白色 雪白色", "白 纯白 雪白"),
    "grey": ("灰色", "灰"),
    "black": ("黑色 黑色 纯黑色", "黑 漆黑 纯黑"),
    "red": ("红色 红色 大红色 鲜红色", "红 大红"),
    "orange": ("橙色 橙色 橘色 橘黄色", "橙 橘黄"),
    "yellow": ("黄色 黄色 金黄色 明黄色", "黄 金黄"),
    "green": ("绿色 绿色 草绿色", "绿 草绿"),
    "blue": ("蓝色 蓝色 宝蓝色", "蓝 宝蓝"),
    "light blue": ("浅蓝色 天蓝色 淡蓝色", "浅蓝 天蓝 淡蓝"),
    "purple": ("紫色", "紫"),
    "pink": ("粉色 粉红色", "粉红 粉"),
    "brown": ("棕色 棕色 褐色 咖啡色", "棕 褐"),
    "dark blue": ("深蓝色 深蓝色 藏青色 藏蓝色 海军蓝", "深蓝 藏青 海军蓝"),
    "turquoise": ("青绿色 蓝绿色 青色 绿松石色 湖蓝色", "青绿 蓝绿"),
    "light green": ("浅绿色 浅绿色 淡绿色 嫩绿色", "浅绿 淡绿 嫩绿"),
    "beige": ("米色 米色 米黄色 奶油色 沙色", "米黄 米白"),
}
_PLACES = {
    "centre": ("中间", "中央", "正中间", "中心"),
    "left": ("左边", "左侧", "左面"),
    "right": ("右边", "右侧", "右面"),
    "top": ("上方", "上面", "顶部", "上边"),
    "top left": ("左上角", "左上角", "左上方"),
    "top right": ("右上角", "右上角", "右上方"),
    "bottom": ("下方", "下面", "底部", "下边"),
    "bottom left": ("左下角", "左下角", "左下方"),
    "bottom right": ("右下角", "右下角", "右下方"),
}
_SIDES = {
    "left of": (("左边", "右边"), ("左侧", "右侧"), ("左面", "右面")),
    "right of": (("右边", "左边"), ("右侧", "左侧"), ("右面", "左面")),
    "above": (("上面", "下面"), ("上方", "下方"), ("上边", "下边")),
    "below": (("下面", "上面"), ("下方", "上方"), ("下边", "上边")),
}
_RELATIONS = (
    "{b}<的{a}",
    "{b}<有{a:数}",
    "{b}<有{a:数}",
    "{b}的<有{a:数}。",
    "{b}的<是{a:数}。",
    "{a}在{b}<",
    "{a:数}在{b}的<。",
    "{a:数}在{b}的<",
    "{a:数}在{b}的<",
    "<是{a}，>是{b}",
    "{a}位于{b}的<。",
    "<是{a}，>是{b}",
    "<是{a:数}，>是{b:数}。",
    "<有{a:数}，>有{b:数}。",
    "<{a}，>{b}",
    "{a}在<，{b}在>",
    "{a}（<）和{b}（>）",
    "{b}和{b:它}<的{a}",
    "{b}，{b:它}的<是{a:数}。",
    "画{a}在{b}的<。",
    "请画{a:数}，在{b}的<。",
    "在{b}的<画{a:数}。",
    "{a}在{b}<的图片。",
    "一张{b}<有{a:数}的图。",
    "把{a}画在{b}的<。",
)
"""Frames of a relation: < is the side of a, > that of b."""

_SIMPLIFIED = (
    "们万与东两个为么乌书于云仅仪伞侧儿兰兽写军几凤别动单双叶号团图圣块壳壶头奖宝帐带帮并异张弯护挂数时机条"
    "来枫柠标栋树样榈樱气汉没浅灯灵烛热爱独狮猕猪猫猬环电画盐盘礼笔筝篮红纯纳纸绒绘给绵绿网脑脚节苹萝萨葱"
    "蓝虫虾蜗蜡衬视计记话请谢贝货车轮轿辆边运还连邮里钟钥钻铁铃铅铛锁锚锤镜长门闪间闹阳雏顶颂颈颗风飞饼马"
    "驼骆髅鱼鲜鲨鲸鳄鸟鸡鸭鹅鹉鹦鹰鹳麦黄龙龟只"
)
_TRADITIONAL = (
    "們萬與東兩個為麼烏書於雲僅儀傘側兒蘭獸寫軍幾鳳別動單雙葉號團圖聖塊殼壺頭獎寶帳帶幫並異張彎護掛數時機條"
    "來楓檸標棟樹樣櫚櫻氣漢沒淺燈靈燭熱愛獨獅獼豬貓蝟環電畫鹽盤禮筆箏籃紅純納紙絨繪給綿綠網腦腳節蘋蘿薩蔥"
    "藍蟲蝦蝸蠟襯視計記話請謝貝貨車輪轎輛邊運還連郵裡鐘鑰鑽鐵鈴鉛鐺鎖錨錘鏡長門閃間鬧陽雛頂頌頸顆風飛餅馬"
    "駝駱髏魚鮮鯊鯨鱷鳥雞鴨鵝鵡鸚鷹鸛麥黃龍龜隻"
)
"""Characters of the nouns and frames that differ between the scripts."""


def _frames_of(relation: str) -> tuple[str, ...]:
    """Return the frames of a relation, half of them said from the other side."""
    frames = [
        frame.replace("<", side).replace(">", other)
        for side, other in _SIDES[relation]
        for frame in _RELATIONS
    ]
    turned = {"{a": "{b", "{b": "{a"}
    for side, other in _SIDES[OPPOSITE[relation]]:
        for frame in _RELATIONS:
            parts = frame.replace("{a", "\0").replace("{b", turned["{b"]).replace("\0", turned["{a"])
            frames.append(parts.replace("<", side).replace(">", other))
    return tuple(frames)


class Chinese(EastAsianLanguage):
    """Chinese; a share of the captions is in traditional characters."""

    code = "zh"
    name = "Chinese"
    colour_prefixes = "红青绿黄紅綠黃"
    endings = ("", "", "", "", "", "", "。", "。", "。", "！")

    frames = Frames(
        one=(
            "{a}", "{a}", "{a}", "{a}", "{a}", "{a}", "{a:数}", "{a:数}", "{a:数}", "{a:在}", "{a:有}",
            "{a:有}。", "画{a}。", "{a:画}。", "{a:画}。", "请{a:画}。", "帮我{a:画}。", "给我{a:画}。",
            "{a:生成}。", "{a:绘制}。", "我想要{a}。", "我想看{a:数}。", "{a}的图片。", "{a}的图。",
            "一张{a}的图片。", "一幅{a}的画。", "{a}的插画。", "{a}的照片。", "{a}表情符号。",
            "图中{a:有}。", "请帮我{a:画}，谢谢。", "可爱的{a}", "{a}，高清，4K。", "请{a:生成}。",
            "来{a:数}。",
        ),
        two=(
            "{a}和{b}", "{a}和{b}", "{a:数}和{b:数}", "{a:数}和{b:数}", "{a}与{b}", "{a}，{b}",
            "{a:数}，{b:数}", "{a} {b}", "{a}、{b}", "{a}跟{b}", "{a}以及{b}", "{a:数}，还有{b:数}",
            "{a:有}，{b:有}。", "{a:有}，还有{b:数}。", "画{a}和{b}。", "请画{a:数}和{b:数}。",
            "{a:画}，再{b:画}。", "{a}和{b}的图片。", "一张{a}和{b}的图。", "图里有{a:数}和{b:数}。",
            "{a}加{b}", "帮我画{a}和{b}，谢谢。", "{a}+{b}",
        ),
        three=(
            "{a}、{b}和{c}", "{a}、{b}和{c}", "{a:数}、{b:数}和{c:数}", "{a}，{b}，{c}",
            "{a:数}，{b:数}，{c:数}", "{a} {b} {c}", "{a}、{b}、{c}", "{a}和{b}，还有{c}",
            "{a}、{b}以及{c}", "画{a}、{b}和{c}。", "请画{a:数}、{b:数}和{c:数}。",
            "有{a:数}、{b:数}和{c:数}。", "{a:有}，{b:有}，{c:有}。", "{a}、{b}和{c}的图片。",
            "一张有{a:数}、{b:数}和{c:数}的图。", "{a}和{b}和{c}",
        ),
        relations={relation: _frames_of(relation) for relation in _SIDES},
        and_then=(
            "{x}，{y}", "{x}，{y}", "{x}。{y}", "{x}，而且{y}", "{x}；{y}", "{x}，另外{y}",
            "{x}。同时，{y}", "{x}，并且{y}",
        ),
        backgrounds=(
            "{x}，{bg}背景", "{x}，{bg}背景", "{x}，{bg}的背景", "{x}，背景是{bg}", "{x}，背景是{bg}的。",
            "{x}，背景为{bg}", "{x}。背景是{bg}。", "{bg}背景，{x}", "{bg}背景，{x}", "{bg:短}背景，{x}",
            "{x}，{bg:短}背景", "{x} {bg}背景", "{bg}背景 {x}", "背景是{bg}，{x}", "{bg}的背景，{x}",
            "{bg}背景下，{x}", "{x}（{bg}背景）", "{x}，背景{bg}", "{x}，背景要{bg}的。",
            "{x}，用{bg}做背景。", "{x}，{bg:短}底", "在{bg}背景上，{x}",
        ),
        only_background=(
            "{bg}背景", "{bg}背景", "{bg}的背景", "纯{bg}背景", "{bg:短}背景", "一片{bg}", "仅{bg}背景",
            "空白的{bg}背景", "画一个{bg}背景。", "一张{bg}的图。", "什么都没有的{bg}背景",
            "背景是{bg}，没有别的东西。", "{bg}背景，没有其他东西",
        ),
        signs=(
            "写着“{t}”的牌子", "一块写着“{t}”的牌子", "写有「{t}」的牌子", "一个写着\"{t}\"的牌子",
            "写着{t}的告示牌", "牌子上写着“{t}”", "一块牌子，上面写着“{t}”", "一块牌子，上面写着{t}",
            "画一块写着「{t}」的牌子。", "标牌上写着『{t}』", "“{t}”字样的牌子",
            "请画一个写着“{t}”的招牌。", "有一块写着“{t}”的指示牌。", "招牌“{t}”",
        ),
        with_sign=(
            "{x}，还有一块写着“{t}”的牌子", "{x}，牌子上写着“{t}”", "{x}，一块写着「{t}」的牌子",
            "{x}，旁边的牌子上写着“{t}”。", "{x}。牌子上写着“{t}”。", "一块写着“{t}”的牌子，{x}",
            "写着\"{t}\"的牌子，{x}", "{x}，还有写着{t}的牌子", "{x}，另有一块写着『{t}』的告示牌",
            "{x}，再加一块牌子，上面写着“{t}”。", "有一块牌子写着“{t}”，{x}",
        ),
    )  # fmt: skip
    phrase_backgrounds = (
        "{bg}背景上的{x}", "{bg}背景的{x}", "{bg}背景上有{x}。", "{bg:短}底{x}", "在{bg}背景上画{x}。",
        "{bg}背景前的{x}", "{bg}背景中的{x}", "画{x}，背景用{bg}。",
    )  # fmt: skip
    phrase_signs = (
        "{x}和一块写着“{t}”的牌子", "{x}和写着「{t}」的牌子", "一块写着“{t}”的牌子和{x}",
        "画{x}和一块写着\"{t}\"的牌子。",
    )  # fmt: skip

    @cached_property
    def _all_nouns(self) -> frozenset[str]:
        return frozenset(noun for entry in self.nouns().values() for noun in entry.nouns)

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption in one of the scripts."""
        if type(self) is Chinese and rng.random() < _TRADITIONAL_SHARE:
            return _IN_TRADITIONAL.caption(spec, rng)
        return super().caption(spec, rng)

    def word(self, group: ObjectGroup, noun: CountedNoun, form: str) -> str | None:
        """Return a pronoun."""
        return ("它" if group.count == 1 else "它们") if form == "它" else None

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a background colour, in the short form without the word for colour."""
        return pick(rng, _BACKGROUNDS[colour][form == "短"].split())

    def phrase(
        self, group: ObjectGroup, noun: CountedNoun, form: str, rng: np.random.Generator, *, is_repeated: bool
    ) -> str:
        """Return a noun phrase.

        The form "shu" has its number; "you" says that the group is there; "zai" has the place after it; a
        verb is said before the phrase.
        """
        named = self._named(group, noun, rng)
        if is_repeated:
            return named
        number = self._number(group, noun, rng)
        is_bare = group.count == 1 and not form and rng.random() < 0.55
        if not form and not is_bare and group.count is not None and rng.random() < 0.06:
            phrase = named + pick(rng, (number, number, f"×{group.count}"))
        else:
            phrase = named if is_bare else f"{number}{named}"
        where = "" if group.place is None else pick(rng, ("", "", "", "画面", "图片", "画面的")) + pick(
            rng, _PLACES[group.place]
        )
        if form == "有":
            return f"{where}有{phrase}"
        if form in _VERBS:
            return f"在{where}{form}{phrase}" if where else f"{form}{phrase}"
        if not where:
            return phrase
        if form == "在":
            return f"{phrase}在{where}"
        return pick(rng, ("", "", "", "位于")) + f"{where}的{phrase}"

    def _named(self, group: ObjectGroup, noun: CountedNoun, rng: np.random.Generator) -> str:
        """Return a noun with its size and its colour."""
        text = noun.text
        size = ""
        if group.size is not None:
            prefixed = _SIZE_PREFIXES[group.size] + text
            if rng.random() < 0.6 and text[0] not in "大小" and prefixed not in self._all_nouns:
                text = prefixed
            else:
                size = pick(rng, _SIZES[group.size].split())
        if group.colour is None:
            return size + text
        colours = _OBJECT_COLOURS[group.colour].split()
        colour = pick(rng, colours)
        if colour + text in self._all_nouns:
            colour = colours[0]
        is_size_first = rng.random() < 0.6 or not size.endswith("的")
        return f"{size}{colour}{text}" if is_size_first else f"{colour}{size}{text}"

    def _number(self, group: ObjectGroup, noun: CountedNoun, rng: np.random.Generator) -> str:
        """Return the number with its classifier."""
        classifier = noun.classifier
        if group.count is None:
            return pick(rng, ("一些", *(f"{some}{classifier}" for some in ("几", "几", "好几", "若干"))))
        words = _NUMERALS[group.count - 1]
        return pick(rng, (words, words, words, str(group.count), full_width(group.count))) + classifier


class TraditionalChinese(Chinese):
    """Chinese in traditional characters, with the words of Taiwan and Hong Kong."""

    def nouns(self) -> Mapping[str, NounEntry]:
        """Return the nouns of all classes, those of the second script where there are."""
        return self._regional_nouns

    def finish(self, text: str, rng: np.random.Generator) -> str:
        """Return a caption in traditional characters."""
        return super().finish(text, rng).translate(TO_TRADITIONAL)

    @cached_property
    def _regional_nouns(self) -> dict[str, NounEntry]:
        return {
            name: entry._replace(
                nouns=entry.regional_nouns, coloured_nouns=entry.coloured_regional_nouns
            )
            for name, entry in super().nouns().items()
        }


TO_TRADITIONAL = str.maketrans(_SIMPLIFIED, _TRADITIONAL)
"""Characters of simplified captions to traditional ones, for `str.translate`."""
_IN_TRADITIONAL = TraditionalChinese()
