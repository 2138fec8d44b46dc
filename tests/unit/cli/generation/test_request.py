"""What is said wins over what an image recorded; what does not fit together is refused."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from lens.cli.generation.request import GenerateArguments
from lens.core.noise import MAX_SEED
from lens.errors import LensError, SettingError
from lens.models.checkpoints.hashing import content_hash
from lens.sampling.image_metadata import (
    FileRecord,
    ImageMetadata,
    SheetRecord,
    encode_image_file,
    library_versions,
)

RECORDED = ImageMetadata(
    prompt="a fox",
    negative_prompt="blur",
    seed=7,
    width=80,
    height=48,
    steps=20,
    guidance=5.0,
    solver="ab2",
    model="lens-nano",
    model_hash="ab" * 32,
    dtype="float32",
    device="cpu",
    threads=2,
    versions=library_versions(),
)


def like(settings: ImageMetadata = RECORDED, **said) -> GenerateArguments:
    return GenerateArguments(**said).fill_from_image(Path("fox.png"), settings)


def test_like_fills_every_argument_that_is_not_given():
    wanted = like()
    assert wanted.prompts == ["a fox"]
    assert (wanted.first_seed, wanted.image_size, wanted.steps) == (7, (80, 48), 20)
    assert (wanted.guidance, wanted.solver, wanted.negative_prompt, wanted.threads) == (5.0, "ab2", "blur", 2)
    assert (wanted.model, wanted.model_hash, wanted.loras) == ("lens-nano", "ab" * 32, ())
    assert wanted.num_images == 1


def test_zero_and_empty_count_as_given():
    wanted = like(seed="0", guidance=0.0, negative_prompt="", quantize="none")
    assert (wanted.first_seed, wanted.guidance) == (0, 0.0)
    assert (wanted.negative_prompt, wanted.quantization) == ("", None)


@pytest.mark.parametrize("said", [{"aspect_ratio": "1:2"}, {"base_resolution": 192}, {"size": "64x64"}])
def test_any_size_option_replaces_the_recorded_size(said):
    wanted = like(**said)
    assert {name: getattr(wanted, name) for name in said} == said
    assert wanted.size == said.get("size")


def test_another_model_need_not_have_the_recorded_hash():
    assert like(model="lens").model_hash is None


def test_a_recorded_source_image_must_have_its_recorded_content(tmp_path):
    start = tmp_path / "start.png"
    Image.new("RGB", (16, 16)).save(start)
    used = FileRecord(path=str(start), sha256=content_hash(start))
    settings = RECORDED.model_copy(update={"init_image": used, "mask": used, "strength": 0.4})
    wanted = like(settings)
    assert (wanted.init_image, wanted.mask, wanted.strength) == (start, start, 0.4)
    start.write_bytes(b"other")
    with pytest.raises(LensError, match=r"changed since. Add --init-image"):
        like(settings)


def test_a_new_source_image_drops_the_mask_and_strength_of_the_old_one(tmp_path):
    gone = FileRecord(path=str(tmp_path / "gone.png"), sha256="cd" * 32)
    settings = RECORDED.model_copy(update={"init_image": gone, "mask": gone, "strength": 0.4})
    wanted = like(settings, init_image=Path("new.png"))
    assert (wanted.init_image, wanted.mask, wanted.strength) == (Path("new.png"), None, None)


def test_other_versions_are_warned_of_by_name(caplog):
    caplog.set_level(logging.WARNING)
    like(RECORDED.model_copy(update={"versions": library_versions() | {"torch": "1.0"}}))
    assert "fox.png was generated with torch 1.0" in caplog.text
    caplog.clear()
    like()
    assert not caplog.records


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"size": "64x64", "base_resolution": 64}, "--size"),
        ({"steps": 1001}, "--steps"),
        ({"guidance": float("inf")}, "--cfg"),
        ({"seed": str(MAX_SEED + 1)}, "--seed"),
        ({"seed": "-2"}, "--seed"),
        ({"seed": "1.5"}, "--seed"),
        ({"mask": Path("m.png")}, "--mask"),
        ({"init_image": Path("s.png"), "strength": 0.0}, "--strength"),
        ({"init_image": Path("s.png"), "strength": 1.01}, "--strength"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_the_options_name(said, names):
    with pytest.raises(SettingError, match=names):
        GenerateArguments(prompts=["a fox"], **said).check()


@pytest.mark.parametrize("said", [{}, {"seed": "random"}, {"seed": "-1"}])
def test_without_a_seed_a_random_one_is_drawn_once(said):
    drawn = [GenerateArguments(prompts=["a fox"], **said).check() for _ in range(4)]
    assert len({one.first_seed for one in drawn}) > 1 and all(one.is_seed_random for one in drawn)
    assert drawn[0].first_seed == drawn[0].first_seed


def test_a_seed_is_fixed_by_its_number_or_by_the_image_that_is_repeated():
    assert GenerateArguments(seed="0").first_seed == 0 and not GenerateArguments(seed="0").is_seed_random
    assert GenerateArguments(seed=str(MAX_SEED)).check().first_seed == MAX_SEED
    older = RECORDED.model_copy(update={"seed": 2**60})
    assert (like(older).first_seed, like(older).is_seed_random) == (2**60, False)
    assert like(seed="random").is_seed_random


def test_several_prompts_and_a_count_multiply():
    assert GenerateArguments(prompts=["a", "b", "c"], num_images_per_prompt=4).num_images == 12


def test_a_sheet_is_refused_with_the_names_of_its_images(tmp_path):
    files, images = ("a.png", None, "b.png"), (RECORDED, None, RECORDED)
    sheet = SheetRecord(width=160, height=48, files=files, images=images)
    path = tmp_path / "sheet.png"
    with path.open("wb") as file:
        encode_image_file(
            Image.new("RGB", (160, 48)), RECORDED.model_copy(update={"sheet": sheet}), "png", file
        )
    with pytest.raises(LensError, match=r"sheet of several images\. .* --like: a\.png, b\.png"):
        GenerateArguments(like=path).complete()
