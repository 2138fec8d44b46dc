"""What the documents say is there is there, and the other way round."""

import re

import pytest
from repository import LENS, ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LEFT_OUT = re.compile(r"(^|/)(__pycache__|weights)/|^.+/__init__\.py$")


def tree() -> dict[str, str]:
    """The README's file tree as {path under src/lens: its line}; indentation is the folder."""
    lines = README.split("```\nsrc/lens/\n")[1].split("\n```")[0].splitlines()
    folders: list[str] = []
    found = {}
    for line in lines:
        name, _, description = line.strip().partition(" ")
        del folders[(len(line) - len(line.lstrip())) // 2 - 1 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            found["".join(folders) + name] = description.strip()
    return found


def test_the_readme_lists_every_file_of_the_package_and_no_other():
    names = (path.relative_to(LENS).as_posix() for path in LENS.rglob("*") if path.is_file())
    assert set(tree()) == {name for name in names if not LEFT_OUT.search(name)}


def test_every_file_has_a_line_that_says_what_it_is():
    assert [name for name, description in tree().items() if len(description) < 10] == []


def test_the_reading_tour_has_six_files_that_exist():
    tour = README.split("## A reading tour")[1].split("##")[0]
    files = re.findall(r"^\d\. `([^`]+)`", tour, flags=re.MULTILINE)
    assert len(files) == 6
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_and_every_test_that_a_document_names_exists(document):
    for path, _, name in re.findall(
        r"`((?:src|tests|docs|recipes|benchmarks|scripts)/[\w./-]+)(::(\w+))?`", document.read_text()
    ):
        assert (ROOT / path).exists(), f"{document.name} names {path}"
        if name:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{document.name} names {name} in {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(document):
    links = re.findall(r"(?<!!)\[[^]]*\]\(([^)#:]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_map_knows_every_file_that_the_specification_is_built_in():
    text = (ROOT / "docs" / "map.md").read_text()
    folders = ("core", "models", "sampling", "objectives")
    files = (path for folder in folders for path in (LENS / folder).rglob("*.py") if path.stem != "__init__")
    known_elsewhere = {"objective.py", "structure.py", "next_token.py", "reconstruction.py"}
    names = (path.relative_to(ROOT).as_posix() for path in files if path.name not in known_elsewhere)
    assert [name for name in names if name not in text] == []
