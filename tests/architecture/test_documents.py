"""What the documents say is there is there, and the other way round."""

import re
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from repository import LENS, ROOT, dotted, modules

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LONGEST_README = 170


def files_page_script():
    """The script that writes docs/files.md, as a module."""
    spec = spec_from_file_location("list_files", ROOT / "scripts" / "list_files.py")
    assert spec and spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_page_of_files_is_what_its_script_writes():
    assert (ROOT / "docs" / "files.md").read_text() == files_page_script().files_page(), (
        "run python scripts/list_files.py"
    )


def test_every_module_says_in_one_short_line_what_it_is():
    first_line = files_page_script().first_line
    lines = {dotted(path): first_line(path) for path in modules() if path.stem != "__init__"}
    assert {name: line for name, line in lines.items() if not 10 <= len(line) <= 110} == {}


def test_the_readme_is_short_and_its_tree_names_every_folder_of_the_package():
    assert len(README.splitlines()) <= LONGEST_README
    folders = {path.parent for path in modules()} - {LENS}
    assert [folder.name for folder in sorted(folders) if f"{folder.name}/" not in README] == []


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
    folders = ("core", "models", "sampling", "losses")
    files = (path for folder in folders for path in (LENS / folder).rglob("*.py") if path.stem != "__init__")
    known_elsewhere = {"base.py", "shapes.py", "next_token.py", "autoencoder.py"}
    names = (path.relative_to(ROOT).as_posix() for path in files if path.name not in known_elsewhere)
    assert [name for name in names if name not in text] == []
