"""Settings survive in every format, names never clobber, and no write is ever seen half-done."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from lens.errors import LensError, SettingError
from lens.files import write_atomic
from lens.sampling.image_metadata import (
    FileRecord,
    ImageMetadata,
    LoraRecord,
    encode_image_file,
    open_image,
    read_image_metadata,
    slug,
)

SETTINGS = ImageMetadata(
    prompt='two "red" apples \u2014 \u4e24\u4e2a\u82f9\u679c\nunder a \U0001f98a',
    negative_prompt="blur, caf\u00e9",
    seed=7,
    width=48,
    height=32,
    steps=20,
    guidance=5.0,
    solver="euler",
    model="lens-nano",
    model_hash="ab" * 32,
    loras=(LoraRecord(path="styles/ink.safetensors", sha256="cd" * 32, weight=0.8),),
    init_image=FileRecord(path="start.png", sha256="ef" * 32),
    strength=0.6,
    dtype="float32",
    device="cpu",
    threads=2,
    versions={"lens": "0.1.0", "torch": "2.13.0"},
)


def sample_image(width: int = 48, height: int = 32) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def saved(path: Path, image_format: str, settings: ImageMetadata = SETTINGS) -> Path:
    return write_atomic(path, lambda file: encode_image_file(sample_image(), settings, image_format, file))


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_metadata_round_trips_through_every_format(tmp_path, image_format):
    path = saved(tmp_path / f"a.{image_format}", image_format)
    assert read_image_metadata(path) == SETTINGS
    assert open_image(path).size == (48, 32)


def test_png_pixels_come_back_unchanged(tmp_path):
    assert open_image(saved(tmp_path / "a.png", "png")).tobytes() == sample_image().tobytes()


def test_the_parameters_text_has_the_format_that_other_tools_parse(tmp_path):
    with Image.open(saved(tmp_path / "a.png", "png")) as image:
        lines = image.text["parameters"].splitlines()
    assert lines[2] == "Negative prompt: blur, caf\u00e9"
    assert lines[1].endswith(" <lora:ink:0.8>")
    assert lines[3] == (
        "Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 5.0, Seed: 7, Size: 48x32, "
        "Model hash: ababababab, Model: lens-nano, Denoising strength: 0.6, Init image: start.png, "
        'Version: lens 0.1.0, Lora hashes: "ink: cdcdcdcdcdcd", Hashes: {"model": "ababababab"}'
    )
    looked_up = SETTINGS.loras[0].model_copy(update={"weights_sha256": "ef" * 32})
    other = SETTINGS.model_copy(update={"loras": (looked_up,)})
    assert 'Lora hashes: "ink: efefefefefef"' in other.parameters()


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_the_parameters_are_the_exif_comment_in_utf_16_and_the_document_is_the_description(
    tmp_path, image_format
):
    with Image.open(saved(tmp_path / f"a.{image_format}", image_format)) as image:
        exif = image.getexif()
        comment, description = exif.get_ifd(0x8769)[0x9286], exif[0x010E]
    assert comment == b"UNICODE\0" + SETTINGS.parameters().encode("utf-16-be")
    assert json.loads(description.removeprefix("lens:"))["prompt"] == SETTINGS.prompt


def test_a_text_chunk_is_of_the_plain_kind_where_latin_1_suffices(tmp_path):
    latin = SETTINGS.model_copy(update={"prompt": "caf\u00e9"})
    plain, other = (saved(tmp_path / f"{number}.png", "png", one).read_bytes()
                    for number, one in enumerate((latin, SETTINGS)))  # fmt: skip
    assert b"tEXtparameters\0caf\xe9 " in plain and b"tEXtlens\0{" in plain and b"iTXt" not in plain
    assert b"iTXtparameters\0" in other and b"tEXtlens\0{" in other


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_files_of_the_first_versions_are_read(tmp_path, image_format):
    exif = Image.Exif()
    exif[0x010E] = b"a fox\nSteps: 20, Sampler: euler, CFG scale: 5.0, Seed: 7, Size: 48x32"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps(SETTINGS.model_dump(mode="json")).encode()
    sample_image().save(tmp_path / f"old.{image_format}", exif=exif)
    assert read_image_metadata(tmp_path / f"old.{image_format}") == SETTINGS


def test_damaged_exif_data_is_told_as_no_metadata(tmp_path):
    broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(20)
    sample_image().save(tmp_path / "torn.jpg", exif=broken)
    with pytest.raises(LensError, match=r"torn\.jpg has no metadata"):
        read_image_metadata(tmp_path / "torn.jpg")


def directory(exif: bytes, offset: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Return the fields of EXIF data at an offset, with their types."""
    fields, file = TiffImagePlugin.ImageFileDirectory_v2(exif[:8]), io.BytesIO(exif)
    file.seek(offset)
    fields.load(file)
    return fields


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_exif_has_the_types_and_the_version_that_its_standard_asks_for(tmp_path, image_format):
    with Image.open(saved(tmp_path / f"a.{image_format}", image_format)) as image:
        exif = image.info["exif"].removeprefix(b"Exif\0\0")
    fields = directory(exif, directory(exif, 8)[0x8769])
    kinds = {tag: fields.tagtype[tag] for tag in (0x9000, 0x9286)}
    assert kinds == {0x9000: TiffTags.UNDEFINED, 0x9286: TiffTags.UNDEFINED} and fields[0x9000] == b"0232"


def test_an_image_of_another_program_is_refused_as_without_metadata(tmp_path):
    sample_image().save(tmp_path / "plain.jpg")
    with pytest.raises(LensError, match=r"plain\.jpg has no metadata of Lens"):
        read_image_metadata(tmp_path / "plain.jpg")


def test_an_unknown_key_in_the_metadata_is_named(tmp_path):
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("lens", SETTINGS.model_dump_json()[:-1] + ', "sharpness": 3}')
    sample_image().save(tmp_path / "newer.png", pnginfo=chunks)
    with pytest.raises(SettingError, match=r"sharpness.*newer\.png"):
        read_image_metadata(tmp_path / "newer.png")


@pytest.mark.parametrize("text", ["{", "[1]", '{"prompt": "a"}'])
def test_damaged_metadata_is_an_error_that_names_the_file(tmp_path, text):
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("lens", text)
    sample_image().save(tmp_path / "torn.png", pnginfo=chunks)
    with pytest.raises(LensError, match=r"torn\.png"):
        read_image_metadata(tmp_path / "torn.png")


def test_missing_unreadable_and_cut_off_images_have_messages_of_their_own(tmp_path):
    whole = saved(tmp_path / "whole.png", "png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.png").write_text("not an image")
    for name, said in [
        ("none.png", "does not exist"),
        ("cut.png", "cannot be read"),
        ("words.png", "not a readable image"),
        (".", "is a folder"),
    ]:
        with pytest.raises(LensError, match=said):
            open_image(tmp_path / name)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Two red apples, left of a fox!", "two-red-apples-left-of-a-fox"),
        ("../../etc/passwd", "etc-passwd"),
        ("\u4e24\u4e2a \u82f9\u679c", "\u4e24\u4e2a-\u82f9\u679c"),
        ("?!", "picture"),
        ("a" * 90, "a" * 60),
        ("word " * 30, "-".join(["word"] * 12)),
    ],
)
def test_a_slug_is_a_readable_safe_file_name(prompt, name):
    assert slug(prompt) == name


def test_metadata_too_long_for_exif_is_refused_with_the_remedy(tmp_path):
    long = SETTINGS.model_copy(update={"prompt": "fox " * 20_000})
    with pytest.raises(LensError, match="Use png"):
        saved(tmp_path / "a.jpg", "jpg", long)
    assert not list(tmp_path.iterdir())
    assert read_image_metadata(saved(tmp_path / "a.png", "png", long)) == long
