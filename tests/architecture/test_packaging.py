"""The two set-up commands, the pinned versions, what CI runs, and the models that ship."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from repository import ROOT

from lens.models.checkpoints.diffusers_folder import check_folder, shared_components
from lens.models.checkpoints.reader import read_json
from lens.models.checkpoints.registry import KNOWN_MODELS, PACKAGED_WEIGHTS

SHIPPED = [model for model in KNOWN_MODELS.values() if model.folder and model.folder.is_dir()]
SHARED = {"scheduler", "text_encoder", "tokenizer", "vae"}

README = (ROOT / "README.md").read_text()
FIRST, SECOND = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): version for name, version in pairs}


def needed(name: str, extras: tuple[str, ...], seen: set[tuple[str, tuple[str, ...]]]) -> set[str]:
    """Return the installed packages that one brings in, direct or not."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    found = {name}
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            found |= needed(canonical(requirement.name), tuple(sorted(requirement.extras)), seen)
    return found


def test_ci_runs_the_readmes_test_command_word_for_word():
    assert SECOND in (ROOT / ".ci" / "run").read_text().splitlines()


def test_both_commands_install_by_the_same_pinned_versions_and_the_first_ends_with_a_picture():
    assert all("pip install -c constraints.txt" in command for command in (FIRST, SECOND))
    assert ".venv/bin/lens generate " in FIRST
    assert SECOND.endswith("-m pytest")


def test_every_package_of_both_commands_is_pinned_and_none_that_is_not_needed():
    packages = needed("lens-t2i", ("test",), set()) - {"lens-t2i"}
    assert packages == set(pins())


def test_torch_is_pinned_without_a_build():
    assert pins()["torch"] == "2.13.0"
    assert all("+" not in version and "/" not in version for version in pins().values())


def test_the_pinned_versions_are_those_that_run_now():
    wrong = {}
    for name, version in pins().items():
        try:
            installed = Version(distribution(name).version).public
        except PackageNotFoundError:
            continue  # needed on other systems alone
        if installed != version:
            wrong[name] = installed
    assert wrong == {}


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="the tests run in one process")
def test_a_test_process_takes_a_file_at_a_time(request):
    """xdist appends the group to the name of a test; else it deals tests out one by one, silently."""
    assert request.node.nodeid.endswith("@architecture/test_packaging")


def test_the_command_and_the_package_come_from_the_project_file():
    text = Path(ROOT / "pyproject.toml").read_text()
    assert 'name = "lens-t2i"' in text and 'lens = "lens.cli.main:main"' in text


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_models_that_ship_take_no_more_than_100_mb_and_the_first_no_more_than_40():
    assert {"lens-nano", "lens-nano-base"} <= {model.name for model in SHIPPED}
    assert num_bytes(PACKAGED_WEIGHTS) <= 100_000_000
    assert num_bytes(PACKAGED_WEIGHTS / "lens-nano") <= 40_000_000
    assert {path.name for path in PACKAGED_WEIGHTS.iterdir()} == {model.name for model in SHIPPED}


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_a_model_that_ships_is_whole_has_a_card_and_stores_nothing_that_another_has(model):
    check_folder(model.folder)
    index = read_json(model.folder / "model_index.json")
    assert (index["lens_variant"], index["default_base_resolution"]) == (model.variant, model.base_resolution)
    assert index["default_steps"] is index["default_guidance"] is None, "the table of models says them"
    assert (model.folder / "README.md").read_text().split("---\n")[2].startswith(f"# {model.name}\n")
    assert set(shared_components(model.folder)) == (set() if model.name == "lens-nano" else SHARED)


def test_the_wheel_takes_every_file_of_the_models():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/lens"]} and PACKAGED_WEIGHTS.is_relative_to(ROOT / "src" / "lens")
    files = [str(path) for path in PACKAGED_WEIGHTS.rglob("*") if path.is_file()]
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == "", "what git ignores is left out of the wheel"
