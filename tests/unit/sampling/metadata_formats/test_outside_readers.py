"""What the readers that people use find in images by Lens: sd-parsers, exiftool, exifr and ExifReader."""

import json
import shutil
import subprocess
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from lens.sampling.image_metadata import ImageMetadata, LoraRecord, encode_image_file

SCRIPT = Path(__file__).with_name("outside_readers.mjs")
LATIN = ImageMetadata(
    prompt="a fox, in snow\nat dawn", negative_prompt="blur, noise", seed=7, width=48, height=32, steps=20,
    guidance=5.5, solver="euler", model="my, model: 2", model_hash="ab" * 32, dtype="float32", device="cpu",
    loras=(
        LoraRecord(path="styles/ink.safetensors", sha256="cd" * 32, weight=0.8),
        LoraRecord(path="oil-2.1.safetensors", sha256="ef" * 32, weight=1.0),
    ),
    versions={"lens": "0.1.0"},
)  # fmt: skip
CHINESE = LATIN.model_copy(update={"prompt": "\u4e24\u4e2a\u82f9 caf\u00e9 \U0001f98a", "model": "nano"})
PROMPTS = {"latin": LATIN, "chinese": CHINESE}
NAMES = [f"{name}.{suffix}" for name in PROMPTS for suffix in ("png", "jpg", "webp")]


def not_tested(reader: str, remedy: str) -> None:
    warnings.warn(f"METADATA WAS NOT READ WITH {reader.upper()}: {remedy}", stacklevel=2)
    pytest.skip(f"NOT TESTED with {reader}: {remedy}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name in NAMES:
        settings, suffix = PROMPTS[name.partition(".")[0]], name.partition(".")[2]
        with (folder / name).open("wb") as file:
            encode_image_file(Image.linear_gradient("L").resize((48, 32)), settings, suffix, file)
    return folder


@pytest.fixture(scope="module")
def exiftool(folder) -> dict[str, dict]:
    if shutil.which("exiftool") is None:
        not_tested("exiftool", "install the Debian package libimage-exiftool-perl")
    done = subprocess.run(["exiftool", "-j", "-a", *NAMES], cwd=folder, capture_output=True, check=True)
    return {one["SourceFile"]: one for one in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def node(folder) -> dict[str, dict]:
    if shutil.which("node") is None:
        not_tested("exifr and ExifReader", "install Node")
    done = subprocess.run(["node", SCRIPT, *NAMES], cwd=folder, capture_output=True, text=True)
    if "Cannot find module" in done.stderr:
        not_tested("exifr and ExifReader", "run npm install --prefix tests --no-package-lock")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def settings_of(name: str) -> ImageMetadata:
    return PROMPTS[name.partition(".")[0]]


@pytest.mark.parametrize("name", NAMES)
def test_exiftool_shows_the_text_without_a_warning(exiftool, name):
    found = exiftool[name]
    assert "Warning" not in found and "Error" not in found
    assert found["Parameters" if name.endswith("png") else "UserComment"] == settings_of(name).parameters()
    if not name.endswith("png"):
        assert found["ExifVersion"] == "0232" and found["Software"] == "lens 0.1.0"
        assert json.loads(found["ImageDescription"].removeprefix("lens:"))["seed"] == 7


@pytest.mark.parametrize("name", NAMES)
def test_sd_parsers_takes_the_settings_apart(folder, name):
    if find_spec("sd_parsers") is None:
        not_tested("sd-parsers", "install lens-t2i[test]")
    from sd_parsers import ParserManager

    found = ParserManager().parse(folder / name)
    settings, [sampler] = settings_of(name), found.samplers
    assert found.full_prompt == f"{settings.prompt} <lora:ink:0.8> <lora:oil-2.1:1>"
    assert found.full_negative_prompt == "blur, noise" and sampler.name == "Euler"
    expected = {"steps": "20", "seed": "7", "cfg_scale": "5.5", "scheduler": "Simple"}
    assert expected.items() <= sampler.parameters.items()
    assert found.metadata["Size"] == "48x32" and found.metadata["Hashes"] == {"model": "ab" * 5}
    if name.startswith("chinese"):
        assert (sampler.model.name, sampler.model.hash) == ("nano", "ab" * 5)


@pytest.mark.parametrize("name", NAMES)
def test_exif_reader_and_civitais_rules_find_settings_loras_and_hashes(node, name):
    found, settings = node[name], settings_of(name)
    assert found["text"] == settings.parameters()
    read = found["civitai"]
    assert read["prompt"] == f"{settings.prompt} <lora:ink:0.8> <lora:oil-2.1:1>"
    assert read["negativePrompt"] == "blur, noise"
    assert [read[key] for key in ("Steps", "Sampler", "CFG scale", "Seed", "Size")] == [
        "20", "Euler", "5.5", "7", "48x32"
    ]  # fmt: skip
    assert read["hashes"] == {"model": "ab" * 5} and read["Model hash"] == "ab" * 5
    assert [(lora["name"], lora["weight"], lora["hash"]) for lora in read["loras"]] == [
        ("ink", 0.8, "cd" * 6), ("oil-2.1", 1, "ef" * 6)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["latin.png", "latin.jpg", "chinese.jpg"])
def test_exifr_sees_the_text_too(node, name):
    assert node[name]["exifr"] == settings_of(name).parameters()
