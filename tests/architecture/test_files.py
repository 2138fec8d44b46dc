"""How files are written: ASCII, short, free of machines' own paths."""

import re
from collections import Counter

import pytest
from repository import ROOT, modules, text_files

LONGEST = 400
FULLEST = 16
MACHINE_PATHS = re.compile(
    r"(?<![\w.}])/(?:work|opt|root|home/\w+|usr/local)/|\bfile:/{2}|pypi[.]org|npmjs[.]|registry[.][a-z]+[.](?:org|com|io)\b"
)


def relative(path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_are_found():
    names = {relative(path) for path in text_files()}
    assert {
        "README.md",
        "pyproject.toml",
        ".ci/run",
        "src/lens/core/flow.py",
        "recipes/nano/vae.yaml",
    } <= names


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_no_module_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_no_folder_holds_more_than_16_modules():
    folders = Counter(relative(path.parent) for path in modules() if path.stem != "__init__")
    assert {folder: count for folder, count in folders.items() if count > FULLEST} == {}


def test_text_is_ascii_apart_from_the_captions_of_other_languages():
    others = [relative(path) for path in text_files() if not path.read_text().isascii()]
    assert [path for path in others if "/nano/world/languages/" not in path] == []


def test_no_file_names_a_machines_folders_or_a_registry():
    found = {
        relative(path): match.group()
        for path in text_files()
        if (match := MACHINE_PATHS.search(path.read_text()))
    }
    assert found == {}


def test_the_models_that_ship_do_not_tell_where_they_were_made():
    told = [path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.json")
            if MACHINE_PATHS.search(path.read_text()) or "_name_or_path" in path.read_text()]  # fmt: skip
    assert told == []


def test_every_module_says_what_it_is():
    silent = [
        path for path in modules() if path.stem != "__init__" and not path.read_text().startswith('"""')
    ]
    assert silent == []
