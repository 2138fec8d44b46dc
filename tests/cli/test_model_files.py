"""`lens generate` and `lens info` with models of any files, and images that record every part of them."""

import json
import shutil

import pytest
from model_files import write_gguf_encoder, write_tree
from PIL import Image
from safetensors.torch import load_file, save_file

from lens.models.checkpoints.hashing import file_hash
from lens.models.prompt_date import PINNED_DATE
from lens.sampling.image_metadata import read_image_metadata

SMALL = ("--size", "32x48", "--steps", "1", "--seed", "3")


@pytest.fixture(scope="module")
def written(tmp_path_factory, no_progress_bars):
    return write_tree(tmp_path_factory.mktemp("comfy"))


@pytest.fixture
def tree(written, tmp_path):
    """A tree of its own, to be changed."""
    root = tmp_path / "comfy"
    shutil.copytree(written.root, root)
    return type(written)(root, *(root / path.relative_to(written.root) for path in written[1:]))


def pixels(path):
    with Image.open(path) as image:
        return image.tobytes()


def test_a_denoisers_file_draws_and_says_what_it_found(lens, tree):
    ran = lens("generate", "a fox", "--model", tree.denoiser, *SMALL, "--out", "x.png")
    assert (ran.status, ran.out) == (0, "x.png\n"), ran.err
    said = "Turbo, 4 steps, guidance 1; text encoder gpt.safetensors, VAE latents.safetensors"
    assert f"lens: lens_turbo_bf16.safetensors: {said}\n" in ran.err


def test_every_part_is_recorded_and_like_gives_the_same_pixels(lens, tree, tmp_path):
    encoder = write_gguf_encoder(tmp_path / "gpt-oss.gguf")
    files = ("--model", tree.root, "--text-encoder", encoder, "--prompt-date", "2026-04-02")
    assert lens("generate", "a fox", *files, *SMALL, "--out", "x.png").status == 0
    metadata = read_image_metadata(tmp_path / "x.png")
    assert (metadata.model, metadata.prompt_date) == (str(tree.denoiser), "2026-04-02")
    expected = {"transformer": tree.denoiser, "text_encoder": encoder, "vae": tree.vae, "tokenizer": encoder}
    assert metadata.parts is not None
    assert {part: (record.path, record.sha256) for part, record in metadata.parts.items()} == {
        part: (str(path), file_hash(path)) for part, path in expected.items()
    }
    assert lens("generate", "--like", "x.png", "--out", "y.png").status == 0
    assert pixels("y.png") == pixels("x.png")
    assert read_image_metadata(tmp_path / "y.png") == metadata
    assert lens("generate", "--like", "x.png", "--prompt-date", PINNED_DATE, "--out", "z.png").status == 0
    assert pixels("z.png") != pixels("x.png"), "the tokens of the prompt attend to the date"


@pytest.mark.parametrize(
    ("part", "option"), [("denoiser", "--model"), ("text_encoder", "--text-encoder"), ("vae", "--vae")]
)
def test_a_part_that_changed_or_is_gone_is_named_with_its_option(lens, tree, part, option):
    assert lens("generate", "a fox", "--model", tree.denoiser, *SMALL, "--out", "x.png").status == 0
    path = getattr(tree, part)
    from lens.models.checkpoints.reader import read_header

    save_file(load_file(path), path, read_header(path)[1] | {"note": "another file of the same weights"})
    line = lens("generate", "--like", "x.png", "--out", "y.png").error_line
    assert f"generated with {path}, which has changed since. Add {option} {path}" in line
    assert lens("generate", "--like", "x.png", option, path, "--out", "y.png").status == 0
    assert pixels("y.png") == pixels("x.png")
    path.unlink()
    line = lens("generate", "--like", "x.png", "--out", "z.png").error_line
    assert f"generated with {path}, which does not exist. Restore it, or replace it with {option}." in line


def test_another_kind_of_model_replaces_all_parts(lens, tree, tiny_model):
    assert lens("generate", "a fox", "--model", tree.denoiser, *SMALL, "--out", "x.png").status == 0
    shutil.rmtree(tree.root)
    assert lens("generate", "--like", "x.png", "--model", tiny_model, "--out", "y.png").status == 0


def test_a_part_of_a_folder_is_replaced_and_recorded(lens, tree, tiny_model, tmp_path):
    replaced = ("--model", tiny_model, "--vae", tree.vae)
    assert lens("generate", "a fox", *replaced, *SMALL, "--out", "x.png").status == 0
    metadata = read_image_metadata(tmp_path / "x.png")
    assert metadata.model == str(tiny_model) and metadata.parts is not None
    assert metadata.parts["vae"].path == str(tree.vae)
    assert metadata.parts["transformer"].path == str(tiny_model / "transformer")
    assert lens("generate", "--like", "x.png", "--out", "y.png").status == 0
    assert pixels("y.png") == pixels("x.png")
    line = lens("generate", "--like", "x.png", "--model", "lens-nano", "--out", "z.png").error_line
    assert "does not fit" in line


def test_an_image_of_an_older_version_is_read_with_the_pinned_date(lens, tiny_model, tmp_path):
    assert lens("generate", "a fox", "--model", tiny_model, *SMALL, "--out", "x.png").status == 0
    with Image.open("x.png") as image:
        document = json.loads(image.info["lens"])
        assert document["prompt_date"] == PINNED_DATE and "parts" not in document
    from PIL import PngImagePlugin

    del document["prompt_date"]
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("lens", json.dumps(document))
    with Image.open("x.png") as image:
        image.save("old.png", pnginfo=chunks)
    assert lens("generate", "--like", "old.png", "--out", "y.png").status == 0
    assert pixels("y.png") == pixels("x.png")
    assert read_image_metadata(tmp_path / "y.png").prompt_date == PINNED_DATE


@pytest.mark.parametrize("text", ["2026-13-01", "tomorrow"])
def test_a_date_that_is_none_is_refused_before_anything_is_loaded(lens, text):
    line = lens("generate", "a fox", "--prompt-date", text).error_line
    assert f"--prompt-date is '{text}', but it needs a date as in {PINNED_DATE}, or \"today\"." in line


def test_a_swapped_or_missing_part_is_one_line(lens, tree):
    line = lens("generate", "a fox", "--model", tree.denoiser, "--vae", tree.text_encoder).error_line
    assert "It is a GPT-OSS text encoder; give it as --text-encoder." in line
    tree.vae.unlink()
    line = lens("generate", "a fox", "--model", tree.denoiser).error_line
    assert "needs a FLUX.2 VAE, and none was found in" in line and "--vae FILE" in line


def test_info_describes_quantized_files_and_trees(lens, tree, tmp_path):
    path = write_gguf_encoder(tmp_path / "gpt-oss.gguf")
    facts = json.loads(lens("info", path, "--json").out)
    assert facts["kind"] == "a GPT-OSS text encoder in GGUF naming" and facts["has_tokenizer"]
    assert facts["stored_bytes"] == {"F32": 4 * facts["numbers"]}
    facts = json.loads(lens("info", tree.text_encoder, "--json").out)
    assert facts["kind"] == "an NVFP4 GPT-OSS text encoder" and facts["has_tokenizer"]
    assert set(facts["stored_bytes"]) == {"F32", "U8", "F8_E4M3"}
    facts = json.loads(lens("info", tree.root, "--json").out)
    assert facts["folder"] == str(tree.denoiser)
    assert set(facts["components"]) == {"denoiser", "text_encoder", "vae"}


def test_links_to_files_without_a_suffix_are_kept(lens, tree, tmp_path):
    """As the hub's cache has them: a name with a suffix that links to a file named by its hash."""
    encoder = write_gguf_encoder(tree.text_encoder.with_suffix(".gguf"))
    for path in (tree.denoiser, encoder):
        path.symlink_to(path.rename(tmp_path / file_hash(path)))
    files = ("--model", tree.denoiser, "--text-encoder", encoder)
    assert lens("generate", "a fox", *files, *SMALL, "--out", "x.png").status == 0
    metadata = read_image_metadata(tmp_path / "x.png")
    assert metadata.model == str(tree.denoiser)
    assert metadata.parts is not None and metadata.parts["text_encoder"].path == str(encoder)
    assert lens("generate", "--like", "x.png", "--out", "y.png").status == 0
    assert pixels("y.png") == pixels("x.png")
