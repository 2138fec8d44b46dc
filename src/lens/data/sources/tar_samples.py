"""The samples of one tar: members that share a key, whether or not they are neighbours.

Nothing is unpacked: an image is a place in the tar. Links between members are followed, and a tar that is
broken says where it breaks. Knows nothing of what a caption says.
"""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lens.data.io.entry import PassedOver
from lens.data.io.image_types import PREFIX_BYTES, image_type
from lens.data.io.sample import MAX_SIDECAR_BYTES, is_image, is_sidecar
from lens.data.io.text_values import escape_surrogates
from lens.data.io.webdataset import find_break, split_member_name
from lens.data.sources.folder_metadata import CAPTION_WITHOUT_IMAGE, normalize_name
from lens.data.sources.folder_walk import BROKEN_LINK, HIDDEN, SPECIAL, is_derived, kind_of_file

MAX_LINKS = 8
"""Links that are followed from one to the next."""


class TarImage(NamedTuple):
    """An image of a tar, and the side files of its sample."""

    name: str
    """Unique in the tar, and fit to be stored."""
    offset: int
    """Position of its first byte."""
    num_bytes: int
    texts: dict[str, bytes]
    """Side files by extension."""
    fault: str
    """Why nobody can tell which texts are its own, for people; empty where it is clear."""


class TarBreak(NamedTuple):
    """Where and how a tar breaks; members behind it are lost."""

    reason: str


class _Member(NamedTuple):
    name: str
    offset: int
    num_bytes: int
    text: bytes | None
    """Of side files alone."""
    is_image: bool
    link: str = ""
    """The name of the member that a link leads to."""


_Sample = dict[str, _Member]
"""Members by extension, in lower case."""


def tar_contents(path: Path) -> Iterator[TarImage | TarBreak | PassedOver]:
    """Yield the images of a tar in the order of its members, what is passed over, and its break if any."""
    members: list[_Member] = []
    broken = None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isdir():
                    read = _read_member(tar, member)
                    if isinstance(read, PassedOver):
                        yield read
                    else:
                        members.append(read)
            broken = find_break(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError, LookupError) as error:
        broken = str(error)
    yield from _sample_contents(members)
    if broken:
        last = f" after {escape_surrogates(members[-1].name)}" if members else ""
        yield TarBreak(f"breaks off{last}: {broken}")


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Member | PassedOver:
    name = member.name
    if any(is_derived(part) for part in name.split("/")):
        return PassedOver(HIDDEN, escape_surrogates(name))
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        return _Member(name, 0, 0, None, False, target)
    if member.islnk():
        return _Member(name, 0, 0, None, False, member.linkname)
    if not member.isreg():
        return PassedOver(SPECIAL, escape_surrogates(name))
    _, extension = split_member_name(name)
    content = tar.extractfile(member)
    assert content is not None
    if is_sidecar(extension):
        return _Member(name, member.offset_data, member.size, content.read(MAX_SIDECAR_BYTES + 1), False)
    is_picture = is_image(extension) or bool(image_type(content.read(PREFIX_BYTES)))
    return _Member(name, member.offset_data, member.size, None, is_picture)


def _sample_contents(members: list[_Member]) -> Iterator[TarImage | PassedOver]:
    by_name = {one.name: one for one in members}
    samples: dict[str, list[_Sample]] = {}
    guessed: Counter[tuple[str, str]] = Counter()
    """Members by key and extension that could belong to several samples of the key."""
    owners: list[tuple[str, _Sample, _Member]] = []
    for one in members:
        whole = _follow(one, by_name)
        if whole is None:
            yield PassedOver(BROKEN_LINK, escape_surrogates(one.name))
            continue
        key, extension = split_member_name(normalize_name(one.name))
        of_key = samples.setdefault(key, [])
        lacking = [sample for sample in of_key if extension not in sample]
        if not lacking:
            of_key.append({})
        owner = lacking[0] if lacking else of_key[-1]
        owner[extension] = whole
        guessed[key, extension] += len(lacking) > 1
        owners.append((key, owner, whole))
    names: Counter[str] = Counter()
    for key, sample, one in owners:
        address = escape_surrogates(one.name)
        if one.is_image:
            names[address] += 1
            number = f"#{names[address]}" if names[address] > 1 else ""
            extension = split_member_name(normalize_name(one.name))[1]
            fault = _key_fault(key, samples[key], guessed)
            yield TarImage(address + number, one.offset, one.num_bytes, _texts_of(sample, extension), fault)
        elif one.text is None:
            yield PassedOver(kind_of_file(one.name), address)
        elif not any(_has_image(other) for other in samples[key]):
            yield PassedOver(CAPTION_WITHOUT_IMAGE, address)


def _follow(member: _Member, by_name: dict[str, _Member]) -> _Member | None:
    """Return a member with the place of what its links lead to; None for a broken or looping link."""
    target: _Member | None = member
    for _ in range(MAX_LINKS):
        if target is None or not target.link:
            break
        target = by_name.get(target.link)
    return None if target is None or target.link else target._replace(name=member.name)


def _has_image(sample: _Sample) -> bool:
    return any(one.is_image for one in sample.values())


def _key_fault(key: str, samples: list[_Sample], guessed: Counter[tuple[str, str]]) -> str:
    """Return why the texts of a key that is used several times cannot be told apart; empty where they can."""
    if len(samples) == 1:
        return ""
    left_over = [one for one in samples if not _has_image(one)]
    is_clear = not left_over and not any(
        guessed[key, extension] and any(extension not in one for one in samples)
        for sample in samples
        for extension in sample
    )
    if is_clear:
        return ""
    return f"the tar uses the key {escape_surrogates(key)} several times, and its texts cannot be told apart"


def _texts_of(sample: _Sample, extension: str) -> dict[str, bytes]:
    """Return the texts of an image by extension: those of its whole name, else those of its key.

    Where a name has two dots, as in `a.left.jpg`, its key is what is before the first one.
    """
    texts = {name: one.text for name, one in sample.items() if one.text is not None}
    own = f"{extension.rpartition('.')[0]}."
    of_part = {name.removeprefix(own): text for name, text in texts.items() if name.startswith(own)}
    if of_part and own != ".":
        return of_part
    images = (name.rpartition(".")[0] for name, one in sample.items() if one.is_image)
    parts = tuple(f"{part}." for part in images if part)
    return {name: text for name, text in texts.items() if not name.startswith(parts)}
