"""Colours of the nano world: of backgrounds and of re-coloured objects, with their English names.

Knows nothing of images, scenes or sentences.
"""

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
    "dark blue": (24, 40, 104),
    "turquoise": (38, 166, 164),
    "light green": (162, 220, 130),
    "beige": (234, 216, 180),
}
"""Background colours by name: 8-bit RGB of the middle shade."""

FIRST_COLOURS = tuple(COLOURS)[:12]
"""Background colours of the six tasks, which stay as they are while the world grows."""

COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "grey": ("gray",), "light blue": ("sky blue", "pale blue"), "purple": ("violet",),
}  # fmt: skip
"""Other words for a colour in captions of the six tasks."""

EVERYDAY_COLOUR_NAMES: dict[str, tuple[str, ...]] = {
    "white": ("snow white",),
    "grey": ("gray",),
    "black": ("pitch black", "jet black"),
    "red": ("crimson", "scarlet"),
    "orange": ("tangerine-coloured",),
    "yellow": ("golden yellow", "sunny yellow"),
    "green": ("grass green", "emerald"),
    "blue": ("royal blue",),
    "light blue": ("sky blue", "pale blue", "baby blue", "sky-blue"),
    "purple": ("violet", "lilac"),
    "pink": ("rose pink", "rosy"),
    "brown": ("chocolate brown",),
    "dark blue": ("navy", "navy blue", "midnight blue", "deep blue"),
    "turquoise": ("teal", "aqua", "cyan"),
    "light green": ("lime", "lime green", "mint", "pale green"),
    "beige": ("cream", "sand", "sandy", "tan", "ivory"),
}
"""What people call the background colours."""

OBJECT_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 44, 40),
    "orange": (248, 140, 30),
    "yellow": (250, 212, 50),
    "green": (60, 166, 70),
    "blue": (44, 104, 220),
    "purple": (140, 66, 180),
    "pink": (246, 120, 176),
    "brown": (132, 84, 50),
}
"""Colours that an object can be re-coloured to: 8-bit RGB that its dominant hue becomes."""
