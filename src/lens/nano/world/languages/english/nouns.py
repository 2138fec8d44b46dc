"""Everyday English names of the classes: each means one class of the world and no other.

Knows nothing of sentences. A name is `singular/plural`; a missing plural is regular. A name after ~ takes no
article in the singular ("grapes", "bread"): alone it means one drawing of the class.
"""

from functools import cache
from typing import NamedTuple

from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES


class EnglishNoun(NamedTuple):
    """A name of a class."""

    singular: str
    plural: str
    takes_article: bool = True
    has_bare_plural: bool = True
    """Whether the plural alone means several, and not one drawing."""


_EVERYDAY_NAMES = {
    "fox": "foxy/foxies|vixen",
    "cat": "kitten|pussycat|kitty cat|house cat|kitty-cat|tomcat",
    "dog": "doggy/doggies|doggo/doggos|pup|doggie|pooch|puppy dog|pet dog|hound",
    "lion": "male lion",
    "tiger": "tiger cub|bengal tiger|tigress",
    "bear": "grizzly bear|bear cub|grizzly/grizzlies",
    "panda": "panda bear|panda cub",
    "koala": "koala bear",
    "rabbit": "bunny rabbit|hare|easter bunny/easter bunnies",
    "mouse": "mousey|field mouse/field mice|house mouse/house mice|mousie",
    "frog": "toad|froggy/froggies|froggie|tree frog",
    "pig": "piggy/piggies|swine/swine|hog|piggie|farm pig",
    "cow": "moo cow|dairy cow|milk cow|moo-cow|farm cow",
    "monkey": "chimp|macaque|cheeky monkey|chimpanzee",
    "chick": "chickie|baby chicken|newly hatched chick|chicky/chickies",
    "penguin": "emperor penguin|penguin bird",
    "owl": "night owl|hoot owl|barn owl|owlet",
    "duck": "ducky/duckies|mallard|drake|duckie",
    "butterfly": "monarch butterfly/monarch butterflies|flutterby/flutterbies",
    "bee": "bumblebee|honey bee|bumble bee",
    "ladybug": "ladybird beetle|lady beetle|lady bug|ladybeetle",
    "snail": "garden snail",
    "octopus": "octopus/octopi",
    "crab": "sea crab|crabby/crabbies",
    "fish": "reef fish/reef fish|fishy/fishies|fish/fishes|aquarium fish/aquarium fish",
    "whale": "blowing whale|spouting whale|sperm whale",
    "turtle": "terrapin|land turtle|sea turtle",
    "elephant": "elephant calf/elephant calves",
    "unicorn": "unicorn head|magical horse with a horn/magical horses with horns",
    "hedgehog": "hedgie|spiny hedgehog",
    "red apple": "apple|apple/apples|apple/apples|ripe apple",
    "green apple": "granny smith apple|granny smith/granny smiths|unripe green apple",
    "banana": "ripe banana",
    "orange": "mandarin|clementine|satsuma|mandarin orange|orange fruit|nectarine",
    "lemon": "citron|sour lemon|lemon fruit",
    "pear": "ripe pear|pear fruit",
    "peach": "ripe peach/ripe peaches|fuzzy peach/fuzzy peaches",
    "strawberry": "ripe strawberry/ripe strawberries|garden strawberry/garden strawberries",
    "cherry": "~cherries/pairs of cherries|cherry pair",
    "watermelon": "watermelon slice|piece of watermelon/pieces of watermelon|"
    "slice of water melon/slices of water melon|water melon",
    "pineapple": "ananas/ananas|pine apple|whole pineapple",
    "carrot": "carrot stick|fresh carrot",
    "broccoli": "~broccoli/heads of broccoli|head of broccoli/heads of broccoli|broccoli floret|"
    "broccoli head",
    "mushroom": "fly agaric|spotted mushroom|shroom",
    "ear of corn": "~corn/ears of corn|cob of corn/cobs of corn|~corn on the cob/corn cobs|"
    "~maize/maize cobs|corncob|maize cob|~sweetcorn/sweetcorn cobs",
    "eggplant": "egg plant|melanzane|brinjal",
    "pizza": "pizza slice|piece of pizza/pieces of pizza|pepperoni pizza|"
    "slice of pepperoni pizza/slices of pepperoni pizza",
    "hamburger": "cheeseburger|beefburger|cheese burger|beef burger",
    "doughnut": "glazed donut|glazed doughnut|donut with sprinkles/donuts with sprinkles|frosted donut",
    "cookie": "chocolate chip cookie|choc chip cookie|choc-chip biscuit",
    "cupcake": "muffin|fairy cake|frosted cupcake|cup cake",
    "birthday cake": "cake|b-day cake|bday cake|party cake",
    "ice cream": "~ice cream/ice creams|ice cream cone|soft serve|ice-cream|icecream|ice-cream cone|"
    "gelato/gelati|soft-serve ice cream",
    "lollipop": "lolly/lollies|lollypop|sucker",
    "cheese": "~cheese/pieces of cheese|cheese wedge|wedge of cheese/wedges of cheese|"
    "chunk of cheese/chunks of cheese|swiss cheese|slice of cheese/slices of cheese|"
    "block of cheese/blocks of cheese",
    "croissant": "butter croissant|french croissant|crescent roll|cornetto/cornetti",
    "avocado": "avo|halved avocado|avocado half/avocado halves|avocado pear",
    "sunflower": "sun flower|sunflower bloom|sunflower blossom",
    "rose": "red rose|rose flower|rose bloom|rose blossom",
    "tulip": "tulip flower|tulip bloom|dutch tulip",
    "cactus": "cactus/cactuses|saguaro/saguaros|cactus plant|desert cactus/desert cacti",
    "palm tree": "palm|coconut tree|coconut palm|palmtree|tropical palm",
    "pine tree": "pine|fir tree|christmas tree|conifer|spruce|evergreen|fir|spruce tree|xmas tree",
    "maple leaf": "autumn leaf/autumn leaves|fall leaf/fall leaves|"
    "canadian maple leaf/canadian maple leaves|mapleleaf/mapleleaves",
    "clover": "lucky clover|four leaf clover|shamrock|four-leafed clover|cloverleaf/cloverleaves",
    "sun": "shining sun",
    "moon": "half moon|sickle moon|crescent|moon crescent|lunar crescent",
    "star": "gold star|twinkling star",
    "cloud": "fluffy cloud|cumulus cloud|puffy cloud",
    "rainbow": "rain bow|rainbow arc",
    "snowflake": "snow flake|flake of snow/flakes of snow|ice crystal|snow crystal",
    "fire": "~fire/fires|campfire|bonfire|blaze|burning fire|camp fire",
    "globe": "earth globe|world globe|terrestrial globe",
    "snowman": "snow man/snow men|frosty snowman/frosty snowmen",
    "car": "automobile|auto|motorcar|motor car|motor vehicle|passenger car|sedan",
    "taxi": "cab|taxicab|taxi cab|new york taxi|taxi car",
    "bus": "autobus/autobuses|city bus/city buses|school bus/school buses|omnibus/omnibuses|"
    "public bus/public buses",
    "fire engine": "firetruck|fire-engine|fire brigade truck|fire department truck|fire lorry/fire lorries|"
    "firefighting truck|fire-truck",
    "tractor": "farm tractor|farming tractor|farmer's tractor",
    "rocket": "spaceship|space ship|rocket ship|space rocket|spacecraft/spacecraft|rocketship|moon rocket",
    "airplane": "aeroplane|jet|passenger plane|airliner|jet plane|aircraft/aircraft|air plane|passenger jet",
    "helicopter": "chopper|copter|heli|whirlybird",
    "sailboat": "sailing boat|yacht|sail boat|sailing yacht|boat with a sail/boats with sails|sailing ship",
    "balloon": "party balloon|toy balloon|birthday balloon|air-filled balloon|baloon",
    "house": "family house|home|detached house|cottage|suburban house|residential house",
    "tent": "camping tent|canvas tent|camp tent",
    "castle": "medieval castle|fortress/fortresses|knight's castle|fairytale castle|fairy tale castle",
    "ball": "soccerball|football ball|soccer-ball|futbol",
    "basketball": "basket ball|basketball ball|bball",
    "tennis racket": "tennis racquet|racquet",
    "guitar": "acoustic guitar|electric guitar|rock guitar|six-string guitar",
    "drum": "snare drum|bass drum|drum with sticks/drums with sticks|snare",
    "trumpet": "brass trumpet|jazz trumpet",
    "red heart": "heart|love heart|heart symbol|valentine heart|valentine's heart|heart shape|love symbol",
    "gift": "gift box/gift boxes|wrapped gift|wrapped present|birthday present|christmas present|"
    "birthday gift|christmas gift|gift parcel|giftbox/giftboxes",
    "crown": "king's crown|royal crown|gold crown|queen's crown|golden crown",
    "key": "gold key|golden key|metal key",
    "umbrella": "brolly/brollies|rain umbrella|parasol|open umbrella",
    "light bulb": "lightbulb|bulb|electric bulb|light-bulb|glowing light bulb|incandescent bulb",
    "candle": "lit candle|burning candle|wax candle",
    "book": "closed book|novel|hardcover book|textbook|hardback book",
    "bell": "ringing bell|gold bell|golden bell|brass bell",
    "clock": "alarm|bedside clock|alarm-clock|wake-up clock",
    "camera": "photo camera|digital camera|photographic camera|compact camera",
    "television": "television set|telly/tellies|tv set|tv screen|telivision|tube tv",
    "teddy bear": "teddy/teddies|stuffed bear|plush bear|toy bear|teddybear|cuddly bear|"
    "plush teddy/plush teddies",
    "robot": "bot|droid|robot head|robot face|android robot|toy robot",
    "top hat": "magician's hat|tophat|cylinder hat|magic hat|stovepipe hat|gentleman's hat",
    "backpack": "rucksack|school bag|schoolbag|knapsack|satchel|bookbag|back pack",
    "pumpkin": "halloween pumpkin|carved pumpkin|jack o lantern|jack-o-lantern|jack o' lantern|"
    "pumpkin lantern",
    "diamond": "gemstone|jewel|gem stone|brilliant diamond|cut diamond|precious gem|precious stone",
    "trophy": "gold cup|winner's cup|champion's cup|winners cup|prize cup|gold trophy/gold trophies|"
    "trophy cup",
    "horse": "pony/ponies|stallion|mare|foal|horsey|horse head|horsie|steed",
    "sheep": "lamb|woolly sheep/woolly sheep|farm sheep/farm sheep|baa-lamb|ram",
    "goat": "billy goat|nanny goat|billygoat|farm goat",
    "rooster": "cock-a-doodle-doo rooster|farm rooster|crowing rooster|male chicken",
    "eagle": "bald eagle|sea eagle|american eagle|bird of prey/birds of prey|flying eagle",
    "parrot": "macaw|talking parrot|polly parrot|pirate's parrot|parakeet",
    "flamingo": "flamingo/flamingoes|flamingo bird|pink flamingo/pink flamingos",
    "swan": "white swan|graceful swan|mute swan|swan bird",
    "peacock": "peafowl/peafowl|peacock bird",
    "dolphin": "bottlenose dolphin|leaping dolphin|jumping dolphin",
    "shark": "great white shark|toothy shark|reef shark",
    "lobster": "red lobster|maine lobster",
    "spider": "tarantula|creepy spider|spidey",
    "bat": "vampire bat|flying bat|fruit bat|halloween bat",
    "wolf": "gray wolf/gray wolves|grey wolf/grey wolves|wild wolf/wild wolves|timber wolf/timber wolves|"
    "wolf head",
    "giraffe": "long-necked giraffe|giraffe head",
    "zebra": "striped zebra|zebra with stripes/zebras with stripes|stripy zebra",
    "rhinoceros": "rhino/rhinos|rhinoceros/rhinoceros|horned rhino",
    "camel": "dromedary/dromedaries|desert camel",
    "squirrel": "tree squirrel|ground squirrel",
    "dinosaur": "brontosaurus/brontosauruses|sauropod|brachiosaurus/brachiosauruses|long-necked dinosaur|"
    "diplodocus/diplodocuses|bronto/brontos",
    "dragon": "dragon head|fire-breathing dragon|chinese dragon|dragon face|mythical dragon",
    "crocodile": "croc|gator|crocodilian|nile crocodile",
    "snake": "serpent|cobra|python|viper|slithering snake",
    "gorilla": "silverback|silverback gorilla",
    "deer": "stag|reindeer/reindeer|buck|elk/elk|fawn|deer/deers",
    "jellyfish": "sea jelly/sea jellies|jellyfish/jellyfishes",
    "grapes": "~grapes/bunches of grapes|bunch of purple grapes/bunches of purple grapes|"
    "cluster of grapes/clusters of grapes|grape bunch/grape bunches|~wine grapes/bunches of wine grapes",
    "melon": "cantaloupe|honeydew|honeydew melon|muskmelon|galia melon|cantaloupe melon",
    "mango": "mango/mangos|ripe mango/ripe mangoes|mango fruit",
    "kiwi": "kiwifruit|halved kiwi|kiwi half/kiwi halves|kiwi slice|slice of kiwi/slices of kiwi",
    "tomato": "ripe tomato/ripe tomatoes|red tomato/red tomatoes|vine tomato/vine tomatoes",
    "coconut": "cracked coconut|halved coconut|coco nut|coconut half/coconut halves",
    "potato": "spud|tater|raw potato/raw potatoes",
    "cucumber": "cuke|pickle|gherkin|sliced cucumber",
    "onion": "onion bulb|raw onion|cooking onion",
    "bread": "~bread/loaves of bread|bread loaf/bread loaves|loaf/loaves|"
    "white bread loaf/white bread loaves|loaf of white bread/loaves of white bread",
    "pretzel": "salty pretzel|salted pretzel|bavarian pretzel|soft pretzel|brezel",
    "pancakes": "~pancakes/stacks of pancakes|pile of pancakes/piles of pancakes|pancake stack|"
    "plate of pancakes/plates of pancakes|stack of flapjacks/stacks of flapjacks|pancake/pancakes",
    "french fries": "~french fries/portions of french fries|~fries/portions of fries|"
    "portion of french fries/portions of french fries|portion of fries/portions of fries|"
    "pack of fries/packs of fries|box of fries/boxes of fries|serving of fries/servings of fries|"
    "~chips/portions of chips",
    "hot dog": "sausage in a bun/sausages in buns|hot-dog|frankfurter",
    "taco": "mexican taco|beef taco|hard-shell taco|crunchy taco",
    "egg": "sunny-side-up egg|sunny side up egg|egg in a frying pan/eggs in frying pans|"
    "egg in a pan/eggs in pans|frying egg|egg sunny side up/eggs sunny side up",
    "popcorn": "~popcorn/buckets of popcorn|bag of popcorn/bags of popcorn|tub of popcorn/tubs of popcorn|"
    "popcorn box/popcorn boxes|~pop corn/boxes of popcorn|~movie popcorn/boxes of movie popcorn",
    "sandwich": "sarnie|club sandwich/club sandwiches|ham sandwich/ham sandwiches|"
    "sub sandwich/sub sandwiches",
    "coffee": "~coffee/coffees|coffee cup|mug of coffee/mugs of coffee|hot coffee|"
    "cup of hot coffee/cups of hot coffee|espresso/espressos|cup of tea/cups of tea|cappuccino/cappuccinos",
    "candy": "~candy/candies|piece of candy/pieces of candy|bonbon|wrapped candy/wrapped candies|"
    "boiled sweet|toffee|hard candy/hard candies",
    "tree": "leafy tree|deciduous tree|broadleaf tree|oak tree|oak|green tree|leaf tree",
    "mountain": "snowy mountain|snow-capped mountain|mountain peak|snowcapped mountain|"
    "mount everest/mount everests|mountain top|alpine peak",
    "volcano": "erupting volcano/erupting volcanoes|volcano/volcanos|lava-spewing mountain|"
    "active volcano/active volcanoes",
    "lightning bolt": "bolt of lightning/bolts of lightning|flash of lightning/flashes of lightning|"
    "~lightning/lightning bolts|thunderbolt|lightning flash/lightning flashes|high voltage symbol|"
    "lightening bolt",
    "planet": "ringed planet|~saturn/saturns|~planet saturn/planets like saturn|"
    "planet with rings/planets with rings|planet with a ring/planets with rings",
    "shell": "sea shell|spiral shell|conch/conches|conch shell|beach shell",
    "bicycle": "push bike|pushbike|cycle|pedal bike|push-bike",
    "motorcycle": "motor bike|motor cycle|motor-bike|racing motorcycle|racing motorbike",
    "train": "locomotive|steam train|steam engine|steam locomotive|choo choo train|choo-choo|railway engine|"
    "choo choo",
    "truck": "delivery truck|van|delivery van|box truck|moving truck|goods lorry/goods lorries",
    "ambulance": "emergency ambulance|paramedic van|ambulance car|hospital ambulance",
    "ship": "cruise ship|ocean liner|passenger ship|steamship|cruise liner|steamer|ferry/ferries|ocean ship",
    "anchor": "ship's anchor|boat anchor|nautical anchor|iron anchor",
    "parachute": "para chute|skydiving parachute|paraglider chute",
    "flying saucer": "alien spaceship|unidentified flying object|extraterrestrial spaceship|"
    "alien craft/alien craft|ufo/ufos|alien ship",
    "lighthouse": "light house|beacon tower|harbour lighthouse|coastal lighthouse",
    "church": "chapel|christian church/christian churches|church building|village church/village churches",
    "bed": "bunk|comfy bed|bed with a pillow/beds with pillows|wooden bed",
    "chair": "seat|wooden chair|dining chair|kitchen chair",
    "door": "front door|wooden door|closed door|entrance door|doorway",
    "hammer": "claw hammer|carpenter's hammer|carpenters hammer",
    "scissors": "~scissors/pairs of scissors|~shears/pairs of shears|set of scissors/sets of scissors|"
    "scissor",
    "pencil": "yellow pencil|lead pencil|graphite pencil|drawing pencil|"
    "pencil with an eraser/pencils with erasers|school pencil",
    "lock": "closed lock|locked padlock|pad lock|security lock|locked lock",
    "bucket": "pail|water bucket|metal bucket|bucket with a handle/buckets with handles",
    "phone": "cell phone|smartphone|mobile|cellphone|smart phone|iphone|mobile telephone|cellular phone|"
    "android phone",
    "laptop": "notebook computer|laptop computer|macbook|portable computer|computer|lap top",
    "microphone": "mic|singer's microphone|karaoke microphone|karaoke mic|hand-held microphone",
    "violin": "fiddle|violin with a bow/violins with bows|concert violin",
    "saxophone": "sax/saxes|alto saxophone|tenor saxophone|alto sax/alto saxes|jazz saxophone",
    "die": "game die/game dice|~dice/dice|gaming die/gaming dice|rolling die/rolling dice|"
    "playing die/playing dice",
    "kite": "flying kite|toy kite|paper kite|kite with a tail/kites with tails",
    "ring": "diamond ring|engagement ring|wedding ring|finger ring",
    "glasses": "~glasses/pairs of glasses|~eyeglasses/pairs of eyeglasses|~spectacles/pairs of spectacles|"
    "~specs/pairs of specs|~reading glasses/pairs of reading glasses|pair of spectacles/pairs of spectacles|"
    "pair of eyeglasses/pairs of eyeglasses|~eye glasses/pairs of eye glasses",
    "shirt": "t shirt|tee shirt|tee|tshirt|t-shirt|polo shirt",
    "dress": "gown|summer dress/summer dresses|lady's dress/ladies' dresses|frock|"
    "women's dress/women's dresses",
    "shoe": "running shoe|trainer|sports shoe|gym shoe|tennis shoe|jogging shoe|athletic shoe",
    "suitcase": "travel case|~luggage/suitcases|travel bag|piece of luggage/pieces of luggage|"
    "rolling suitcase|suit case|trolley case|travel suitcase",
    "ghost": "spook|phantom|friendly ghost|spooky ghost|halloween ghost|spectre",
    "alien": "extraterrestrial|space alien|martian|alien head|alien from outer space/aliens from outer space",
    "skull": "human skull|skull bone|death's head|skeleton head|halloween skull",
    "teapot": "tea pot|pot of tea/pots of tea|porcelain teapot|ceramic teapot|tea kettle",
    "envelope": "mail envelope|letter envelope|sealed envelope|paper envelope|closed envelope|"
    "postal envelope",
}  # fmt: skip
"""Beside the names and synonyms of `OBJECT_CLASSES`."""


@cache
def nouns_of(class_name: str) -> tuple[EnglishNoun, ...]:
    """Return the names of a class; the first is the most usual."""
    thing = OBJECT_CLASSES[class_name]
    pairs = [EnglishNoun(thing.name, thing.plural), *(EnglishNoun(*pair) for pair in thing.synonyms)]
    names = [*map(_read_noun, _EVERYDAY_NAMES[class_name].split("|")), *pairs]
    # "A red car" is a car re-coloured in red; only a class that has a colour in its name keeps it.
    names = [noun for noun in names if noun.singular == class_name or not _has_colour(noun.singular)]
    without_article = {noun.singular for noun in names if not noun.takes_article}
    names = [
        EnglishNoun(
            *noun[:2],
            takes_article=noun.singular not in without_article,
            has_bare_plural=noun.plural != noun.singular and noun.plural not in without_article,
        )
        for noun in names
    ]
    usual = _USUAL_NAMES.get(class_name, (thing.name, thing.plural))
    return tuple(sorted(dict.fromkeys(names), key=lambda noun: (noun.singular, noun.plural) != usual))


@cache
def colourless_nouns_of(class_name: str) -> tuple[EnglishNoun, ...]:
    """Return the names of a class that go with any colour: "apple", not "red apple"."""
    if class_name == "green apple":
        return (EnglishNoun("apple", "apples"),)
    return tuple(
        noun
        for noun in nouns_of(class_name)
        if not _has_colour(noun.singular) and not {"gold", "golden", "brass"} & set(noun.singular.split())
    )


def _has_colour(name: str) -> bool:
    # The last word may be a fruit: "mandarin orange".
    return bool(_COLOUR_WORDS & set(name.split()[:-1]))


_COLOUR_WORDS = {"gray", *(word for colour in COLOURS for word in colour.split() if word != "light")}
_USUAL_NAMES = {
    "red apple": ("apple", "apples"), "red heart": ("heart", "hearts"), "ear of corn": ("corn",
    "ears of corn"),
}  # fmt: skip


def _read_noun(name: str) -> EnglishNoun:
    singular, _, plural = name.removeprefix("~").partition("/")
    return EnglishNoun(singular, plural or _plural(singular), not name.startswith("~"))


def _plural(singular: str) -> str:
    if singular.endswith(("s", "x", "z", "ch", "sh")):
        return f"{singular}es"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return f"{singular[:-1]}ies"
    return f"{singular}s"
