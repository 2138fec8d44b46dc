"""The two set-up commands, the pinned versions, and what CI runs."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version
from repository import ROOT

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


def test_the_command_and_the_package_come_from_the_project_file():
    text = Path(ROOT / "pyproject.toml").read_text()
    assert 'name = "lens-t2i"' in text and 'lens = "lens.app.main:main"' in text
