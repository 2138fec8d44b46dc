"""Object classes and background colours of the nano world, with their names.

Knows nothing of images, scenes or sentences. Icons are names in the Noto emoji set (npm
`@iconify-json/noto`, Apache 2.0); sprites.py renders them.
"""

from typing import NamedTuple


class ObjectClass(NamedTuple):
    """A class of objects: its name, plural, synonyms and icon."""

    name: str
    plural: str
    synonyms: tuple[tuple[str, str], ...]
    """Other (singular, plural) names that mean this class and no other of the world."""
    icon: str


def _object(names: str, icon: str | None = None) -> ObjectClass:
    """Read `name/plural|synonym/plural`; a missing plural is the name with an s."""
    pairs = [(one, many or f"{one}s") for one, _, many in (word.partition("/") for word in names.split("|"))]
    (name, plural), *synonyms = pairs
    return ObjectClass(name, plural, tuple(synonyms), icon or name.replace(" ", "-"))


_ANIMALS = (
    _object("fox/foxes"),
    _object("cat|kitty/kitties", "cat-face"),
    _object("dog|puppy/puppies", "dog-face"),
    _object("lion"),
    _object("tiger", "tiger-face"),
    _object("bear"),
    _object("panda"),
    _object("koala"),
    _object("rabbit|bunny/bunnies", "rabbit-face"),
    _object("mouse/mice", "mouse-face"),
    _object("frog"),
    _object("pig|piglet", "pig-face"),
    _object("cow", "cow-face"),
    _object("monkey", "monkey-face"),
    _object("chick|baby chick", "front-facing-baby-chick"),
    _object("penguin"),
    _object("owl"),
    _object("duck"),
    _object("butterfly/butterflies"),
    _object("bee|honeybee", "honeybee"),
    _object("ladybug|ladybird", "lady-beetle"),
    _object("snail"),
    _object("octopus/octopuses"),
    _object("crab"),
    _object("fish/fish|tropical fish/tropical fish", "tropical-fish"),
    _object("whale", "spouting-whale"),
    _object("turtle|tortoise"),
    _object("elephant"),
    _object("unicorn"),
    _object("hedgehog"),
)
_FOOD = (
    _object("red apple", "red-apple"),
    _object("green apple", "green-apple"),
    _object("banana"),
    _object("orange|tangerine", "tangerine"),
    _object("lemon"),
    _object("pear"),
    _object("peach/peaches"),
    _object("strawberry/strawberries"),
    _object("cherry/cherries", "cherries"),
    _object("watermelon|slice of watermelon/slices of watermelon"),
    _object("pineapple"),
    _object("carrot"),
    _object("broccoli/broccoli"),
    _object("mushroom|toadstool", "mushroom"),
    _object("ear of corn/ears of corn|corn cob", "ear-of-corn"),
    _object("eggplant|aubergine"),
    _object("pizza|slice of pizza/slices of pizza"),
    _object("hamburger|burger"),
    _object("doughnut|donut"),
    _object("cookie|biscuit"),
    _object("cupcake"),
    _object("birthday cake"),
    _object("ice cream|soft ice cream", "soft-ice-cream"),
    _object("lollipop"),
    _object("cheese/cheeses|piece of cheese/pieces of cheese", "cheese-wedge"),
    _object("croissant"),
    _object("avocado"),
)
_NATURE = (
    _object("sunflower"), _object("rose"), _object("tulip"), _object("cactus/cacti"),
    _object("palm tree"), _object("pine tree|evergreen tree", "evergreen-tree"),
    _object("maple leaf/maple leaves", "maple-leaf"), _object("clover|four-leaf clover", "four-leaf-clover"),
    _object("sun", "sun"), _object("moon|crescent moon", "crescent-moon"), _object("star", "star"),
    _object("cloud"), _object("rainbow"), _object("snowflake"), _object("fire|flame"),
    _object("globe", "globe-showing-americas"),
    _object("snowman/snowmen", "snowman-without-snow"),
)  # fmt: skip
_OBJECTS = (
    _object("car|red car", "automobile"),
    _object("taxi/taxis|yellow cab"),
    _object("bus/buses"),
    _object("fire engine|fire truck", "fire-engine"),
    _object("tractor"),
    _object("rocket"),
    _object("airplane|plane", "airplane"),
    _object("helicopter"),
    _object("sailboat"),
    _object("balloon|red balloon"),
    _object("house"),
    _object("tent"),
    _object("castle"),
    _object("ball|soccer ball|football", "soccer-ball"),
    _object("basketball"),
    _object("tennis racket|racket", "tennis"),
    _object("guitar"),
    _object("drum"),
    _object("trumpet"),
    _object("red heart|heart", "red-heart"),
    _object("gift|present", "wrapped-gift"),
    _object("crown"),
    _object("key"),
    _object("umbrella", "umbrella"),
    _object("light bulb"),
    _object("candle"),
    _object("book|red book", "closed-book"),
    _object("bell"),
    _object("clock|alarm clock", "alarm-clock"),
    _object("camera"),
    _object("television|TV"),
    _object("teddy bear"),
    _object("robot"),
    _object("top hat", "top-hat"),
    _object("backpack"),
    _object("pumpkin|jack-o'-lantern", "jack-o-lantern"),
    _object("diamond|gem", "gem-stone"),
    _object("trophy/trophies"),
)

OBJECT_CLASSES: dict[str, ObjectClass] = {
    thing.name: thing for thing in (*_ANIMALS, *_FOOD, *_NATURE, *_OBJECTS)
}
"""Every class by name, in a fixed order."""

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
"""Background colours by name: 8-bit RGB of the middle shade."""

COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "grey": ("gray",), "light blue": ("sky blue", "pale blue"), "purple": ("violet",),
}  # fmt: skip
"""Other words for a colour."""
