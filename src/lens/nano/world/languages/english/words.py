"""Words around the objects of English captions: numbers, sizes, colours, openers, and what means nothing.

Knows nothing of scenes. Nothing here names an object or a colour of the world. A phrase that occurs twice is
twice as frequent.
"""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

COUNT_FRAMES = (
    *["{w}"] * 24, *["{d}"] * 10, "exactly {w}", "exactly {d}", "{w} ({d})", "a group of {w}", "a set of {w}",
    "a total of {w}", "precisely {w}", "a bunch of {w}", "{w} different", "{w} separate", "just {w}",
    "only {w}", "{d} different", "a collection of {w}", "{w} identical",
)  # fmt: skip
"""Before a plural, {w} a number as a word and {d} as a digit."""
COUNT_PHRASES = {
    2: ("a couple of", "a pair of", "a couple of", "a duo of", "two"),
    3: ("a trio of", "three", "a group of three"),
    4: ("a quartet of", "four", "a foursome of"),
    5: ("five", "a handful of five"),
    6: ("half a dozen", "a half dozen", "half-a-dozen", "half a dozen"),
    7: ("seven",),
    8: ("eight", "eight whole"),
}
"""Other words for a number."""
COUNT_TAGS = (
    "{d} {many}", "{d} {many}", "{w} {many}", "{w} {many}", "{d}x {one}", "{one} x{d}", "{many} x{d}",
    "{one} x {d}", "{d} x {many}", "{d} x {one}", "{many} ({d})", "{many}: {d}", "{d}x {many}",
    "{d}\u00d7 {one}",
    "{many} (count: {d})", "{many} x {w}", "{many} - {d}", "({d}) {many}",
)  # fmt: skip
"""A number of objects as a tag."""
COUNT_LAST = (
    "{many}! {w} of them", "{many}, {w} of them", "{many}: {w} of them", "{many}, {d} of them",
    "{many}! {d}!",
    "{many} - {w} of them", "{many}. {w} of them", "{many}, {w} in total", "{many}, exactly {w}",
    "{many}, {w} in all", "{many}, there should be {w}", "{many}, and i want {w} of them",
    "{many}, {w} pieces",
    "{many}, count of {d}", "{many}, number: {d}", "{many} ({w} of them)", "{many}, {w} please",
    "{many}. how many? {w}", "{many}! {d} of them", "{many}, quantity {d}", "{many} times {w}",
)  # fmt: skip
"""A number after its objects."""
SINGLE = (
    "one", "one", "a single", "1", "just one", "only one", "exactly one", "just a single", "one single",
    "a lone", "the", "the", "this", "my", "our", "your", "another", "a solitary", "one (1)", "that",
)  # fmt: skip
SEVERAL = (
    "some", "some", "some", "several", "several", "many", "many", "a few", "lots of", "multiple",
    "a group of",
    "a number of", "a lot of", "plenty of", "a bunch of", "a handful of", "a crowd of", "various", "loads of",
    "a load of", "more than one of the", "quite a few", "a collection of", "a set of", "an assortment of",
    "tons of", "numerous", "any number of", "a pile of", "a couple or more of",
)  # fmt: skip

SIZE_ADJECTIVES = {
    "small": (
        "small", "small", "small", "little", "little", "tiny", "tiny", "mini", "teeny", "miniature", "wee",
        "teeny tiny", "very small", "really small", "itty-bitty", "little tiny", "minuscule", "quite small",
        "teensy", "pint-sized", "small-sized", "super small", "really tiny", "small little", "micro",
        "tiny little", "extra small", "teeny-tiny", "itty bitty", "petite", "undersized",
    ),
    "large": (
        "large", "large", "large", "big", "big", "big", "huge", "huge", "giant", "giant", "enormous",
        "gigantic", "massive", "very large", "very big", "really big", "oversized", "great big", "jumbo",
        "super big", "humongous", "extra large", "quite large", "immense", "really huge", "large-sized",
        "colossal", "big fat", "vast", "supersized", "big big", "mega", "ginormous", "king-size",
    ),
}  # fmt: skip
SIZE_PREDICATES = {
    "small": ("small", "tiny", "very small", "little", "really tiny", "small in size", "quite small"),
    "large": ("large", "big", "huge", "very big", "very large", "giant", "enormous", "large in size"),
}

EVERYDAY_OBJECT_COLOURS = {
    "red": ("bright red", "crimson", "scarlet", "deep red", "ruby red", "vivid red"),
    "orange": ("bright orange", "vivid orange", "deep orange"),
    "yellow": ("bright yellow", "sunny yellow", "golden yellow", "canary yellow"),
    "green": ("bright green", "emerald", "grass green", "emerald green", "vivid green"),
    "blue": ("bright blue", "royal blue", "cobalt blue", "vivid blue"),
    "purple": ("violet", "lilac", "bright purple", "lavender"),
    "pink": ("bright pink", "hot pink", "rosy", "rosy pink", "bubblegum pink"),
    "brown": ("chocolate brown", "chestnut brown", "nut brown"),
}
"""What people call the colours of re-coloured objects."""
COLOUR_FRAMES = (*["{c}"] * 20, "{c}-coloured", "{c} coloured", "{c}-colored", "{c} colored")
"""Before a noun."""
COLOUR_AFTER = (
    "in {c}", "that {is} {c}", "which {is} {c}", "of {c} colour", "painted {c}", "coloured {c}",
    "colored {c}",
    "({c})", "in {c} colour", "whose colour is {c}", "with a {c} colour", "all in {c}",
)  # fmt: skip
"""After a noun."""

NEUTRAL_ADJECTIVES = (
    "cute", "lovely", "happy", "sleepy", "fluffy", "shiny", "nice", "cartoon", "simple", "pretty", "friendly",
    "beautiful", "emoji", "adorable", "funny", "cool", "smiling", "cheerful", "fancy", "perfect", "fresh",
    "tasty", "delicious", "yummy", "magical", "wonderful", "elegant", "modern", "vintage", "hand-drawn",
    "stylized", "stylised", "flat", "cozy", "cosy", "kawaii", "charming", "gorgeous", "amazing", "awesome",
    "joyful", "playful", "silly", "realistic", "detailed", "colourful", "colorful", "clean", "minimalist",
    "cartoonish", "clever", "brave", "gentle", "soft", "classic", "typical", "ordinary", "normal", "regular",
    "plain", "neat", "super cute", "very cute", "so cute", "really cute", "whimsical", "quirky", "majestic",
    "proud", "grumpy", "sad", "angry", "tired", "hungry", "curious", "dreamy", "glossy", "well-drawn",
    "young",
    "old", "wild", "sparkling", "festive", "retro", "stylish", "fantastic", "pixel", "animated", "3d", "real",
    "brand new", "shiny new", "picture-perfect", "lonely", "excited", "lively", "random", "good-looking",
)  # fmt: skip
"""Words that people add and that change nothing."""

GREETINGS = (
    "hi, ", "hello! ", "hey, ", "hi there! ", "hello, ", "good morning, ", "ok, ", "okay, ", "so, ", "hey! ",
    "hi! ", "dear lens, ", "well, ", "hello there, ", "good evening! ", "yo, ", "alright, ", "hm, ", "hmm, ",
    "please: ", "hey there, ", "now, ", "oh, ", "quick one: ", "next: ", "prompt: ", "request: ", "task: ",
    "my idea: ", "new picture: ", "again: ", "ok now ", "good day, ", "hiya, ", "lens, ", "excuse me, ",
)  # fmt: skip
REQUESTS = (
    "draw ", "draw ", "draw me ", "draw me ", "paint ", "paint me ", "make ", "make me ", "please make ",
    "please draw ", "please draw me ", "create ", "please create ", "generate ", "please generate ",
    "design ",
    "render ", "show ", "show me ", "give me ", "i want ", "i want ", "i would like ", "i'd like ",
    "i'd love ",
    "i need ", "i need ", "i'd love to see ", "i would love to see ", "i want to see ", "let me see ",
    "imagine ", "this is ", "here is ", "here's ", "we need ", "we want ", "picture ", "sketch ",
    "sketch me ",
    "produce ", "get me ", "illustrate ", "just ", "just draw ", "simply ", "try ", "try to draw ",
    "how about ",
    "let's have ", "let's see ", "let's draw ", "please give me ", "please show me ", "i wish for ",
    "make it ",
    "my kid wants ", "my daughter wants ", "my son would like ", "i'm looking for ", "looking for ", "need ",
    "want ", "i am dreaming of ", "visualize ", "visualise ", "depict ", "do ", "do me ", "think of ", "add ",
    "put ", "compose ", "craft ", "bring me ", "i only want ", "it should show ", "it shows ", "i see ",
    "we see ", "you can see ", "surprise me with ", "may i have ", "nothing but ", "only ", "all i want is ",
    "what i want is ", "what i need: ", "wanted: ", "to draw: ", "subject: ", "the subject is ", "content: ",
    "description: ", "caption: ", "title: ", "my wish: ", "i asked for ", "could do with ", "gimme ",
    "pls draw ", "plz draw ", "pls make ", "i wanna see ", "wanna see ", "i've always wanted ",
)  # fmt: skip
"""Before a noun phrase."""
QUESTION_STARTS = (
    "could you ", "can you ", "would you ", "could you please ", "can you please ", "would you please ",
    "will you ", "please could you ", "can u ", "could you kindly ", "would you mind to ", "are you able to ",
    "is it possible to ", "do you think you could ", "could you possibly ", "might you ", "can somebody ",
)  # fmt: skip
QUESTION_VERBS = (
    "draw ", "draw me ", "draw ", "make ", "make me ", "paint ", "paint me ", "create ", "generate ",
    "show me ",
    "design ", "give me ", "sketch ", "render ", "show ", "produce ", "draw for me ", "illustrate ",
)  # fmt: skip
QUESTIONS = (
    "can i get ", "can i have ", "could i get ", "could i have ", "may i get ", "can we have ", "how about ",
    "what about ", "do you have ", "can i see ", "could we see ", "might i have ",
    "would it be possible to get ",
    "how would you draw ", "what does it look like: ", "do you know how to draw ", "have you got ",
    "could we get ", "any chance of ", "is there a way to get ", "mind drawing ",
)  # fmt: skip
"""Before a noun phrase; a question mark may end them."""
STYLES = (
    "", "", "", "", "", "", "simple ", "colourful ", "colorful ", "flat ", "cute ", "funny ", "minimal ",
    "clean ",
    "modern ", "hand-drawn ", "vector ", "detailed ", "realistic ", "high quality ", "children's ", "plain ",
    "neat ", "nice ", "beautiful ", "cartoon ", "digital ", "minimalist ", "quick ", "pretty ", "square ",
    "lovely ", "cool ", "professional ", "high-resolution ", "cheerful ", "basic ", "emoji-style ", "2d ",
)  # fmt: skip
MEDIA = (
    "picture", "picture", "picture", "image", "image", "image", "drawing", "drawing", "illustration", "photo",
    "painting", "cartoon", "icon", "scene", "view", "card", "postcard", "design", "print", "rendering", "pic",
    "pic", "emoji", "wallpaper", "logo", "watercolour", "watercolor", "sketch", "artwork", "graphic",
    "sticker",
    "doodle", "poster", "photograph", "clip art picture", "clipart", "render", "portrait", "snapshot",
    "vector",
    "avatar", "banner image", "mural", "greeting card", "thumbnail", "comic", "composition", "visual",
    "artwork",
)  # fmt: skip
CONNECTIVES = (
    " of ", " of ", " of ", " of ", " showing ", " with ", " with ", " that shows ", " containing ",
    " featuring ",
    " depicting ", " which has ", " that has ", " including ", " which shows ", " displaying ",
    " with nothing but ",
    " consisting of ", " that contains ", " where you see ", " of exactly this: ", ": ",
)  # fmt: skip
CLAUSE_OPENERS = (
    "in this picture, ", "a picture where ", "in the image, ", "an image in which ", "a picture in which ",
    "make a picture where ", "draw a scene where ", "i want a picture where ", "a scene where ", "in it, ",
    "here, ", "in my picture, ", "make it so that ", "please make sure that ", "i imagine that ",
    "imagine that ",
    "it should be like this: ", "like this: ", "the scene: ", "scene: ", "layout: ", "composition: ",
    "draw it like this: ", "a drawing where ", "an illustration in which ", "we see that ", "a photo where ",
    "i need an image where ", "can you draw a picture where ", "could you make it so that ",
    "in the drawing ",
    "in the picture, ", "on the picture ", "as you can see, ", "i'd like a picture where ", "let's say ",
)  # fmt: skip
"""Before a clause with a verb."""
PURPOSES = (
    "for my daughter's birthday", "for my son", "for my blog post about travel", "for a school project",
    "for my website", "for work", "for fun", "for my mum", "for my wife", "for my nephew", "for the kids",
    "for our newsletter", "for a presentation", "for my team", "for a friend", "for an invitation",
    "for the kindergarten", "for a quiz", "for my class", "for a greeting", "for a game", "for my app",
    "for a story i am writing", "for a talk", "for a flyer", "for my grandma", "for the weekend",
    "for my slides", "for a lesson", "for a worksheet", "for my channel", "for our homepage", "for practice",
    "for me", "for us", "for an article on education", "for a memory game", "for {name}", "for {name}",
    "for {name} and {name}", "for my friend {name}", "as a test", "as a wallpaper", "as a surprise",
    "like in a comic", "if you can", "if possible", "when you have time", "as fast as you can", "today",
    "for a wedding", "for christmas", "for easter", "for the holidays", "to cheer me up", "to print out",
    "that i can print", "to colour in", "to hang in my office", "to show my boss", "right now please",
)  # fmt: skip
PEOPLE = (
    "emma", "tom", "anna", "liam", "noah", "olivia", "maria", "lucas", "sophie", "ben", "mia", "jonas",
    "carla",
    "peter", "susan", "david", "nina", "paul", "julia", "omar", "priya", "kenji", "fatima", "ivan", "chloe",
)  # fmt: skip
THANKS = (
    ", please", " please", ", thanks", " thanks", ", thank you", ". thanks!", ". thank you!", " pls", " thx",
    " :)",
    ", ok", " - thanks in advance", "! thanks", ". that's all", ". that is all", ", nothing else",
    ", and nothing else", ". nothing more", ". keep it simple", ". make it cute", ". make it look nice",
    ". make it pretty", ". surprise me", ". no people", ", that's it", ". be creative", ", quickly", " asap",
    ", nice and simple", ", no extras", ". nothing fancy", ". i'd be very happy", ". that would be great",
)  # fmt: skip
BOILERPLATE = (
    "4k", "8k", "highly detailed", "masterpiece", "trending on artstation", "studio lighting", "vector art",
    "minimalist", "sticker style", "trending", "--ar 1:1", "best quality", "cute", "beautiful", "cozy",
    "no text",
    "high quality", "ultra hd", "hd", "uhd", "flat design", "flat style", "digital art", "emoji style",
    "cartoon style", "clip art", "clipart", "clean lines", "sharp focus", "high resolution", "hi-res",
    "professional", "award-winning", "octane render", "unreal engine", "photorealistic", "realistic",
    "soft lighting", "cinematic", "dslr", "bokeh", "hdr", "ultra detailed", "intricate", "simple shapes",
    "no watermark", "no shadows", "nice composition", "kawaii", "children's illustration", "pixel perfect",
    "artstation", "deviantart", "3d render", "isometric", "low poly", "line art", "icon", "icon design",
    "trending on behance", "vibrant", "vivid", "detailed", "crisp", "sharp", "stunning", "gorgeous",
    "aesthetic",
    "minimal", "modern", "stylized", "hand drawn", "watercolor style", "--v 6", "--style raw", "--q 2",
    "raw photo",
    "noto emoji", "emoji art", "emoji", "svg", "png", "wallpaper", "pastel style", "cute style",
    "storybook style",
    "for kids", "by a famous illustrator", "very detailed", "no people", "nothing else", "simple",
    "cheerful mood",
    "happy mood", "playful", "whimsical", "dramatic lighting", "volumetric lighting", "global illumination",
    "ray tracing", "film grain", "35mm", "f/1.8", "macro shot", "close-up", "wide shot", "product shot",
    "studio",
    "ultra realistic", "hyperdetailed", "absurdres", "perfect composition", "good composition",
    "square format",
    "logo style", "graphic design", "tumblr", "pinterest", "cel shading", "anime style", "pixar style",
    "ghibli",
)  # fmt: skip
"""What prompts of other models end with; none of it means anything here."""

WRAPPERS = (
    "what does {x} look like?", "what would {x} look like?", "do you know what {x} looks like?",
    "show me what {x} "
    "looks like", "i've never seen {x}. show me", "my sister loves {x}, please draw", "my son loves {x}",
    "{x} is what i "
    "want", "{x} would be great", "{x} would be nice", "{x}, can you do that?", "i really like {x}",
    "i love {x}",
    "have you ever seen {x}?", "{x} - is that possible?", "i can't draw {x}, can you?", "{x} is all i need",
    "my favourite "
    "is {x}, draw that", "draw {x} for me", "paint {x} for my room", "make {x} for me, please",
    "let there be {x}", "all i "
    "see is {x}", "i dreamt of {x}", "today i saw {x}", "once upon a time there was {x}",
    "yesterday i met {x}. draw that",
    "think about {x} and draw what you see", "my kid asked for {x}", "a picture, please: {x}",
    "what about {x}, would that "
    "work?", "i bet you can't draw {x}", "you get {x}", "close your eyes and imagine {x}",
    "go ahead and draw {x}", "{x}, no "
    "other stuff", "{x}, no more and no less", "{x} and no more than that", "{x}, nothing besides",
    "{x}, that's all",
    "{x} only", "only {x}, no other objects", "just {x}, nothing else please", "{x} (nothing else)",
    "{x} alone", "{x}, drawn "
    "for {person}", "{person} wants {x}", "{person} asked me for {x}", "hello, {person} here. i'd like {x}",
    "{x} (for {person})",
    "let me have {x}", "i was wondering if i could get {x}", "it would be lovely to have {x}",
    "we're after {x}", "no idea why, "
    "but i need {x}", "a simple thing: {x}", "can you do {x}?", "is it hard to draw {x}?", "would {x} be ok?",
    "the image "
    "contains {x}", "the picture contains {x}", "the scene has {x}", "in my dream there was {x}",
    "here you can see {x}",
    "this drawing has {x}", "what you see: {x}", "it's {x}", "that's {x}", "look, {x}!", "behold: {x}",
    "wow, {x}",
    "i'm thinking of {x}", "the whole picture is just {x}", "everything in the picture: {x}",
    "put {x} in the picture",
    "please put {x} in it", "the drawing should contain {x}", "there has to be {x}", "it must show {x}",
    "it needs {x}",
)  # fmt: skip
"""Around a noun phrase {x}; {person} is somebody's name."""
TERSE_SINGLE = ("", "", "", "", "a", "a", "a", "a", "one", "1", "the")
TERSE_CONJUNCTIONS = (" and ", " and ", " and ", ", ", ", ", " & ", " + ", " with ", " plus ", "; ", " / ")
THERE = (
    "there {be} ", "there {be} ", "there {be} ", "in the picture there {be} ", "here {be} ",
    "in it there {be} ", "there "
    "should be ", "there must be ", "in this image there {be} ", "on it there {be} ",
    "what i see {be} ", "in here there {be} ",
)  # fmt: skip
"""Before a noun phrase, {be} agreeing with it."""
