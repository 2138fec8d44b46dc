"""Phrases of the caption grammar, in disjoint sets for training, tests and prompts of tuning by rewards.

caption_grammar.py combines them. Everything is lower case; sentences get their capitals later. A phrase that
occurs twice is twice as frequent. Slots: {a} and {b} the two sides of a relation, {is_a} and {is_b} their
verbs, {prep} the preposition of the relation, {opposite} that of its reverse, {aside} the place of a as seen
from b, {spot_a} and {spot_b} their places in the image, {c} a colour, {an} its article.
"""

import re
from dataclasses import dataclass
from functools import cache

from lens.nano.world.colours import COLOUR_SYNONYMS
from lens.nano.world.objects import OBJECT_CLASSES

NUMERALS = ("no", "one", "two", "three", "four", "five", "six")

SIZE_ADJECTIVES = {
    "small": ("small", "little", "tiny", "small"),
    "large": ("large", "big", "huge", "big"),
}

NEUTRAL_ADJECTIVES = (
    "cute", "nice", "cartoon", "simple", "pretty", "lovely", "friendly", "beautiful", "emoji", "shiny",
)  # fmt: skip
"""Words that people like to add and that change nothing."""

POSITION_PHRASES = {
    "centre": (
        "in the centre", "in the middle", "in the center", "at the centre", "in the middle of the picture",
        "in the center of the image",
    ),
    "left": (
        "on the left", "on the left side", "at the left", "on the left of the picture", "at the left edge",
    ),
    "right": (
        "on the right", "on the right side", "at the right", "on the right of the picture",
        "at the right edge",
    ),
    "top": (
        "at the top", "near the top", "at the top of the picture", "in the upper part", "at the top edge",
    ),
    "bottom": (
        "at the bottom", "near the bottom", "at the bottom of the picture", "in the lower part",
        "down at the bottom",
    ),
}  # fmt: skip
CORNER_PHRASES = (
    "in the {row} {column} corner", "in the {row} {column}", "at the {row} {column}",
    "in the {row}-{column} corner", "in the {row} {column} corner of the picture",
)  # fmt: skip
ROW_WORDS = {"top": ("top", "upper", "top"), "bottom": ("bottom", "lower", "bottom")}

PREPOSITIONS = {
    "left of": ("to the left of", "on the left of", "left of", "on the left side of", "to the left of"),
    "right of": ("to the right of", "on the right of", "right of", "on the right side of", "to the right of"),
    "above": ("above", "over", "on top of", "above"),
    "below": ("below", "under", "beneath", "underneath"),
}
RELATIVE_POSITIONS = {
    "left of": ("to {its} left", "on {its} left", "on the left"),
    "right of": ("to {its} right", "on {its} right", "on the right"),
    "above": ("above {it}", "over {it}", "on top"),
    "below": ("below {it}", "under {it}", "beneath {it}"),
}
SIDE_PHRASES = {
    "left of": (("on the left", "on the right"), ("on the left side", "on the right side")),
    "right of": (("on the right", "on the left"), ("on the right side", "on the left side")),
    "above": (("at the top", "at the bottom"), ("on top", "at the bottom")),
    "below": (("at the bottom", "at the top"), ("at the bottom", "on top")),
}
"""Where the first and the second lie."""


# Training composes half of its openers from these, so that a request in people's own words is nothing new.
REQUEST_OPENERS = (
    "", "", "", "", "draw ", "draw me ", "paint ", "make ", "make me ", "please make ", "can you make ",
    "create ", "please create ", "generate ", "design ", "render ", "show me ", "give me ", "i want ",
    "i would like ", "i'd love ", "this is ", "here is ", "imagine ",
)  # fmt: skip
STYLES = (
    "", "", "", "", "", "simple ", "colourful ", "colorful ", "flat ", "cute ", "funny ", "minimal ",
    "clean ", "modern ", "hand-drawn ", "vector ", "detailed ", "realistic ", "high quality ", "children's ",
    "plain ", "neat ",
)  # fmt: skip
MEDIA = (
    "picture", "picture", "image", "image", "drawing", "illustration", "photo", "painting", "cartoon", "icon",
    "scene", "view", "card", "postcard", "design", "print", "rendering", "pic", "emoji", "wallpaper", "logo",
    "watercolour",
)  # fmt: skip
CONNECTIVES = (
    "of ", "of ", "of ", "showing ", "with ", "that shows ", "containing ", "featuring ", "depicting ",
    "which has ",
)  # fmt: skip
FUNCTION_WORDS = (
    "we", "my", "me", "the", "this", "let", "of", "of", "with", "with", "in", "to", "it", "has", "shows",
    "showing", "some", "a", "a", "an", "i", "you", "please", "that", "is", "for", "on", "try", "could",
)  # fmt: skip
ONSETS = (
    "b", "bl", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k",
    "l", "m", "n", "p", "ph", "pl", "pr", "qu", "r", "s", "sc", "sh", "sk", "sl", "sn", "sp", "st", "str",
    "sw", "t", "th", "tr", "tw", "v", "w", "wh", "y", "z", "", "",
)  # fmt: skip
VOWELS = (
    "a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ea", "ee", "ie", "io", "oa", "oo", "ou", "y",
)  # fmt: skip
CODAS = (
    "", "", "", "ck", "d", "ff", "g", "k", "l", "ll", "m", "n", "nd", "ng", "nt", "p", "ph", "r", "rd",
    "rk", "rt", "s", "st", "t", "tch", "te", "ve", "x",
)  # fmt: skip
"""For invented words: around the objects, a word never met before changes nothing. To the tokenizer any such
word is a row of pieces that objects' names are made of too, so they must be of every kind."""


@dataclass(frozen=True)
class PhraseSet:
    """One set of phrases."""

    openers: tuple[str, ...]
    """Before a noun phrase, with the space."""
    clause_openers: tuple[str, ...]
    """Before a clause with a verb."""
    there: tuple[str, ...]
    """Before a noun phrase, {is_a} agreeing with it."""
    relations: tuple[str, ...]
    """Noun phrases of a relation."""
    relation_clauses: tuple[str, ...]
    backgrounds: tuple[str, ...]
    """After everything else."""
    fronted_backgrounds: tuple[str, ...]
    """Before a noun phrase."""
    background_sentences: tuple[str, ...]


NOISY_BACKGROUNDS = (
    ", {u} on {an} {c} background", " {u} on {an} {c} background", " {u} against {an} {c} background",
    ", {u} the background {u} {c}", "; {u} the background {c}", ", and the {u} is {c}", " over {u} {c}",
    " {u} {an} {c} background", " on {an} {u} {c} background", " in front of {an} {c} {u}",
    " where the {u} is {c}", " {u} {an} {c} {u}",
)  # fmt: skip
"""Backgrounds with unknown words {u} in them."""


TRAIN_PHRASES = PhraseSet(
    openers=(
        "a picture of ", "an image of ", "a drawing of ", "an illustration of ", "a photo of ",
        "a painting of ", "picture of ", "image of ", "drawing of ", "a picture with ", "an image with ",
        "a picture showing ", "an image showing ", "a scene with ", "a simple drawing of ", "a cartoon of ",
        "a flat illustration of ", "clip art of ", "the picture shows ", "the image shows ",
        "this picture shows ", "this is a picture of ", "here is ", "here is a picture of ", "draw ",
        "draw me ", "draw a picture of ", "please draw ", "can you draw ", "paint ", "show me ", "show ",
        "make ", "make a picture of ", "make an image of ", "create an image of ", "create a picture with ",
        "generate ", "generate an image of ", "give me ", "give me a picture of ", "i want ",
        "i want a picture of ", "i would like to see ", "i'd like ", "imagine ",
    ),
    clause_openers=(
        "", "", "", "in this picture, ", "a picture where ", "in the image, ", "an image in which ",
    ),
    there=(
        "there {is_a} ", "there {is_a} ", "in the picture there {is_a} ", "i see ", "you can see ",
        "it shows ",
    ),
    relations=(
        "{a} {prep} {b}", "{a} {prep} {b}", "{a} {prep} {b}", "{a} {prep} {b}", "{b} {opposite} {a}",
        "{b} with {a} {aside}", "{a} {spot_a} and {b} {spot_b}", "{a} {spot_a}, {b} {spot_b}",
        "{b} {spot_b} and {a} {spot_a}", "{b} and {aside} {a}", "{a} placed {prep} {b}",
    ),
    relation_clauses=(
        "{a} {is_a} {prep} {b}", "{a} {is_a} {prep} {b}", "{b} {is_b} {opposite} {a}",
        "{a} {is_a} placed {prep} {b}", "{spot_a} there {is_a} {a} and {spot_b} there {is_b} {b}",
        "{a} {is_a} {spot_a} and {b} {is_b} {spot_b}", "{spot_a} {a}, {spot_b} {b}",
    ),
    backgrounds=(
        " on {an} {c} background", " on {an} {c} background", ", on {an} {c} background",
        " against {an} {c} background", " with {an} {c} background", ", {c} background", " on {c}",
        " against {c}", " in front of {an} {c} background", " in front of {an} {c} backdrop",
        " against {an} {c} backdrop", " over {an} {c} background", " on a plain {c} background",
        " on a solid {c} background", ". the background is {c}", ". {c} background",
        ", the background is {c}", ", background {c}", " and {an} {c} background", " on a background of {c}",
        ". the background should be {c}", ", with {c} as the background colour",
    ),
    fronted_backgrounds=(
        "on {an} {c} background, ", "on {an} {c} background ", "{c} background, ", "{c} background with ",
        "{an} {c} background with ", "against {an} {c} background, ", "{an} {c} picture with ", "on {c}, ",
        "in front of {an} {c} backdrop, ", "{an} {c} background and ", "background {c}, ",
        "on {an} {c} background there {is_a} ",
    ),
    background_sentences=(
        "the background is {c}", "the background is plain {c}", "everything is on {an} {c} background",
        "behind is a plain {c} background", "the whole background is {c}", "it has {an} {c} background",
    ),
)  # fmt: skip

TEST_PHRASES = PhraseSet(
    openers=(
        "a sketch of ", "an artwork with ", "we see ", "could you paint ", "a poster showing ", "let me see ",
        "i need an image with ", "a digital drawing of ", "produce a picture of ", "a graphic of ",
        "please paint me ", "my drawing shows ", "an emoji scene with ", "a sticker of ", "try to draw ",
        "a photograph of ",
    ),
    clause_openers=(
        "a sketch where ", "on this poster, ", "a drawing in which ", "paint it so that ", "in my drawing, ",
    ),
    there=("in the drawing there {is_a} ", "in this scene there {is_a} ", "on the page there {is_a} "),
    relations=(
        "{a} located {prep} {b}", "{a} that {is_a} {prep} {b}", "{b} that {is_b} {opposite} {a}",
        "{b}, and {aside} {a}", "{a} {spot_a} plus {b} {spot_b}",
    ),
    relation_clauses=(
        "{a} {is_a} located {prep} {b}", "{spot_a} {is_a} {a}, {spot_b} {is_b} {b}",
        "{a} {is_a} seen {prep} {b}",
    ),
    backgrounds=(
        " set against {an} {c} background", " on a flat {c} background", " over plain {c}",
        ", all on {an} {c} background", ", and the backdrop is {c}", " where the background is {c}",
        " before {an} {c} background", "; make the background {c}",
    ),
    fronted_backgrounds=(
        "with {an} {c} background: ", "using {c} as background, ", "over {an} {c} backdrop, ",
        "on a flat {c} background, ", "before {an} {c} background, ", "a scene on {c} with ",
    ),
    background_sentences=(
        "behind everything it is {c}", "the backdrop is {c} all over", "all of the background is {c}",
    ),
)  # fmt: skip

TUNE_PHRASES = PhraseSet(
    openers=(
        "a mural of ", "a doodle of ", "a stamp with ", "a badge with ", "a mosaic of ", "a comic about ",
        "a banner with ", "a canvas with ", "a tile that has ", "a patch with ", "a rendition of ",
        "clipart featuring ", "a portrait of ", "an ornament shaped like ", "a snapshot of ",
        "a screenshot showing ", "an engraving of ", "a cover depicting ", "an avatar of ", "an emblem with ",
        "a greeting card with ", "a leaf from a colouring book with ", "my kid wants ", "they asked for ",
        "just ", "nothing but ", "only ", "would you draw ", "kindly make ", "do ", "compose ", "depict ",
        "illustrate ", "prepare ", "craft ", "visualise ", "bring me ", "add ", "put ", "picture this: ",
        "let's have ", "how about ", "get me ", "send me ", "help me make ", "build a scene with ",
        "for my daughter: ", "for a book: ", "for school: ", "quick: ", "today: ",
    ),
    clause_openers=(
        "draw it like this: ", "a mural on which ", "a card where ", "as a doodle, ", "make sure that ",
        "here, ", "as you know, ", "a comic panel in which ",
    ),
    there=(
        "there should be ", "we have got ", "what you get {is_a} ", "on the card there {is_a} ",
        "the canvas holds ", "it contains ",
    ),
    relations=(
        "{a} drawn {prep} {b}", "{a} directly {prep} {b}", "{b} which {is_b} {opposite} {a}",
        "{a} standing {prep} {b}", "{a} {spot_a} while {b} {is_b} {spot_b}",
    ),
    relation_clauses=(
        "{a} {is_a} drawn {prep} {b}", "{a} {is_a} directly {prep} {b}",
        "{a} {is_a} {spot_a} while {b} {is_b} {spot_b}", "{b} {is_b} standing {opposite} {a}",
    ),
    backgrounds=(
        ", painted on {c}", " upon {an} {c} background", ", background colour {c}",
        " with everything {c} behind", ", surrounded by {c}", " on {c} paper", ", {c} behind",
        " on an entirely {c} background",
    ),
    fronted_backgrounds=(
        "upon {an} {c} background: ", "on {c} paper, ", "background colour {c}: ", "{c} behind, in front ",
        "surrounded by {c}, ",
    ),
    background_sentences=(
        "the paper is {c}", "the colour behind is {c}", "paint the background {c}",
    ),
)  # fmt: skip

PHRASE_SETS = {"train": TRAIN_PHRASES, "test": TEST_PHRASES, "tune": TUNE_PHRASES}


@cache
def known_words() -> frozenset[str]:
    """Return the words of the grammar: an invented word of a training caption is none of them.

    The words of names of code count too, as they did when the shipped models were trained.
    """
    # Without the phrases of prompts for tuning, which came after the training captions.
    tables = (
        *(vars(PHRASE_SETS[split]) for split in ("train", "test")),
        OBJECT_CLASSES, COLOUR_SYNONYMS, RELATIVE_POSITIONS, REQUEST_OPENERS, CORNER_PHRASES, FUNCTION_WORDS,
        CONNECTIVES, MEDIA, NEUTRAL_ADJECTIVES, NUMERALS, POSITION_PHRASES, PREPOSITIONS, ROW_WORDS,
        SIZE_ADJECTIVES, SIDE_PHRASES, STYLES, "thing",
    )  # fmt: skip
    return frozenset(re.findall("[a-z]+", " ".join(map(repr, tables)).lower()))
