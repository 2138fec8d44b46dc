"""Object classes of the nano world, with their English names.

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

_FIRST_CLASSES = (*_ANIMALS, *_FOOD, *_NATURE, *_OBJECTS)

_MORE_ANIMALS = (
    _object("horse", "horse-face"),
    _object("sheep/sheep|ewe", "ewe"),
    _object("goat"),
    _object("rooster|cockerel"),
    _object("eagle"),
    _object("parrot"),
    _object("flamingo/flamingos"),
    _object("swan"),
    _object("peacock"),
    _object("dolphin"),
    _object("shark"),
    _object("lobster"),
    _object("spider"),
    _object("bat"),
    _object("wolf/wolves"),
    _object("giraffe"),
    _object("zebra"),
    _object("rhinoceros/rhinoceroses|rhino"),
    _object("camel"),
    _object("squirrel|chipmunk", "chipmunk"),
    _object("dinosaur|dino", "sauropod"),
    _object("dragon", "dragon-face"),
    _object("crocodile|alligator"),
    _object("snake"),
    _object("gorilla"),
    _object("deer/deer"),
    _object("jellyfish/jellyfish"),
)
_MORE_FOOD = (
    _object("grapes/bunches of grapes|bunch of grapes/bunches of grapes", "grapes"),
    _object("melon"),
    _object("mango/mangoes"),
    _object("kiwi|kiwi fruit/kiwi fruits", "kiwi-fruit"),
    _object("tomato/tomatoes"),
    _object("coconut"),
    _object("potato/potatoes"),
    _object("cucumber"),
    _object("onion"),
    _object("bread/loaves of bread|loaf of bread/loaves of bread", "bread"),
    _object("pretzel"),
    _object("pancakes/stacks of pancakes|stack of pancakes/stacks of pancakes", "pancakes"),
    _object("french fries/portions of french fries|fries/portions of fries", "french-fries"),
    _object("hot dog|hotdog", "hot-dog"),
    _object("taco"),
    _object("egg|fried egg", "cooking"),
    _object("popcorn/boxes of popcorn|box of popcorn/boxes of popcorn", "popcorn"),
    _object("sandwich/sandwiches"),
    _object("coffee/cups of coffee|cup of coffee/cups of coffee", "hot-beverage"),
    _object("candy/candies|sweet", "candy"),
)
_MORE_NATURE = (
    _object("tree", "deciduous-tree"),
    _object("mountain", "snow-capped-mountain"),
    _object("volcano/volcanoes"),
    _object("lightning bolt", "high-voltage"),
    _object("planet", "ringed-planet"),
    _object("shell|seashell", "spiral-shell"),
)
_MORE_OBJECTS = (
    _object("bicycle|bike"),
    _object("motorcycle|motorbike"),
    _object("train", "locomotive"),
    _object("truck|lorry/lorries", "delivery-truck"),
    _object("ambulance"),
    _object("ship", "passenger-ship"),
    _object("anchor"),
    _object("parachute"),
    _object("flying saucer|UFO", "flying-saucer"),
    _object("lighthouse"),
    _object("church/churches"),
    _object("bed"),
    _object("chair"),
    _object("door"),
    _object("hammer"),
    _object("scissors/pairs of scissors|pair of scissors/pairs of scissors", "scissors"),
    _object("pencil"),
    _object("lock|padlock", "locked"),
    _object("bucket"),
    _object("phone|mobile phone", "mobile-phone"),
    _object("laptop"),
    _object("microphone", "microphone"),
    _object("violin"),
    _object("saxophone"),
    _object("die/dice", "game-die"),
    _object("kite"),
    _object("ring"),
    _object("glasses/pairs of glasses|pair of glasses/pairs of glasses", "glasses"),
    _object("shirt|T-shirt", "t-shirt"),
    _object("dress/dresses"),
    _object("shoe|sneaker", "running-shoe"),
    _object("suitcase", "luggage"),
    _object("ghost"),
    _object("alien"),
    _object("skull"),
    _object("teapot"),
    _object("envelope|letter", "envelope"),
)

FIRST_CLASSES = tuple(thing.name for thing in _FIRST_CLASSES)
"""Names of the classes of the six tasks, which stay as they are while the world grows."""

OBJECT_CLASSES: dict[str, ObjectClass] = {
    thing.name: thing
    for thing in (*_FIRST_CLASSES, *_MORE_ANIMALS, *_MORE_FOOD, *_MORE_NATURE, *_MORE_OBJECTS)
}
"""Every class by name, in a fixed order."""

KINDS = {
    kind: tuple(thing.name for group in groups for thing in group)
    for kind, groups in {
        "animals": (_ANIMALS, _MORE_ANIMALS),
        "food": (_FOOD, _MORE_FOOD),
        "nature": (_NATURE, _MORE_NATURE),
        "objects": (_OBJECTS, _MORE_OBJECTS),
    }.items()
}
"""Names of the classes by kind."""
