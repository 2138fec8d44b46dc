"""Files that others wrote may be anything: every reader returns a value or raises an error for users."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lens.config import Settings, parse_overrides, read_recipe
from lens.errors import LensError, SettingError
from lens.text_files import TextError, decode_text, parse_json, parse_yaml

ROOT = Path(__file__).parents[2]
NANO = ROOT / "src" / "lens" / "nano" / "weights" / "lens-nano"
FUZZ = int(os.environ.get("LENS_FUZZ", "1"))
"""How many times more files are tried than by default; if more, other ones in each run."""
bounded = settings(
    max_examples=12 * FUZZ, deadline=None, derandomize=FUZZ == 1,
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip


def read_server(path: Path) -> Any:
    from lens.serve.settings.server import ServerSettings

    return ServerSettings.of(read_recipe(path, setting="--config"), str(path))


def read_policy(path: Path) -> Any:
    from lens.serve.safety.moderation import ModerationPolicy

    return ModerationPolicy.from_file(path)


def read_run(path: Path) -> Any:
    from lens.train.run import load_settings

    return load_settings(path)


def read_build(path: Path) -> Any:
    from lens.data.build.settings import BuildSettings

    return BuildSettings.of(read_recipe(path), str(path))


def read_prompt_set(path: Path) -> Any:
    from lens.rl.prompts.settings import parse_prompt_settings

    return parse_prompt_settings(read_recipe(path), str(path))


def read_ablation(path: Path) -> Any:
    from lens.evals import ablation

    return ablation.read_ablation(path)


def read_taxonomy(path: Path) -> Any:
    from lens.rl.prompts import taxonomy

    return taxonomy.read_taxonomy(path)


def read_rl_prompts(path: Path) -> Any:
    from lens.rl.prompts.dataset import read_prompts

    return read_prompts(path)


def read_benchmark(path: Path) -> Any:
    from lens.rl.prompts.validation import Decontamination

    return Decontamination.from_files([str(path)])


def read_eval_prompts(path: Path) -> Any:
    from lens.nano.evaluation_prompts import read_prompts

    return read_prompts(path)


def read_prompt_list(path: Path) -> Any:
    from lens.cli.arguments import gather_prompts

    return gather_prompts([], path, read_stdin=False)


def read_withdrawn(path: Path) -> Any:
    from lens.data.build.selection import withdrawn_ids

    return withdrawn_ids(path)


def read_metrics(path: Path) -> Any:
    from lens.evals.training_curves import read_panels

    return read_panels(path.rename(path.parent / "metrics.jsonl").parent)


def read_model(path: Path) -> Any:
    """Read a file of weights as `lens info` and the search for parts do."""
    from lens.models.checkpoints.components.component_file import read_component

    return read_component(path)


def read_picture(path: Path) -> Any:
    from lens.sampling.image_metadata import read_image_metadata

    return read_image_metadata(path)


RECIPES = ROOT / "recipes"
TEXT_READERS: dict[str, tuple[Callable[[Path], Any], Path]] = {
    "lens train": (read_run, RECIPES / "nano" / "vae.yaml"),
    "lens data build": (read_build, RECIPES / "data" / "folder.yaml"),
    "lens rl prompts": (read_prompt_set, RECIPES / "nano" / "rl_prompts.yaml"),
    "lens ablate": (read_ablation, RECIPES / "nano" / "ablations" / "questions" / "captions.yaml"),
    "lens serve --config": (read_server, ROOT / "deploy" / "absent.yaml"),
    "--policy": (read_policy, ROOT / "src" / "lens" / "serve" / "safety" / "policy.yaml"),
    "taxonomy": (read_taxonomy, ROOT / "absent.yaml"),
    "prompts of RL": (read_rl_prompts, ROOT / "absent.jsonl"),
    "benchmarks": (read_benchmark, ROOT / "absent.txt"),
    "lens eval --prompts": (read_eval_prompts, ROOT / "recipes" / "nano" / "prompts" / "signs.jsonl"),
    "--from-file": (read_prompt_list, ROOT / "absent.txt"),
    "withdrawn": (read_withdrawn, ROOT / "absent.txt"),
    "lens train plot": (read_metrics, ROOT / "absent.jsonl"),
}
SMALL = {
    "lens serve --config": "port: 8001\nmodels: [lens-nano]\nlimits: {prompt_characters: 90}\nray: null\n",
    "taxonomy": "animals: {pets: [cat, dog]}\nfood: {fruit: [apple]}\n",
    "prompts of RL": '{"prompt": "a fox", "rubric": {"a": "b"}}\n{"prompt": "two cats"}\n',
    "benchmarks": "a fox\ntwo cats\n",
    "--from-file": "a fox\ntwo cats\n",
    "withdrawn": f"{'a' * 64}\n# a comment\n",
    "lens train plot": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n',
}
"""Examples of kinds that the repository has no file of."""


def example(kind: str) -> str:
    path = TEXT_READERS[kind][1]
    return SMALL[kind] if kind in SMALL else path.read_text(encoding="utf-8")[:3000]


HOSTILE = (
    b"", b"\x00", b"\xff\xfe", b"[" * 700, b"{" * 700, b"a: &a [*a]\n", b"a: &a {b: *a}\n", b"!!bool x",
    b"!!timestamp x\n", b"2020-13-45", b"? [1]\n: 2\n", b"base: 5\n", b'base: "\\0"\n', b"base: [x]\n",
    b"stage: [vae]\n", b"1: 2\n", b"- 1\n", b'"\\ud800"', b"9" * 5000, b"nan", b"steps: 1e999\n", b"<html>",
    b"PK\x03\x04", b"\x80\x02cos\nsystem\n",
)  # fmt: skip
"""Contents that broke a reader of the kind, or a library below one."""
VALUES = st.sampled_from(
    (None, True, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "\0", [], [[]], {})
)


def damage(content: bytes) -> st.SearchStrategy[bytes]:
    """Return damaged forms of a file: truncated, extended, overwritten, in another encoding, another file."""
    place = st.integers(0, len(content))
    text = content.decode(errors="replace")
    encodings = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp037")
    return st.one_of(
        place.map(lambda at: content[:at]),
        st.binary(min_size=1, max_size=40).map(lambda more: content + more),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda two: content[: two[0]] + two[1] + content[two[0] + len(two[1]) :]
        ),
        st.sampled_from(encodings).map(lambda name: text.encode(name, errors="replace")),
        st.sampled_from(HOSTILE),
    )


def changed(value: Any) -> st.SearchStrategy[Any]:
    """Return values of JSON or YAML in which one value, at any depth, is another."""
    if isinstance(value, dict) and value:
        inner = st.sampled_from(sorted(value, key=str)).flatmap(
            lambda name: changed(value[name]).map(lambda other: value | {name: other})
        )
        return st.one_of(VALUES, inner, inner, VALUES.map(lambda other: value | {"another": other}))
    if isinstance(value, list) and value:
        numbers = st.integers(0, len(value) - 1)
        inner = numbers.flatmap(
            lambda at: changed(value[at]).map(lambda other: [*value[:at], other, *value[at + 1 :]])
        )
        return st.one_of(VALUES, inner, inner)
    return VALUES


def held(read: Callable[[Path], Any], folder: Path, suffix: str, content: bytes) -> None:
    """Read a file; any error but those for users fails the test."""
    path = folder / f"file{suffix}"
    path.write_bytes(content)
    try:
        read(path)
    except LensError as error:
        message = str(error)
        assert message and "Input should" not in message and "String should" not in message, message


@pytest.mark.parametrize("kind", TEXT_READERS)
def test_no_text_file_ends_in_the_exception_of_a_library(kind, tmp_path):
    read, path = TEXT_READERS[kind]
    content = example(kind).encode()

    @bounded
    @given(damage(content))
    def check(damaged: bytes) -> None:
        held(read, tmp_path, path.suffix, damaged)

    check()
    for hostile in HOSTILE:
        held(read, tmp_path, path.suffix, hostile)


@pytest.mark.parametrize("kind", [kind for kind, (_, path) in TEXT_READERS.items() if path.suffix != ".txt"])
def test_no_value_of_another_kind_ends_in_the_exception_of_a_library(kind, tmp_path):
    read, path = TEXT_READERS[kind]
    is_yaml = path.suffix == ".yaml"
    text = example(kind)
    value = yaml.safe_load(text) if is_yaml else json.loads(text.splitlines()[0])

    @bounded
    @given(changed(value))
    def check(other: Any) -> None:
        held(read, tmp_path, path.suffix, json.dumps(other).encode() + b"\n")

    check()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_read_in_every_encoding_that_its_first_bytes_name(encoding, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("steps: 3\r\nname: F\u00fcchse \u72d0\r\n".encode(encoding))
    assert read_recipe(path) == {"steps": 3, "name": "F\u00fcchse \u72d0"}
    path.write_bytes("a f\u00f6x\r\n\r\ntwo cats\r\n".encode(encoding))
    assert read_prompt_list(path) == ["a f\u00f6x", "two cats"]


def test_a_text_in_another_encoding_says_where_it_is_no_text_and_what_to_do(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("name: F\u00fcchse\n".encode("latin-1"))
    with pytest.raises(SettingError) as refused:
        read_recipe(path)
    assert str(refused.value) == (
        f"recipe is {str(path)!r}, but it needs a file in valid YAML. "
        "The file is not valid UTF-8 (byte 7). Save it as UTF-8."
    )


def test_yaml_that_is_not_valid_is_told_with_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("steps: 3\nbuckets: [1, 2\n")
    with pytest.raises(SettingError, match=r"not valid YAML \(line 3, column 1: expected ',' or '\]'"):
        read_recipe(path)


@pytest.mark.parametrize("text", [one.decode() for one in HOSTILE if one.isascii()])
def test_parsers_have_one_exception(text):
    for parse in (parse_json, parse_yaml, lambda text: decode_text(text.encode())):
        try:
            parse(text)
        except TextError as error:
            assert str(error).startswith(("is not valid", "holds"))


def small_files() -> dict[str, bytes]:
    """Return small files of weights: safetensors with a configuration, and GGUF."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]},
        }
    ).encode()

    def text(value: bytes) -> bytes:
        return len(value).to_bytes(8, "little") + value

    settings_ = text(b"general.alignment") + (4).to_bytes(4, "little") + (32).to_bytes(4, "little")
    settings_ += text(b"general.name") + (8).to_bytes(4, "little") + text(b"fox")
    entry = text(b"a") + (1).to_bytes(4, "little") + (8).to_bytes(8, "little") + bytes(4) + bytes(8)
    counts = (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    gguf = b"GGUF" + counts + settings_ + entry
    gguf += bytes(-len(gguf) % 32) + bytes(32)
    return {".safetensors": text(header) + bytes(12), ".gguf": gguf}


def test_no_picture_ends_in_the_exception_of_a_library(tmp_path):
    file, chunks = io.BytesIO(), PngInfo()
    chunks.add_itxt("lens", '{"prompt": "a fox", "seed": 1}')
    Image.new("RGB", (3, 2)).save(file, "PNG", pnginfo=chunks)

    @bounded
    @given(damage(file.getvalue()))
    def check(damaged: bytes) -> None:
        held(read_picture, tmp_path, ".png", damaged)

    check()


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_no_file_of_weights_ends_in_the_exception_of_a_library(suffix, tmp_path):
    content = small_files()[suffix]
    path = tmp_path / f"whole{suffix}"
    path.write_bytes(content)
    assert read_model(path).kind is None, "the undamaged file is read"

    @settings(bounded, max_examples=60 * FUZZ)
    @given(damage(content))
    def check(damaged: bytes) -> None:
        held(read_model, tmp_path, suffix, damaged)

    check()


@pytest.fixture(scope="module")
def linked_model(tmp_path_factory) -> Path:
    """A copy of a model's configurations, with links to its weights."""
    folder = tmp_path_factory.mktemp("model") / "nano"
    for source in (path for path in NANO.rglob("*") if path.is_file()):
        target = folder / source.relative_to(NANO)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".json" and source.name != "tokenizer.json":
            target.write_bytes(source.read_bytes())
        else:
            os.symlink(source, target)
    return folder


def describe(folder: Path) -> None:
    """Read all that the command decides from a model's files before weights are loaded."""
    from lens.cli.info import describe_model
    from lens.models.checkpoints.diffusers_folder import check_folder
    from lens.sampling.resolved_model import ResolvedModel

    describe_model(str(folder))
    check_folder(folder)
    model = ResolvedModel.of(folder)
    assert model.prompt_date and model.trained_bases and "transformer" in model.configs


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json"],
)
def test_no_configuration_of_a_model_ends_in_the_exception_of_a_library(linked_model, name):
    path = linked_model / name
    content = path.read_bytes()
    describe(linked_model)

    def read(value: bytes) -> None:
        path.write_bytes(value)
        try:
            describe(linked_model)
        except LensError as error:
            assert str(error)

    @bounded
    @given(st.one_of(damage(content), changed(json.loads(content)).map(lambda one: json.dumps(one).encode())))
    def check(damaged: bytes) -> None:
        read(damaged)

    try:
        check()
    finally:
        path.write_bytes(content)


def test_a_number_that_would_take_all_memory_is_refused_by_its_name(linked_model):
    path = linked_model / "transformer" / "config.json"
    content = path.read_bytes()
    path.write_text(json.dumps(json.loads(content) | {"num_layers": 10**9}))
    try:
        with pytest.raises(LensError, match=r"config.json has num_layers = 1000000000, but it needs a whole"):
            describe(linked_model)
    finally:
        path.write_bytes(content)


class Wide(Settings):
    """Settings of every kind of value that recipes have."""

    count: int = 1
    share: float = 0.5
    name: str = "a"
    path: Path = Path()
    flag: bool = False
    pair: tuple[int, float] = (1, 2.0)
    names: tuple[str, ...] = ()
    table: dict[int, int] = {}  # noqa: RUF012 - never changed


def test_no_sentence_of_pydantic_reaches_the_user_and_every_error_says_where_its_value_comes_from(tmp_path):
    @settings(bounded, max_examples=80 * FUZZ)
    @given(st.sampled_from(sorted(Wide.model_fields)), VALUES)
    def check(name: str, value: Any) -> None:
        override = f"{name}={json.dumps(value)}"
        try:
            Wide.of(parse_overrides([override]), "r.yaml")
        except SettingError as error:
            assert str(error).startswith(name) and f"Change --set {override}" in str(error), error
            assert " should " not in str(error) and "unable to" not in str(error).lower(), error

    check()
