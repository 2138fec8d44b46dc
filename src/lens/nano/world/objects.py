"""The things and the background colours of the nano world, by name.

Facts only: what can be drawn and what people call it. Knows nothing of pictures, scenes or sentences.
Icons are names in the Noto emoji set (npm `@iconify-json/noto`, Apache 2.0); art.py draws them.
"""

from typing import NamedTuple


class Thing(NamedTuple):
    """One thing that can be drawn: its name, its plural, other words for it, and its icon."""

    name: str
    plural: str
    synonyms: tuple[tuple[str, str], ...]
    """Other (singular, plural) names that mean this thing and no other of the world."""
    icon: str


def _thing(names: str, icon: str | None = None) -> Thing:
    """Read `name/plural|synonym/plural`; a missing plural is the name with an s."""
    pairs = [(one, many or f"{one}s") for one, _, many in (word.partition("/") for word in names.split("|"))]
    (name, plural), *synonyms = pairs
    return Thing(name, plural, tuple(synonyms), icon or name.replace(" ", "-"))


_ANIMALS = (
    _thing("fox/foxes"), _thing("cat|kitty/kitties", "cat-face"), _thing("dog|puppy/puppies", "dog-face"),
    _thing("lion"), _thing("tiger", "tiger-face"), _thing("bear"), _thing("panda"), _thing("koala"),
    _thing("rabbit|bunny/bunnies", "rabbit-face"), _thing("mouse/mice", "mouse-face"), _thing("frog"),
    _thing("pig|piglet", "pig-face"), _thing("cow", "cow-face"), _thing("monkey", "monkey-face"),
    _thing("chick|baby chick", "front-facing-baby-chick"), _thing("penguin"), _thing("owl"),
    _thing("duck"), _thing("butterfly/butterflies"), _thing("bee|honeybee", "honeybee"),
    _thing("ladybug|ladybird", "lady-beetle"), _thing("snail"), _thing("octopus/octopuses"), _thing("crab"),
    _thing("fish/fish|tropical fish/tropical fish", "tropical-fish"), _thing("whale", "spouting-whale"),
    _thing("turtle|tortoise"), _thing("elephant"), _thing("unicorn"), _thing("hedgehog"),
)  # fmt: skip
_FOOD = (
    _thing("red apple", "red-apple"), _thing("green apple", "green-apple"), _thing("banana"),
    _thing("orange|tangerine", "tangerine"), _thing("lemon"), _thing("pear"), _thing("peach/peaches"),
    _thing("strawberry/strawberries"), _thing("cherry/cherries", "cherries"),
    _thing("watermelon|slice of watermelon/slices of watermelon"), _thing("pineapple"),
    _thing("carrot"), _thing("broccoli/broccoli"),
    _thing("mushroom|toadstool", "mushroom"), _thing("ear of corn/ears of corn|corn cob", "ear-of-corn"),
    _thing("eggplant|aubergine"), _thing("pizza|slice of pizza/slices of pizza"), _thing("hamburger|burger"),
    _thing("doughnut|donut"), _thing("cookie|biscuit"), _thing("cupcake"), _thing("birthday cake"),
    _thing("ice cream|soft ice cream", "soft-ice-cream"), _thing("lollipop"),
    _thing("cheese/cheeses|piece of cheese/pieces of cheese", "cheese-wedge"), _thing("croissant"),
    _thing("avocado"),
)  # fmt: skip
_NATURE = (
    _thing("sunflower"), _thing("rose"), _thing("tulip"), _thing("cactus/cacti"),
    _thing("palm tree"), _thing("pine tree|evergreen tree", "evergreen-tree"),
    _thing("maple leaf/maple leaves", "maple-leaf"), _thing("clover|four-leaf clover", "four-leaf-clover"),
    _thing("sun", "sun"), _thing("moon|crescent moon", "crescent-moon"), _thing("star", "star"),
    _thing("cloud"), _thing("rainbow"), _thing("snowflake"), _thing("fire|flame"),
    _thing("globe", "globe-showing-americas"),
    _thing("snowman/snowmen", "snowman-without-snow"),
)  # fmt: skip
_OBJECTS = (
    _thing("car|red car", "automobile"), _thing("taxi/taxis|yellow cab"), _thing("bus/buses"),
    _thing("fire engine|fire truck", "fire-engine"), _thing("tractor"),
    _thing("rocket"), _thing("airplane|plane", "airplane"), _thing("helicopter"), _thing("sailboat"),
    _thing("balloon|red balloon"), _thing("house"), _thing("tent"), _thing("castle"),
    _thing("ball|soccer ball|football", "soccer-ball"), _thing("basketball"),
    _thing("tennis racket|racket", "tennis"),
    _thing("guitar"), _thing("drum"), _thing("trumpet"), _thing("red heart|heart", "red-heart"),
    _thing("gift|present", "wrapped-gift"), _thing("crown"), _thing("key"), _thing("umbrella", "umbrella"),
    _thing("light bulb"), _thing("candle"), _thing("book|red book", "closed-book"), _thing("bell"),
    _thing("clock|alarm clock", "alarm-clock"), _thing("camera"), _thing("television|TV"),
    _thing("teddy bear"), _thing("robot"), _thing("top hat", "top-hat"), _thing("backpack"),
    _thing("pumpkin|jack-o'-lantern", "jack-o-lantern"), _thing("diamond|gem", "gem-stone"),
    _thing("trophy/trophies"),
)  # fmt: skip

THINGS: dict[str, Thing] = {thing.name: thing for thing in (*_ANIMALS, *_FOOD, *_NATURE, *_OBJECTS)}
"""Every thing by name, in a fixed order."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (248, 248, 248),
    "grey": (140, 140, 145),
    "black": (22, 22, 26),
    "red": (214, 48, 42),
    "orange": (246, 146, 36),
    "yellow": (250, 218, 66),
    "green": (66, 160, 74),
    "blue": (48, 98, 208),
    "light blue": (142, 202, 240),
    "purple": (132, 66, 168),
    "pink": (246, 150, 188),
    "brown": (126, 82, 52),
}
"""Background colours: name -> 8-bit RGB of the middle shade."""

COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "grey": ("gray",), "light blue": ("sky blue", "pale blue"), "purple": ("violet",),
}  # fmt: skip
"""Other words for a colour."""
