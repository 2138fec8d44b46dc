"""Download images and fonts from Debian packages, and list the images with captions and licences.

Run: python scripts/fetch_pictures.py FOLDER   (about 400 MB; needs apt-get and dpkg-deb, but no root)

FOLDER then has the files and a list (PACKAGE.jsonl) of each package of images, and fonts/ with all fonts.
A source of kind `manifest` with `location: location` reads a list. Packages that are there are not downloaded
again. SVG files are left out, as a build decodes pixels only.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lens.files import write_bytes_atomic

Row = dict[str, Any]
FONTS = (
    "fonts-comfortaa", "fonts-dejavu-core", "fonts-gfs-didot", "fonts-lato", "fonts-liberation",
    "fonts-vollkorn", "fonts-wqy-microhei", "fonts-ipafont-gothic", "fonts-nanum", "fonts-hosny-amiri",
    "fonts-kacst", "fonts-lohit-deva", "fonts-deva-extra",
)  # fmt: skip
VERSION = "0"
"""First digit of numbers that count versions of a file, such as 01."""


class Package(NamedTuple):
    """A package of images."""

    name: str
    licence: str
    says: str
    """Words of the copyright file of the package that state the licence."""
    rows: Callable[[Path], Iterator[Row]]
    """Yields a row an image, with its location relative to the files of the package."""


def stamps(tree: Path) -> Iterator[Row]:
    """Yield the stamps of Tux Paint; their texts have an English line, then translations."""
    for path in _pictures(tree):
        beside = path.with_suffix(".txt")
        lines = beside.read_text(encoding="utf-8", errors="replace").splitlines() if beside.is_file() else []
        caption, others = stamp_captions(lines)
        if caption:
            yield {"location": path.relative_to(tree).as_posix(), "caption": caption, "captions": others}


def stamp_captions(lines: list[str]) -> tuple[str, dict[str, str]]:
    """Return the English caption and the translations by language, of lines such as `de.utf8=Ein Fuchs.`."""
    others = {}
    for line in lines[1:]:
        language, equals, text = line.partition(".utf8=")
        if equals and text.strip():
            others[language.strip()] = text.strip()
    return lines[0].strip() if lines else "", others


def clip_art(tree: Path) -> Iterator[Row]:
    """Yield Open Clip Art: what a file's name or title says, and the folders that it was sorted into."""
    root = tree / "usr/share/openclipart/png"
    for path in _pictures(root):
        facts = png_texts(path)
        author = re.sub(r"^HASH\(.*", "", facts.get("Author", ""))  # what a script once wrote for none
        subject = clip_art_subject(path.stem, facts.get("Title", ""), author)
        kinds = [" ".join(_words(part)) for part in path.relative_to(root).parts[:-1]]
        row = {"location": path.relative_to(tree).as_posix(), "caption": ", ".join([subject, *kinds])}
        yield row | ({"author": author} if author else {})


def clip_art_subject(stem: str, title: str, author: str) -> str:
    """Return what an image shows: its title where that agrees with the file's name, else the name in words.

    Many titles name a whole collection, or the image that was drawn over.
    """
    named = _words(stem)
    people = [word.lower() for word in re.findall(r"\w+", author)]
    while len(named) > 1 and (named[-1].startswith(VERSION) or _names(named[-1], people)):
        named.pop()
    title = title.rpartition(" - ")[2] if title.startswith("Clipart by") else title
    titled = {word for word in _words(title) if not word.isdigit()}
    return title.strip() if titled & set(named) else " ".join(named)


def wallpapers(tree: Path) -> Iterator[Row]:
    """Yield Plasma's wallpapers: a name in many languages, an author, and a licence of its own."""
    for folder in sorted((tree / "usr/share/wallpapers").iterdir()):
        facts = _wallpaper_facts(folder)
        for path in _pictures(folder / "contents"):
            if path.stem == "screenshot" or not facts.get("Name"):
                continue
            dark = "dark " if path.parent.name.endswith("_dark") else ""
            caption = f"{facts['Name']}, a {dark}desktop wallpaper"
            names = {key[5:-1]: value for key, value in facts.items() if re.fullmatch(r"Name\[.+\]", key)}
            row = {"location": path.relative_to(tree).as_posix(), "caption": caption, "captions": names}
            own = {"author": facts.get("Author"), "licence": facts.get("License")}
            yield row | {name: value for name, value in own.items() if value}


GPL2 = "either version 2 of the License, or"
PACKAGES = (
    Package("tuxpaint-stamps-default", "GPL-2.0-or-later (Tux Paint stamps)", GPL2, stamps),
    Package("openclipart-png", "CC-PDDC", "creative commons Public Domain Dedication", clip_art),
    Package("plasma-workspace-wallpapers", "GPL-2.0-or-later", GPL2, wallpapers),
)


class Listed(NamedTuple):
    """Contents of a list."""

    num_pictures: int
    num_bytes: int
    num_left_out: int
    """Images without a caption, and previews of other images."""


def write_list(package: Package, folder: Path) -> Listed:
    """Write the list of a package whose files are in the folder; its rows are images that exist.

    Stops where the package's copyright file no longer says what the licence is a short form of.
    """
    tree = folder / package.name
    terms = tree / "usr/share/doc" / package.name / "copyright"
    if package.says not in " ".join(terms.read_text(errors="replace").split()):
        sys.exit(f"{terms} does not say {package.says!r}: read it, and mend the licence in this script.")
    rows = [{"licence": package.licence} | row for row in package.rows(tree)]
    rows = [row | {"location": f"{package.name}/{row['location']}"} for row in rows]
    if not rows:
        sys.exit(f"{tree} holds no picture with a caption. Remove it and call again.")
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    write_bytes_atomic(folder / f"{package.name}.jsonl", lines.encode())
    num_bytes = sum((folder / row["location"]).stat().st_size for row in rows)
    return Listed(len(rows), num_bytes, sum(1 for _ in _pictures(tree)) - len(rows))


def fetch(package: str, folder: Path) -> bool:
    """Download and unpack a package to a folder of its name, unless it exists; return whether it did not."""
    tree = folder / package
    if tree.is_dir():
        return False
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    # apt checks what it fetched, and goes on with a file that was cut off.
    if subprocess.run(["apt-get", "download", package], cwd=downloads).returncode:
        sys.exit(f"apt-get cannot download {package}. `apt-get update`, as root, renews its lists.")
    (deb,) = downloads.glob(f"{package}_*.deb")
    partial = folder / f"{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", deb, partial], check=True)
    partial.rename(tree)  # last: a tree that has its name is whole
    deb.unlink()
    return True


def png_texts(path: Path) -> dict[str, str]:
    """Return the text chunks of a PNG before its pixels; none for another file or one that is too large."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            texts = {key: value for key, value in opened.info.items() if isinstance(value, str)}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}
    return texts


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", type=Path, help="folder for the files")
    folder = parser.parse_args().folder
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} is not here: this script needs Debian or a system made from it.")
    for number, name in enumerate(FONTS, 1):
        fetch(name, folder / "fonts")
        print(f"fonts {number}/{len(FONTS)}: {name}", file=sys.stderr)
    for number, package in enumerate(PACKAGES, 1):
        fetch(package.name, folder)
        print(f"pictures {number}/{len(PACKAGES)}: {package.name}", file=sys.stderr)
        listed = write_list(package, folder)
        size = f"{listed.num_bytes / 1e6:.1f} MB"
        print(f"{package.name}: {listed.num_pictures} images, {size}, {listed.num_left_out} left out")
    found = Counter(path.suffix.lower() for path in (folder / "fonts").rglob("*"))
    print(f"fonts: {sum(found[suffix] for suffix in ('.ttf', '.otf', '.ttc'))} files")


def _pictures(root: Path) -> Iterator[Path]:
    """Yield image files in a fixed order, without links to other image files."""
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in (".png", ".jpg") and path.is_file() and not path.is_symlink():
            yield path


def _words(text: str) -> list[str]:
    """Return words in small letters; numbers apart from letters, and HalfWords apart."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    return [word.lower() for word in re.findall(r"[^\W\d_]+|\d+", spaced)]


def _names(word: str, people: Iterable[str]) -> bool:
    """Return whether a word is somebody's name, or as much of it as the file's name had room for."""
    return len(word) > 1 and any(name.startswith(word) for name in people)


def _wallpaper_facts(folder: Path) -> dict[str, str]:
    """Return the name in every language, the author and the licence of one wallpaper."""
    if (folder / "metadata.json").is_file():
        facts = json.loads((folder / "metadata.json").read_text(encoding="utf-8")).get("KPlugin", {})
        authors = ", ".join(author.get("Name", "") for author in facts.get("Authors", []))
        return {key: value for key, value in facts.items() if isinstance(value, str)} | {"Author": authors}
    if not (folder / "metadata.desktop").is_file():
        return {}
    lines = (folder / "metadata.desktop").read_text(encoding="utf-8").splitlines()
    facts = {key: text for key, _, text in (line.partition("=") for line in lines)}
    return facts | {name: facts.get(f"X-KDE-PluginInfo-{name}", "") for name in ("Author", "License")}


if __name__ == "__main__":
    main()
