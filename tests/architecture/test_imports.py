"""A module imports lower floors and its own folder; optional packages only where they are used."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import repository
from repository import LENS, ROOT, dotted, imported_names, modules

FLOORS = [
    "errors library_logs",
    "text_files",
    "config files registration",
    "core llm",
    "models nano prompts benchmarks",
    "reasoner",
    "losses sampling data",
    "rl",
    "train evals serve",
    "cli",
    "__main__",
]
FLOORS_INSIDE = {
    "data": ["io", "text_rendering scorers", "sources", "captions", "build", "report", "estimate"],
    "models": ["quantized", "checkpoints", "chat"],
    "nano": ["world", "scoring"],
    "sampling": ["metadata_formats"],
    "reasoner": ["rules", "nano_rules", "search"],
    "rl": ["prompts", "rewards"],
    "evals": ["scores observers", "suite"],
    "train": ["settings", "data cost", "post_training", "stages"],
    "serve": ["settings", "engine storage safety", "ray", "api", "studio"],
    "cli": ["generation", "evaluation"],
}
"""The folders of a part, from the lowest floor up."""


def numbered(floors: list[str]) -> dict[str, int]:
    return {name: number for number, names in enumerate(floors) for name in names.split()}


FLOOR_OF = numbered(FLOORS)
FLOOR_INSIDE = {part: numbered(floors) for part, floors in FLOORS_INSIDE.items()}
OPTIONAL = {
    "ray", "pyarrow", "nudenet", "rapidocr", "onnxruntime", "cv2", "faiss", "torchao", "gguf", "resvg_py",
    "tensorboard", "matplotlib", "pytest", "hypothesis", "fastapi", "fastapi_offline", "starlette", "uvicorn",
    "multipart", "python_multipart", "sqlalchemy", "alembic", "prometheus_client", "gradio", "c2pa",
    "cryptography", "psycopg", "openai", "playwright", "httptools", "jiter",
}  # fmt: skip
DISTRIBUTION_OF = {
    "PIL": "pillow", "yaml": "pyyaml", "resvg_py": "resvg-py", "faiss": "faiss-cpu", "c2pa": "c2pa-python",
    "prometheus_client": "prometheus-client", "python_multipart": "python-multipart",
    "fastapi_offline": "fastapi-offline", "cv2": "opencv-python-headless", "pillow_heif": "pillow-heif",
    "pillow_jxl": "pillow-jxl-plugin",
}  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, late imports too, in full names."""
    names = (name for name in imported_names(path) if name == "lens" or name.startswith("lens."))
    return {name if is_module(name) else name.rpartition(".")[0] for name in names}


def is_module(name: str) -> bool:
    path = LENS.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def rooms(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the place of a file inside the package, and the places of what it imports."""
    here = dotted(path).split(".")[1:]
    return here, [name.split(".")[1:] for name in imported_modules(path) if name != "lens"]


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.parent != LENS or path.stem != "__init__"], ids=dotted
)
def test_imports_only_lower_floors(path):
    here, imported = rooms(path)
    for there in imported:
        if there[0] != here[0]:
            assert FLOOR_OF[there[0]] < FLOOR_OF[here[0]], f"{here[0]} may not import {there[0]}"


@pytest.mark.parametrize(
    "path", [path for path in modules() if len(path.relative_to(LENS).parts) > 2], ids=dotted
)
def test_imports_only_lower_folders_of_its_own_part(path):
    here, imported = rooms(path)
    floor = FLOOR_INSIDE[here[0]]
    assert here[1] in floor, f"{here[0]}/{here[1]} stands on no floor: add it to FLOORS_INSIDE"
    for there in imported:
        if there[0] == here[0] and there[1] in floor and there[1] != here[1]:
            assert floor[there[1]] < floor[here[1]], f"{'.'.join(here)} may not import {'.'.join(there)}"


def in_circles(imports: dict[str, set[str]]) -> set[str]:
    """Return what lies on circles of a graph, or on a way from one to another."""
    left = {name: set(others) & set(imports) - {name} for name, others in imports.items()}
    while True:
        imported = set().union(*left.values())
        ends = {name for name, others in left.items() if not others or name not in imported}
        if not ends:
            return set(left)
        left = {name: others - ends for name, others in left.items() if name not in ends}


def test_no_modules_import_each_other_in_a_circle():
    assert in_circles({dotted(path): imported_modules(path) for path in modules()}) == set()


def test_the_rule_notices_a_circle_and_nothing_else():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {"b", "c"}


def test_no_two_public_classes_share_a_name():
    places: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(dotted(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_package_itself_imports_nothing_but_the_registration():
    tree = ast.parse((LENS / "__init__.py").read_text())
    at_import = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in at_import if node.module.startswith("lens")] == ["lens.registration"]


def test_the_rules_notice_an_upward_import(tmp_path, monkeypatch):
    for module in (sys.modules[__name__], repository):
        monkeypatch.setattr(module, "LENS", tmp_path / "lens")
    for place, line in (
        ("core/flow.py", "from lens.models.denoiser import LensTransformer2DModel"),
        ("serve/api/app.py", "from lens.serve.studio.app import mount_studio"),
    ):
        wrong = tmp_path / "lens" / place
        wrong.parent.mkdir(parents=True)
        wrong.write_text(f"def late():\n    {line}\n")
    (tmp_path / "lens" / "models").mkdir()
    (tmp_path / "lens" / "models" / "denoiser.py").touch()
    (tmp_path / "lens" / "serve" / "studio").mkdir()
    (tmp_path / "lens" / "serve" / "studio" / "app.py").touch()
    with pytest.raises(AssertionError, match="core may not import models"):
        test_imports_only_lower_floors(tmp_path / "lens" / "core" / "flow.py")
    with pytest.raises(AssertionError, match=r"api\.app may not import serve\.studio\.app"):
        test_imports_only_lower_folders_of_its_own_part(tmp_path / "lens" / "serve" / "api" / "app.py")


def test_every_module_imports_without_the_optional_packages():
    names = [dotted(path) for path in modules() if path.stem != "__main__"]
    script = f"""
import importlib, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        is_optional = name.partition(".")[0] in {OPTIONAL!r}
        return None if is_optional else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in {names!r}:
    importlib.import_module(name)
assert not {OPTIONAL!r} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = project["dependencies"] + [
        one for extra in project["optional-dependencies"].values() for one in extra
    ]
    declared = {re.split(r"[\[<>=!~; ]", one)[0].lower() for one in required}
    imported = {name.partition(".")[0] for path in modules() for name in imported_names(path)}
    others = imported - set(sys.stdlib_module_names) - {"lens"}
    assert {DISTRIBUTION_OF.get(name, name) for name in others} <= declared
