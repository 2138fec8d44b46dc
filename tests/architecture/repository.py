"""The repository as the architecture tests see it: its folders, its text files, who imports whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LENS = ROOT / "src" / "lens"
FOLDERS = ("src", "tests", "docs", "recipes", "benchmarks", "scripts", ".ci")
TEXT = {".py", ".md", ".yaml", ".toml", ".txt", ""}
IGNORED = {"__pycache__", "node_modules", "weights"}


def text_files() -> list[Path]:
    """Return every text file that belongs to the project, the models' cards aside."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    top = (ROOT / name for name in ("README.md", "LICENSE", "Makefile", "pyproject.toml", "constraints.txt"))
    return sorted(
        path
        for path in (*inside, *top)
        if path.is_file() and path.suffix in TEXT and not IGNORED & {*path.parts}
    )


def modules() -> list[Path]:
    return sorted(LENS.rglob("*.py"))


def dotted(path: Path) -> str:
    """Return a module's name, such as lens.core.flow."""
    parts = path.relative_to(LENS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[str]:
    """Yield the full names of all modules that a file imports, late imports too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
