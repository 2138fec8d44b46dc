"""A module imports lower floors and its own folder; optional packages only where they are used."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from repository import LENS, ROOT, dotted, imported_names, modules

FLOORS = [
    "errors",
    "config registration",
    "core llm",
    "models",
    "losses sampling data nano",
    "rl",
    "train evals serve",
    "cli",
    "__main__",
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
OPTIONAL = {
    "ray", "pyarrow", "nudenet", "rapidocr", "onnxruntime", "cv2", "faiss", "torchao", "gguf", "resvg_py",
    "tensorboard", "matplotlib", "pytest", "hypothesis", "fastapi", "starlette", "uvicorn", "multipart",
    "python_multipart", "sqlalchemy", "alembic", "prometheus_client", "gradio", "c2pa", "cryptography",
    "psycopg", "openai", "playwright",
}  # fmt: skip
DISTRIBUTION_OF = {
    "PIL": "pillow", "yaml": "pyyaml", "resvg_py": "resvg-py", "faiss": "faiss-cpu", "c2pa": "c2pa-python",
    "prometheus_client": "prometheus-client", "python_multipart": "python-multipart",
}  # fmt: skip


def floors_of(path):
    """The part of the package a file belongs to, and the parts that it imports."""
    here = path.relative_to(LENS).parts[0].removesuffix(".py")
    there = {name.split(".")[1] for name in imported_names(path) if name.startswith("lens.")}
    return here, there


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.parent != LENS or path.stem != "__init__"], ids=dotted
)
def test_imports_only_lower_floors(path):
    here, imported = floors_of(path)
    for there in imported - {here}:
        assert FLOOR_OF[there] < FLOOR_OF[here], f"{here} may not import {there}"


def test_the_package_itself_imports_nothing_but_the_registration():
    tree = ast.parse((LENS / "__init__.py").read_text())
    at_import = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in at_import if node.module.startswith("lens")] == ["lens.registration"]


def test_the_rule_notices_an_upward_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LENS", tmp_path)
    (tmp_path / "core").mkdir()
    wrong = tmp_path / "core" / "flow.py"
    wrong.write_text("def late():\n    from lens.models.denoiser import LensTransformer2DModel\n")
    with pytest.raises(AssertionError, match="core may not import models"):
        test_imports_only_lower_floors(wrong)


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
