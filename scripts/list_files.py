"""Write docs/files.md: every file of the package with the first line of its module docstring.

    python scripts/list_files.py

tests/architecture/test_documents.py fails where the page is not what this script writes.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LENS = ROOT / "src" / "lens"
PAGE = ROOT / "docs" / "files.md"
HEAD = """# Files

One line for each file of the package.
`python scripts/list_files.py` writes this page from the module docstrings.
"""
DATA_FILES = {
    "data/estimate/throughput.yaml": "Throughput numbers of cost estimates: measured, published or assumed",
    "data/text_rendering/corpus.json": "Built-in words in eight scripts",
    "nano/NOTICE": "Copyright of the drawings and the letters: Noto Emoji, Apache 2.0; DejaVu",
    "nano/world/examples.json": "Prompts to try",
    "nano/world/languages/english_dense.json": "Templates of dense English captions",
    "nano/world/languages/ar.json": "Nouns and frames in Arabic",
    "nano/world/languages/de.json": "Nouns and frames in German",
    "nano/world/languages/es.json": "Nouns and frames in Spanish",
    "nano/world/languages/fr.json": "Nouns and frames in French",
    "nano/world/languages/hi.json": "Nouns and frames in Hindi",
    "nano/world/languages/it.json": "Nouns and frames in Italian",
    "nano/world/languages/ja.json": "Nouns and frames in Japanese",
    "nano/world/languages/ko.json": "Nouns and frames in Korean",
    "nano/world/languages/pt.json": "Nouns and frames in Portuguese",
    "nano/world/languages/ru.json": "Nouns and frames in Russian",
    "nano/world/languages/zh.json": "Nouns and frames in Chinese",
    "nano/world/letters.json": "Outlines of the letters on signs: DejaVu Sans Mono Bold",
    "nano/world/other_things.json": "Names of things that the nano world lacks",
    "nano/world/prompt_words.json": "Words of prompts that name nothing",
    "nano/world/sprites.json": "The drawings of the nano world as SVG",
    "prompts/styles.yaml": "Styles to start with",
    "reasoner/nano_rules/NOTICE": "Sources of the words of the rule engine",
    "reasoner/nano_rules/english_words.json": "Words of English requests, by what they mean",
    "reasoner/nano_rules/near_words.json": "Words near the names of things, for slips of typing",
    "reasoner/nano_rules/other_languages.json": "Words of requests in eleven languages",
    "reasoner/refusal_prompts/harmless.yaml": "Sixty harmless requests that sound bad",
    "reasoner/refusal_prompts/refused.yaml": "Sixty requests that should be refused",
    "reasoner/rules/languages.json": "Words by which languages are told",
    "reasoner/system_prompts/general.txt": "The system prompt for any request",
    "reasoner/system_prompts/geneval-metadata.txt": "The one that sees what GenEval's scorer looks for",
    "reasoner/system_prompts/text.txt": "The one for texts in images",
    "rl/prompts/taxonomy.yaml": "Ten categories of prompts, their kinds and thousands of subjects",
    "serve/safety/policy.yaml": "The default moderation policy",
    "serve/studio/focus.js": "Keeps the keyboard's focus on the page of the studio",
    "serve/studio/studio.css": "Looks of the studio",
    "serve/studio/studio.js": "What the studio does in the browser",
}


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, or nothing."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n")[0].rstrip(".")


def files_page() -> str:
    """Return the page: a table for each folder, folders in the order of their paths."""
    rows: dict[str, list[str]] = {}
    for path in LENS.rglob("*"):
        name = path.relative_to(LENS).as_posix()
        if not path.is_file() or "__pycache__" in path.parts or name.startswith("nano/weights/"):
            continue
        text = first_line(path) if path.suffix == ".py" else DATA_FILES[name]
        folder = path.parent.relative_to(LENS).as_posix()
        if path.stem != "__init__" or folder == ".":
            rows.setdefault(folder, []).append(f"| `{path.name}` | {text} |")
    page = HEAD
    for folder in sorted(rows):
        package = LENS / folder / "__init__.py"
        about = first_line(package) if folder != "." and package.is_file() else ""
        page += f"\n## {'lens' if folder == '.' else f'lens/{folder}'}\n\n"
        page += f"{about}.\n\n" if about else ""
        page += "| file | what it is |\n| --- | --- |\n" + "\n".join(sorted(rows[folder])) + "\n"
    return page


if __name__ == "__main__":
    PAGE.write_text(files_page())
    print(PAGE)
