"""Sentence frames of English captions: relations, places, backgrounds and signs.

Knows nothing of scenes. Slots of relations: {a} and {b} the groups, {P} a's relation to b, a preposition,
{A} the place of a as seen from b, {Sa} and {Sb} their sides of the image, {is_a} and {is_b} verbs that agree,
{stand_a} and {placed} verbs of position, {the_a} and {the_b} second mentions. A frame that occurs twice is
twice as frequent.
"""

PREPOSITIONS = {
    "left of": (
        "to the left of", "to the left of", "to the left of", "on the left of", "left of", "left of",
        "on the left side of", "at the left of", "on the left-hand side of", "just left of", "left from",
        "directly to the left of", "further left than", "on the left hand side of", "at the left side of",
        "immediately left of", "somewhere to the left of", "to the left side of", "west of",
        "just to the left of",
    ),
    "right of": (
        "to the right of", "to the right of", "to the right of", "on the right of", "right of", "right of",
        "on the right side of", "at the right of", "on the right-hand side of", "just right of", "right from",
        "directly to the right of", "further right than", "on the right hand side of", "at the right side of",
        "immediately right of", "somewhere to the right of", "to the right side of", "east of",
        "just to the right of",
    ),
    "above": (
        "above", "above", "above", "over", "over", "on top of", "on top of", "higher than", "directly above",
        "atop", "higher up than", "up above", "just above", "straight above", "somewhere above",
        "further up than",
        "vertically above", "hovering above", "floating above", "north of",
    ),
    "below": (
        "below", "below", "below", "under", "under", "beneath", "underneath", "lower than", "directly below",
        "directly under", "down below", "just below", "just under", "lower down than", "straight below",
        "somewhere below", "further down than", "at the foot of", "at a lower spot than", "south of",
    ),
}  # fmt: skip
ASIDES = {
    "left of": (
        "to {its} left", "on {its} left", "left of {it}", "to the left of {it}", "on the left of {it}",
        "on {its} left side", "on the left side", "to the left", "on the left",
    ),
    "right of": (
        "to {its} right", "on {its} right", "right of {it}", "to the right of {it}", "on the right of {it}",
        "on {its} right side", "on the right side", "to the right", "on the right",
    ),
    "above": (
        "above {it}", "over {it}", "on top of {it}", "above", "on top", "directly above {it}", "above that",
        "higher up",
    ),
    "below": (
        "below {it}", "under {it}", "beneath {it}", "underneath", "below", "underneath {it}",
        "directly below {it}",
        "lower down",
    ),
}  # fmt: skip
SIDES = {
    "left of": (
        ("on the left", "on the right"), ("on the left", "on the right"),
        ("on the left side", "on the right side"),
        ("to the left", "to the right"), ("at the left", "at the right"), ("left", "right"),
        ("in the left half", "in the right half"), ("on the left-hand side", "on the right-hand side"),
    ),
    "above": (
        ("at the top", "at the bottom"), ("on top", "at the bottom"), ("above", "below"),
        ("at the top", "below"),
        ("in the upper half", "in the lower half"), ("up top", "down below"), ("top", "bottom"),
        ("in the upper part", "in the lower part"), ("on top", "underneath"),
    ),
}  # fmt: skip
"""Sides of the first and of the second; those of the opposite relations are reversed."""
STAND_VERBS = (
    ("is", "are"), ("is", "are"), ("is", "are"), ("is", "are"), ("stands", "stand"), ("sits", "sit"),
    ("is placed", "are placed"), ("is located", "are located"), ("can be seen", "can be seen"),
    ("appears", "appear"), ("should be", "should be"), ("is positioned", "are positioned"), ("lies", "lie"),
    ("has to be", "have to be"), ("is found", "are found"), ("must be", "must be"), ("is seen", "are seen"),
)  # fmt: skip
PLACED = (
    "placed", "standing", "sitting", "located", "positioned", "drawn", "shown", "situated", "floating", "set",
    "arranged", "resting", "appearing",
)  # fmt: skip

RELATION_PHRASES = (
    *["{a} {P} {b}"] * 12, "{a} that {is_a} {P} {b}", "{a} which {is_a} {P} {b}", "{a} {placed} {P} {b}",
    "{a} {placed} {P} {b}", "{a}, {P} {b}", "{b} with {a} {A}", "{b} with {a} {A}", "{b} and {A} {a}",
    "{b}, and {A} {a}", "{b}, {A} {a}", "{b}, {a} {A}", "{b} and {a} {A}", "{b}, with {a} {A}",
    "{b} plus {a} {A}",
    "{a} {Sa} and {b} {Sb}", "{a} {Sa} and {b} {Sb}", "{a} {Sa}, {b} {Sb}", "{a} ({Sa}) and {b} ({Sb})",
    "{a} and {b}, the first {P} the second", "{a} and {b}, with {the_a} {P} {the_b}",
    "{a} {Sa} with {b} {Sb}",
    "{a} and {b}, {the_a} {P} {the_b}", "{a} and {b} ({the_a} {P} {the_b})", "{a} {Sa} plus {b} {Sb}",
    "{a} and {b} where {the_a} {is_a} {P} {the_b}", "{a}, {Sa}, and {b}, {Sb}", "{b} that {has_b} {a} {A}",
    "{b} and {a}, {the_a} being {P} {the_b}",
)  # fmt: skip
RELATION_CLAUSES = (
    *["{a} {is_a} {P} {b}"] * 4, "{a} {stand_a} {P} {b}", "{a} {stand_a} {P} {b}", "{P} {b} {is_a} {a}",
    "{P} {b} there {is_a} {a}", "{P} {b} you see {a}", "there {is_a} {a} {P} {b}", "there {is_a} {a} {P} {b}",
    "{b} {has_b} {a} {A}", "{Sa} {is_a} {a} and {Sb} {is_b} {b}",
    "{Sa} there {is_a} {a}, {Sb} there {is_b} {b}",
    "{Sa} {a}, {Sb} {b}", "{Sa} {a}, {Sb} {b}", "{Sa} {a} and {Sb} {b}", "{Sa}: {a}, {Sb}: {b}",
    "{Sa}: {a}. {Sb}: {b}", "{Sa}: {a}; {Sb}: {b}", "{a} {is_a} {Sa} and {b} {is_b} {Sb}",
    "{Sa} {a}; {Sb} {b}",
    "{a} {stand_a} {Sa}, {b} {Sb}", "there {is_b} {b}, and {A} there {is_a} {a}",
    "{a} goes {Sa}, {b} goes {Sb}",
    "{a} {is_a} {Sa} while {b} {is_b} {Sb}", "there {is_b} {b} with {a} {A}",
    "{Sa} i see {a}, {Sb} i see {b}",
    "there {is_a} {a} {Sa} and there {is_b} {b} {Sb}", "there {is_b} {b}. {A} there {is_a} {a}",
    "{a} and {b} are there. {the_a} {is_a} {P} {the_b}", "{b} first, then {a} {A}", "{Sa} {a}. {Sb} {b}",
)  # fmt: skip
RELATION_ORDERS = (
    "put {a} {P} {b}", "put {a} {P} {b}", "place {a} {P} {b}", "put {a} {Sa} and {b} {Sb}", "set {a} {P} {b}",
    "draw {b} and put {a} {A}", "draw {b}, then {a} {A}", "take {b} and put {a} {A}", "position {a} {P} {b}",
    "add {a} {P} {b}", "i want {a} to be {P} {b}", "let {a} be {P} {b}", "make sure {a} {is_a} {P} {b}",
    "first draw {b}, then draw {a} {A}", "place {a} {Sa}, {b} {Sb}", "draw {a} {Sa} and {b} {Sb}",
    "draw {b}. {A}, draw {a}", "arrange {a} {P} {b}", "show {a} {P} {b}", "have {a} {P} {b}",
    "stick {a} {P} {b}",
    "leave {b} where {it_b} {is_b} and put {a} {A}", "draw {a} so that {it_a} {is_a} {P} {b}",
)  # fmt: skip
RELATION_TAGS = (
    "{a} {P} {b}", "{a} {P} {b}", "{b}, {a} {A}", "{a} {Sa}, {b} {Sb}", "{Sa}: {a}, {Sb}: {b}",
    "{a}, {P} {b}",
    "{Sa} {a}, {Sb} {b}", "{a} - {Sa}, {b} - {Sb}", "{a} ({Sa}), {b} ({Sb})", "{a} > {P} > {b}",
    "{b} + {a} {A}",
)  # fmt: skip

TERSE_RELATIONS = (
    "{a} {P} {b}", "{a} {P} {b}", "{a} {P} {b}", "{a} {P} {b}", "{a} {Sa}, {b} {Sb}", "{b}, {a} {A}",
    "{Sa} {a}, {Sb} {b}",
    "{a} {Sa} and {b} {Sb}", "{b} with {a} {A}", "{Sa}: {a}, {Sb}: {b}", "{b} and {a} {A}", "{b}, {A} {a}",
)  # fmt: skip

TWO_RELATIONS = (
    "{p} {Pp} {s} and {q} {Pq} {it_s}", "{p} {Pp} {s} and {q} {Pq} {the_s}", "{p} {Pp} {s}, {q} {Pq} {the_s}",
    "{p} {Pp} {s}, and {q} {Pq} {the_s}", "{s} with {p} {Ap} and {q} {Aq}", "{s} with {p} {Ap} and {q} {Aq}",
    "{s} {Op} {p} and {Oq} {q}", "{s}, {p} {Ap}, {q} {Aq}", "{s} with {p} {Ap}, and with {q} {Aq}",
    "{p} {Pp} {s}, which {is_s} {Oq} {q}", "{p} {Pp} {s} that {is_s} {Oq} {q}", "{s}, {Ap} {p} and {Aq} {q}",
    "{s}, {Op} {p} and {Oq} {q}", "{s} that {is_s} {Op} {p} and {Oq} {q}", "{s} and {p} {Ap} and {q} {Aq}",
    "{p} {Pp} {s} {Oq} {q}", "{p}, {s} and {q}, {the_p} {Pp} {the_s} and {the_q} {Pq} {the_s}",
    "{p} {placed} {Pp} {s}, plus {q} {Pq} {the_s}", "{s}, {Ap} {p}, {Aq} {q}",
)  # fmt: skip
"""Two relations as a noun phrase. s is the group of both, p and q the others: {Pp} and {Pq} are their
relations to s, {Op} and {Oq} those of s to them, {Ap} and {Aq} their places as seen from s."""
TWO_RELATION_CLAUSES = (
    "{p} {is_p} {Pp} {s}, {q} {is_q} {Pq} {it_s}", "{p} {is_p} {Pp} {s}. {q} {is_q} {Pq} {the_s}",
    "{p} {is_p} {Pp} {s} and {q} {is_q} {Pq} {the_s}",
    "there {is_p} {p} {Pp} {s}. {Pq} {the_s} there {is_q} {q}",
    "{s} {is_s} {Op} {p} and {Oq} {q}", "{s} {is_s} {Op} {p}. {q} {is_q} {Pq} {it_s}",
    "there {is_s} {s}. {Ap} {is_p} {p}, {Aq} {is_q} {q}",
    "{p}, {s}, {q}. {the_p} {is_p} {Pp} {the_s}. {the_q} "
    "{is_q} {Pq} {the_s}", "{p} {is_p} {Pp} {s}, and {the_s} {is_s} {Oq} {q}",
    "{s} {has_s} {p} {Ap} and {q} {Aq}",
    "{p} {stand_p} {Pp} {s}, while "
    "{q} {stand_q} {Pq} {the_s}", "there {is_s} {s} with {p} {Ap} and {q} {Aq}", 
    "{Pp} {s} {is_p} {p}, and {Pq} {it_s} {is_q} {q}", "{p} {Pp} {s}. {q} {Pq} {the_s}",
    "{p} {Pp} {s}. also, {q} {Pq} {the_s}",
    "{s} {is_s} {Op} {p}, but {Oq} {q}", "{p} {is_p} {Pp} {s}. moreover, {the_s} {is_s} {Oq} {q}",
)  # fmt: skip
TWO_RELATION_ORDERS = (
    "put {p} {Pp} {s} and {q} {Pq} {the_s}", "put {p} {Pp} {s} and {q} {Pq} {it_s}",
    "draw {s}. {Ap} put {p}. {Aq} put {q}",
    "draw {s}, put {p} {Ap} and {q} {Aq}", "place {p} {Pp} {s}. then place {q} {Pq} {the_s}",
    "draw {s}, then {p} {Ap} "
    "and {q} {Aq}", "put {p} {Pp} {s}, then {q} {Pq} {the_s}", "set {s} {Op} {p} and {Oq} {q}",
    "start with {s}. add {p} "
    "{Ap} and {q} {Aq}", "place {s} {Op} {p}, but {Oq} {q}", "add {p} {Pp} {s}, and add {q} {Pq} {the_s}",
)  # fmt: skip
TWO_RELATION_TAGS = (
    "{p} {Pp} {s}, {q} {Pq} {the_s}", "{s}, {p} {Ap}, {q} {Aq}", "{p} {Pp} {s}, {the_s} {Oq} {q}",
    "{p}, {s}, {q}, {the_p} {Pp} {the_s}, {the_q} {Pq} {the_s}", "{p} {Pp} {s} + {q} {Pq} {the_s}",
    "{s} {Op} {p}, {the_s} {Oq} {q}", "{p} {Pp} {s}; {q} {Pq} {the_s}",
)  # fmt: skip

PLACES = {
    "centre": (
        "in the centre", "in the middle", "in the center", "at the centre", "right in the middle",
        "at the center",
        "in the very middle", "centred", "centered", "in the middle of the picture",
        "in the centre of the image",
        "dead center", "exactly in the middle", "smack in the middle", "in the center of the frame",
    ),
    "top": (
        "at the top", "at the top", "near the top", "at the very top", "in the upper part", "at the top edge",
        "up top",
        "at the top centre", "in the upper middle", "high up", "at the top of the picture", "towards the top",
        "top center", "at the upper edge", "along the top",
    ),
    "bottom": (
        "at the bottom", "at the bottom", "near the bottom", "in the lower part", "down at the bottom",
        "at the bottom "
        "edge", "at the bottom of the picture", "bottom center", "in the lower middle", "at the very bottom",
        "at the lower edge", "towards the bottom", "down low", "at the bottom centre", "along the bottom",
    ),
}  # fmt: skip
SIDE_PLACES = (
    "on the {x}", "on the {x}", "on the {x} side", "at the {x}", "at the {x} edge", "to the {x}",
    "near the {x} edge",
    "on the {x} of the picture", "on the {x} side of the image", "in the {x} part", "in the {x} third",
    "over on the {x}",
)  # fmt: skip
CORNERS = (
    "in the {y} {x} corner", "in the {y} {x} corner", "in the {y} {x}", "at the {y} {x}",
    "in the {y}-{x} corner",
    "in the {y} {x} corner of the picture", "{y} {x}", "{y} {x} corner", "on the {y} {x}",
    "in the {x} {y} corner",
    "in the corner at the {y} {x}", "at {y} {x}", "{y}-{x}", "to the {y} {x}", "in the {y} {x} of the image",
    "in the {y} {x}-hand corner", "at the {y}, on the {x}",
)  # fmt: skip
ROWS = {"top": ("top", "top", "upper"), "bottom": ("bottom", "bottom", "lower")}

BACKGROUND_MODIFIERS = (
    *[""] * 24, "plain ", "plain ", "solid ", "solid ", "simple ", "flat ", "clean ", "uniform ",
    "single-colour ",
    "smooth ", "pure ", "all-", "completely ", "nice ", "pretty ", "beautiful ", "monochrome ", "entirely ",
    "empty ",
    "neutral ", "seamless ", "even ",
)  # fmt: skip
BACKGROUND_NOUNS = (
    *["background"] * 16, "backdrop", "backdrop", "bg", "bg", "backround", "back ground", "canvas", "wall",
    "surface",
    "paper", "screen", "base", "ground", "page", "sheet",
)  # fmt: skip
BACKGROUNDS = (
    *[" on {an} {c} {n}"] * 8, ", on {an} {c} {n}", " against {an} {c} {n}", " against {an} {c} {n}",
    " with {an} {c} {n}", " with {an} {c} {n}", ", {c} {n}", ", {c} {n}", ", {c} {n}", " on {w}", " on {w}",
    " against {w}", " in front of {an} {c} {n}", " over {an} {c} {n}", " on a {n} of {w}",
    ", with {w} behind it",
    " in front of {w}", ", everything behind it is {w}", " with {w} behind", ", {w} behind it",
    " set against {w}",
    ", bg: {w}", ", bg {w}", ", background: {w}", ", background {w}", " (background: {w})", " ({c} {n})",
    " - {c} {n}", "; {c} {n}", " and {an} {c} {n}", ", with {w} as the background colour",
    " upon {an} {c} {n}",
    ", where the background is {w}", ", all on {w}", ", and the background is {w}", ", the background is {w}",
    ", and make the background {w}", ", the background should be {w}", " before {an} {c} {n}", " {c} {n}",
    " on {w} colour", " whose background is {w}", " surrounded by {w}", ", on {w} please",
    " with the background in {w}", ", painted on {w}", " w/ {c} {n}", ", background colour {w}",
    " with {w} all around", ", bg color {w}", " | {c} {n}", ", in front of {an} {c} {n}", " + {c} {n}",
    " placed on {an} {c} {n}", " isolated on {w}", " isolated on {an} {c} {n}", ", and {w} behind everything",
)  # fmt: skip
"""After a caption. {c} is the colour with a modifier, {an} its article, {w} the colour alone, {n} a word for
a background."""
BACKGROUND_SENTENCES = (
    "the background is {w}", "the background is {w}", "{c} {n}", "the background should be {w}",
    "background: {w}",
    "make the background {w}", "use {an} {c} {n}", "everything behind it is {w}", "behind it is {an} {c} {n}",
    "the backdrop is {w}", "the whole background is {w}", "it has {an} {c} {n}",
    "behind everything it is {w}",
    "i want the background to be {w}", "on {an} {c} {n}", "let the background be {w}",
    "paint the background {w}",
    "all of it on {w}", "{w} behind it", "the colour behind is {w}", "background colour: {w}",
    "the background: {w}",
    "please make the background {w}", "keep the background {w}", "the {n} must be {w}",
    "put it on {an} {c} {n}",
    "fill the background with {w}", "all around it is {w}", "the rest is {w}", "everything else is {w}",
    "bg {w}",
)  # fmt: skip
BACKGROUNDS_FIRST = (
    "{c} {n}, ", "{c} {n}, ", "{c} {n}, ", "{c} {n}: ", "{c} {n}; ", "{c} {n}. ", "on {an} {c} {n}, ",
    "on {an} {c} {n} ",
    "on {an} {c} {n}: ", "on {w}, ", "on {w}: ", "{c} {n} with ", "{c} {n} and ", "{an} {c} {n} with ",
    "{an} {c} {n} and ",
    "against {an} {c} {n}, ", "in front of {an} {c} {n}, ", "background {w}, ", "background: {w}. ",
    "bg: {w}, ",
    "with {an} {c} {n}: ", "the background is {w}. ", "make the background {w} and draw ", "{w} behind, ",
    "{w} bg, ",
    "on {an} {c} {n} draw ", "take {an} {c} {n} and draw ", "in front of {w}, ", "{an} {c} {n}, and on it ",
    "{an} {c} {n}, in front of it ", "background colour {w}, ", "over {an} {c} {n}: ",
    "use {w} as background. ",
)  # fmt: skip
"""Before a noun phrase."""
BACKGROUND_TAGS = (
    "{c} {n}", "{c} {n}", "{c} {n}", "{c} {n}", "{w}", "background {w}", "background: {w}", "bg: {w}",
    "{w} bg",
    "on {w}", "{n} {w}", "bg {w}",
)  # fmt: skip
ONLY_BACKGROUND = (
    "{c} {n}", "{c} {n}", "just {c}", "just plain {w}", "only {w}", "plain {w}", "{an} {c} {n}",
    "an empty {w} {n}",
    "nothing but {w}", "just {an} {c} {n}", "only {an} {c} {n}, nothing else", "{w}", "all {w}",
    "everything {w}",
    "nothing but {an} {c} {n}", "{an} {c} {n} without anything on it", "{an} {c} {n} and nothing else",
    "{w}, nothing else",
    "an empty {w} picture", "{an} {c} picture", "a blank {w} image", "plain {w}, no objects",
    "{w} everywhere",
    "only the colour {w}", "the colour {w}", "{w} all over", "{an} {c} {n}, no objects", "{an} {c} rectangle",
    "blank {w}",
    "{c} {n} only", "solid {w}", "the whole picture {w}", "a picture that is all {w}", "no objects, just {w}",
    "fill it with {w}", "fill everything with {w}", "fill the picture with {w}", "{an} {c} square of colour",
    "an image filled with {w}", "paint it all {w}", "a field of {w}", "{w} and nothing else",
    "{c} {n} without objects",
    "make everything {w}", "nothing on {an} {c} {n}", "{an} {c} {n} with nothing on it", "empty, {w}",
    "pure {w}",
    "the picture should be completely {w}", "empty {w} {n}", "no things at all, only {an} {c} {n}",
    "one colour: {w}",
)  # fmt: skip

SIGN_NOUNS = (
    *["sign"] * 12, "board", "board", "signboard", "placard", "sign board", "notice", "panel", "plaque",
    "plate",
    "sign", "road sign", "street sign", "signpost", "shop sign", "name plate", "billboard", "label",
)  # fmt: skip
SIGN_PHRASES = (
    "a {n} that says {t}", "a {n} that says {t}", "a {n} that says {t}", "a {n} saying {t}",
    "a {n} saying {t}",
    "a {n} reading {t}", "a {n} that reads {t}", "a {n} with {t} on it", "a {n} with the text {t}",
    "a {n} which says {t}",
    "a {n} with the {word} {t}", "a {n} with the {word} {t} on it", "the {word} {t} on a {n}",
    "the {word} {t} on a {n}",
    "{t} on a {n}", "{t} written on a {n}", "the {word} {t} written on a {n}", "a {n} spelling {t}",
    "a {n} showing {t}",
    "a {n} with {t} written on it", "a {n} with the inscription {t}", "a {n} with the writing {t}",
    "a {n} labelled {t}",
    "a {n} where {t} is written", "a {n}, on it the {word} {t}", "a {n} bearing the {word} {t}",
    "the text {t} on a {n}",
    "a {n} on which it says {t}", "a {n} with {t} in capitals", "a {n} that spells out {t}",
    "a {n} with text {t}",
    "a {n} on which you can read {t}", "a {n} displaying {t}", "a {n} with the message {t}",
    "one {n} saying {t}",
)  # fmt: skip
SIGN_TAGS = (
    "sign: {t}", "sign {t}", "sign saying {t}", "sign that says {t}", "text: {t}", "text {t} on a sign",
    "sign with {t}",
    "sign reading {t}", "a sign: {t}", "board: {t}", "sign text: {t}", "sign says {t}", "the sign says {t}",
    "{t} sign",
    "a {t} sign", "written on a sign: {t}", "sign, text {t}", "{t} on a sign", "board reading {t}",
    "text on sign: {t}",
)  # fmt: skip
SIGN_SENTENCES = (
    "the sign says {t}", "on the sign it says {t}", "there is a sign that says {t}", "write {t} on a sign",
    "put a sign there that says {t}", "add a sign with {t}", "a sign says {t}",
    "there is also a sign saying {t}",
    "it should have a sign that says {t}", "the text on the sign is {t}", "a board reads {t}",
    "put {t} on a sign",
)  # fmt: skip
QUOTES = (
    *['"{}"'] * 12, *["\u201c{}\u201d"] * 4, *["'{}'"] * 4, *["\u2018{}\u2019"] * 2, *["{}"] * 6,
    "\u201e{}\u201c",
    "\u00ab{}\u00bb", "*{}*", "**{}**", "`{}`", ": {}",
)  # fmt: skip
WITH_SIGN = (
    "{x} and {s}", "{x} and {s}", "{x} with {s}", "{x}, {s}", "{s} and {x}", "{s} with {x}", "{x} plus {s}",
    "{x}, and {s}",
    "{x} as well as {s}", "{x} together with {s}", "{s}, {x}", "{s} plus {x}", "{x} along with {s}",
    "{s}, and also {x}",
)  # fmt: skip
CONJUNCTIONS = (
    *[" and "] * 14, ", ", ", ", " with ", " with ", " together with ", " plus ", " as well as ", " & ",
    ", and ",
    " along with ", " and also ", " + ", " accompanied by ", " and then ", ", also ", " alongside ",
    " and additionally ",
)  # fmt: skip
"""Between two groups without a relation."""
NEAR = (" next to ", " beside ", " near ", " close to ", " by the side of ")
"""Between two groups that may lie anywhere near each other."""
TERSE_BACKGROUNDS = (
    " on {w}", " on {w}", ", {w} background", ", {w} background", " on {an} {w} background",
    " on {an} {w} background",
    " {w} background", " against {w}", ", {w} bg", ", background {w}", " on a plain {w} background", ", {w}",
    " with {an} {w} "
    "background", ". {w} background", " - {w} background", ", bg {w}", " on {w} bg", ", {w} backdrop",
    " ({w} background)",
)  # fmt: skip
TERSE_BACKGROUNDS_FIRST = (
    "{w} background, ", "{w} background, ", "on {w}: ", "on {w}, ", "{w} bg, ", "background {w}, ",
    "{w} background with ",
    "{w} background: ", "{w}, ", "{an} {w} background and ", "{w} backdrop, ", "{w} background. ",
)  # fmt: skip
