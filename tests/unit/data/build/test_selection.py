"""Selection: scores of models and of pixels, near duplicates, withdrawn and held-out samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from lens.data.build.filters import KEPT
from lens.data.build.inventory import Inventory, take_inventory
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import score_part, scores_folder, unscored_parts
from lens.data.build.selection import ScoreTable, Selection, select_samples, withdrawn_ids
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import SourceError
from lens.data.io.image_decoding import sample_id
from lens.data.io.parquet import part_path, read_parts

OPEN = {"min_area_px": 0, "max_nsfw": None, "min_aesthetics": None, "max_watermark": None}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A CLIP of a few thousand random weights in the published layout."""
    vision = {
        "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 3,
        "image_size": 28, "patch_size": 14, "projection_dim": 10,
    }  # fmt: skip
    text = {"hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=10)).save_pretrained(folder)
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return str(folder)


def textured(seed: int, height: int = 540, width: int = 560) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(root: Path, name: str, image: Image.Image, quality: int = 90, licence: str = "") -> str:
    """Save an image with its licence beside it; return its id."""
    path = root / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    path.with_suffix(".json").write_text(json.dumps({"caption": name, "licence": licence}))
    return sample_id(path.read_bytes())


def measured(root: Path, out: Path, **changes) -> tuple[BuildSettings, Inventory, Path]:
    source = {"kind": "folder", "path": str(root)}
    values = {"out": str(out), "source": source, "filters": OPEN, "part_size": 3}
    settings = BuildSettings.of(values | changes)
    inventory = take_inventory(settings)
    scores = out / "scores" / settings.inventory_id
    reader = EntryReader(settings.all_sources, out / "downloads")
    for part in unscored_parts(scores, inventory.num_parts, settings.scorers):
        score_part(inventory, part, scores, reader, settings.scorers)
    return settings, inventory, scores


def fallen(selection: Selection) -> dict[str, str]:
    pairs = zip(selection.ids.astype(str), selection.reasons, strict=True)
    return {str(name): str(reason) for name, reason in pairs if reason != KEPT}


def test_a_scorer_that_is_added_later_scores_every_image_once_and_the_others_none(clip, tmp_path):
    for seed in range(4):
        save(tmp_path / "in", f"{seed}", textured(seed))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    measured(tmp_path / "in", tmp_path / "out")
    pixels = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*.parquet")}
    scorers = [{"kind": "embedding", "model": clip}]
    settings, inventory, scores = measured(tmp_path / "in", tmp_path / "out", scorers=scorers)
    assert {path: path.stat().st_mtime_ns for path in pixels} == pixels
    found = read_parts(scores / scores_folder(settings.scorers[0]), inventory.num_parts).to_pylist()
    assert [row["embedding"] is None for row in found] == [False] * 4 + [True], "a row for every entry"
    assert np.linalg.norm(found[2]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert unscored_parts(scores, inventory.num_parts, settings.scorers) == []
    part_path(scores / scores_folder(settings.scorers[0]), 1).unlink()
    assert unscored_parts(scores, inventory.num_parts, settings.scorers) == [1]


def test_near_duplicates_are_found_by_embedding_where_hashes_are_not_compared(clip, tmp_path):
    for seed in range(3):
        save(tmp_path / "in", f"{seed}", textured(seed))
    copy = save(tmp_path / "in", "copy", textured(1), quality=60)
    scorers = [{"kind": "embedding", "model": clip}]
    duplicates = {"max_hash_bits": None, "min_cosine": 0.99999}
    measures = measured(tmp_path / "in", tmp_path / "out", scorers=scorers, duplicates=duplicates)
    assert fallen(select_samples(*measures)) == {copy: "near_duplicate"}
    none = {"max_hash_bits": None}
    assert fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out", duplicates=none))) == {}


def test_of_copies_of_one_size_the_better_licence_is_kept_then_the_one_with_more_bytes(tmp_path):
    good = save(tmp_path / "in", "free", textured(0), quality=60, licence="CC0-1.0")
    poor = save(tmp_path / "in", "bound", textured(0), quality=95, licence="all rights reserved")
    free = {"licences": ["cc0", "CC-BY"]}
    assert fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out", duplicates=free))) == {
        poor: "near_duplicate"
    }
    assert fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out"))) == {good: "near_duplicate"}
    larger = save(tmp_path / "in", "large", textured(0, 1080, 1120), licence="all rights reserved")
    other = select_samples(*measured(tmp_path / "in", tmp_path / "new", duplicates=free))
    assert fallen(other) == {good: "near_duplicate", poor: "near_duplicate"}, "size comes first"
    assert larger not in fallen(other)


def test_an_image_that_would_lose_more_than_a_third_is_dropped_with_the_share(tmp_path):
    save(tmp_path / "in", "wide", textured(0, 512, 1530))  # three to one loses just under a third
    wider = save(tmp_path / "in", "wider", textured(1, 512, 1700))
    tower = save(tmp_path / "in", "tower", textured(2, 4000, 512))
    little = save(tmp_path / "in", "little", textured(3, 300, 300))
    found = select_samples(*measured(tmp_path / "in", tmp_path / "out"))
    assert fallen(found) == {wider: "cut_too_much", tower: "cut_too_much", little: "no_bucket"}
    detail = dict(zip(found.ids.astype(str), found.details, strict=True))[tower]
    assert detail == "74% of 512 x 4000 for 1:2"
    anything = {"filters": OPEN | {"max_cut": None}}
    assert fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out", **anything))) == {
        little: "no_bucket"
    }


def test_of_copies_the_one_that_fits_a_bucket_is_kept(tmp_path):
    tower = textured(0, 512, 512).resize((512, 2000))
    large = save(tmp_path / "in", "stretched", tower)
    save(tmp_path / "in", "square", tower.resize((512, 512)))
    assert fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out"))) == {large: "cut_too_much"}


def test_signs_that_differ_in_their_words_alone_stay_without_ocr_and_their_copies_fall(tmp_path):
    font, wanted = ImageFont.load_default(size=90), {}
    for word in ("EXIT", "OPEN", "MILK", "BEER", "RICE"):
        sign = Image.new("RGB", (512, 512), (30, 90, 160))
        draw = ImageDraw.Draw(sign)
        draw.rectangle((40, 40, 471, 471), outline="white", width=12)
        draw.text((256, 256), word, "white", font, anchor="mm")
        save(tmp_path / "in", word, sign)
        wanted[save(tmp_path / "in", f"{word} again", sign, quality=50)] = "near_duplicate"
    # All signs are within 32 bits, and the copies of each come after those of others.
    duplicates = {"max_hash_bits": 32}
    found = select_samples(*measured(tmp_path / "in", tmp_path / "out", duplicates=duplicates))
    assert fallen(found) == wanted


def test_signs_that_differ_in_their_words_alone_stay_where_ocr_reads_them(tmp_path):
    font = ImageFont.load_default(size=40)
    names = {}
    for word in ("EXIT", "OPEN", "MILK"):
        sign = textured(1, 512, 512)  # the detail hash does not see small words there
        ImageDraw.Draw(sign).text((256, 256), word, "white", font, anchor="mm")
        names[word] = save(tmp_path / "in", word, sign)
    names["copy"] = save(tmp_path / "in", "copy", sign, quality=50)
    blind = {"max_hash_bits": 32}
    without = fallen(select_samples(*measured(tmp_path / "in", tmp_path / "out", duplicates=blind)))
    assert len(without) == 3
    scorers = [{"kind": "ocr"}]
    seen = measured(tmp_path / "in", tmp_path / "out", duplicates=blind, scorers=scorers)
    assert fallen(select_samples(*seen)) == {names["copy"]: "near_duplicate"}


def test_withdrawn_samples_are_dropped_first_and_held_out_matches_before_near_duplicates(
    clip, tmp_path
):
    names = [save(tmp_path / "in", f"{seed}", textured(seed)) for seed in range(4)]
    save(tmp_path / "test", "reference", textured(2, 270, 280), quality=70)
    (tmp_path / "list.txt").write_text(f"# by request\n{names[0]}\n")
    settings, inventory, scores = measured(
        tmp_path / "in", tmp_path / "out", withdrawn=str(tmp_path / "list.txt"),
        scorers=[{"kind": "embedding", "model": clip}], duplicates={"min_cosine": 0.99999},
    )  # fmt: skip
    held_out = measured(tmp_path / "test", tmp_path / "held", scorers=[settings.scorers[0].model_dump()])
    selection = select_samples(settings, inventory, scores, ScoreTable.of(*held_out))
    assert fallen(selection) == {names[0]: "withdrawn", names[2]: "held_out"}
    assert selection.details[list(selection.ids.astype(str)).index(names[2])].startswith("like ")


@pytest.mark.parametrize(("text", "says"), [("abc\n", "line 1, is 'abc'"), (None, "is not a file")])
def test_an_invalid_list_of_withdrawn_samples_is_an_error(text, says, tmp_path):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SourceError, match=says):
        withdrawn_ids(path)
