"""Whatever a file says, it is read as settings in range, as none, or refused with a LensError; and soon."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lens.core.noise import MAX_SEED
from lens.errors import LensError
from lens.sampling.image_metadata import read_image_settings
from lens.sampling.metadata_formats.comfyui import comfyui_settings
from lens.sampling.metadata_formats.foreign_settings import ForeignSettings
from lens.sampling.metadata_formats.reading import describe_image, foreign_settings

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = 'a fox <lora:ink:1>\nNegative prompt: x\nSteps: 4, Seed: 5, CFG scale: 2, Size: 48x32, Model: "a, b"'
DREAM = '"a fox [x]" -s 4 -S5 -W 48 -H32 -C 2 -A k_euler'
IDS = st.sampled_from("1234")
LINKS = st.tuples(IDS, st.integers(0, 1)).map(list)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
KEYS = st.sampled_from((
    "seed", "noise_seed", "steps", "cfg", "positive", "negative", "latent_image", "samples", "guider",
    "noise", "sigmas", "conditioning", "text", "value", "string_a", "string_b", "delimiter", "width",
    "height", "lora_name", "ckpt_name", "guidance", "denoise",
))  # fmt: skip
NODES = st.fixed_dictionaries({
    "class_type": st.sampled_from(("KSampler", "X", None, 5)),
    "inputs": st.dictionaries(KEYS, LINKS | SCALARS | st.lists(SCALARS, max_size=3), max_size=9) | st.none(),
})  # fmt: skip
NAMES = st.sampled_from((
    "positive_prompt", "prompt", "negative_prompt", "seed", "steps", "width", "height", "cfg_scale", "model",
    "loras", "image", "app_id", "sui_image_params", "guidance_scale", "resolution", "odd",
))  # fmt: skip
INNER_NAMES = st.sampled_from(("prompt", "name", "model", "lora", "weight", "class_type", "inputs"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER_NAMES, inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES)
KINDS = st.sampled_from(("JPEG", "WEBP"))


def check(found: ForeignSettings | None) -> None:
    if found is None:
        return
    assert found.seed is None or 0 <= found.seed <= MAX_SEED
    assert found.steps is None or 1 <= found.steps <= 1000
    assert found.guidance is None or 0 <= found.guidance <= 100
    assert (found.width is None) == (found.height is None)
    assert found.width is None or (found.width % 16 == 0 and found.width > 0)
    assert found.summary.isprintable() and len(found.summary) < 12_000


def read_text(text: str) -> ForeignSettings | None:
    image = Image.new("RGB", (4, 4))
    image.info["parameters"] = text
    assert describe_image(image)
    return foreign_settings(image)


@given(st.sampled_from((TEXT, DREAM)), st.integers(0, 120), st.integers(0, 120), st.text(max_size=12))
@FEW
def test_texts_that_are_cut_and_changed(text, start, end, inserted):
    check(read_text(text[:start] + inserted + text[end:]))


@given(DOCUMENTS)
@FEW
def test_documents_with_values_of_any_type(document):
    check(read_text(json.dumps(document)))


@given(st.dictionaries(IDS, NODES, min_size=1))
@FEW
def test_graphs_with_links_to_anywhere(graph):
    check(comfyui_settings(graph))


def test_what_grows_without_end_is_cut():
    def double(number: int) -> dict:
        link = [str(number + 1), 0]
        return {"class_type": "Join", "inputs": {"string_a": link, "string_b": link, "delimiter": link}}

    graph = {str(number): double(number) for number in range(100)}
    graph["100"] = {"class_type": "Text", "inputs": {"value": "a fox" * 1000}}
    graph["s"] = {"class_type": "KSampler", "inputs": {
        "steps": 4, "positive": ["t", 0], "latent_image": ["e", 0], "seed": ["0", 0]}}  # fmt: skip
    graph["t"] = {"class_type": "CLIPTextEncode", "inputs": {"text": ["0", 0]}}
    graph["e"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48}}
    check(comfyui_settings(graph))
    deep: list = []
    for _ in range(400):
        deep = [deep]
    check(read_text(json.dumps({"positive_prompt": "a fox", "loras": deep, "odd": {"weight": deep}})))
    check(read_text("[" * 100_000))
    check(read_text('{"a":' * 100_000))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files") / "a.jpg"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of EXIF data that ends too soon
@given(place=st.integers(0, 260), value=st.binary(min_size=1, max_size=3), kind=KINDS)
@FEW
def test_files_with_changed_bytes(written, place, value, kind):
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"1": {"class_type": "X", "inputs": {}}}'
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + TEXT.encode("utf-16-be")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif.tobytes())
    content = bytearray(file.getvalue())
    begin = content.index(b"MM\0*") + place
    content[begin : begin + len(value)] = value
    written.write_bytes(content)
    try:
        found = read_image_settings(written)
    except LensError:
        return
    assert isinstance(found, ForeignSettings)
    check(found)
