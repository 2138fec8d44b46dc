"""Components in files of their own: known by content, found in a tree, with the tokenizers inside them."""

import shutil

import pytest
import torch
from model_files import ENCODER, TEXT_WIDTH, write_gguf_encoder, write_nvfp4_encoder, write_tree
from safetensors.torch import load_file, save_file
from tiny_models import tiny_denoiser, tiny_encoder, tiny_tokenizer, tiny_vae
from tokenizers import Tokenizer

from lens.errors import CheckpointError
from lens.models.checkpoints.components.component_file import misfit, read_component
from lens.models.checkpoints.components.search import ComponentSearch, is_component_tree
from lens.models.checkpoints.components.tokenizer import load_tokenizer, load_tokenizer_backend
from lens.models.checkpoints.single_file import save_denoiser
from lens.models.checkpoints.vae import save_vae_single_file
from lens.models.prompt_template import PromptTemplate

PROMPTS = ["a fox", "Don't stop:  12345\n\n<|end|> <|return|>", "\u00e9t\u00e9 \u4e2d\u6587 \U0001f98a", ""]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("comfy"))


@pytest.fixture(scope="module")
def gguf_encoder(tmp_path_factory):
    return write_gguf_encoder(tmp_path_factory.mktemp("gguf") / "gpt-oss.gguf")


# What a file holds.


def test_each_file_is_known_by_its_tensors_and_has_the_sizes_that_fit(tree, gguf_encoder):
    denoiser, encoder, vae = (read_component(path) for path in tree[1:])
    other = read_component(gguf_encoder)
    kinds = [file.component for file in (denoiser, encoder, vae, other)]
    assert kinds == ["transformer", "text_encoder", "vae", "text_encoder"]
    assert denoiser.sizes == {"text_width": TEXT_WIDTH, "num_layers": 5, "token_channels": 16}
    assert encoder.sizes == other.sizes == {"text_width": TEXT_WIDTH, "num_layers": 6}
    assert vae.sizes == {"token_channels": 16}
    assert [file.has_tokenizer for file in (denoiser, encoder, vae, other)] == [False, True, False, True]
    assert [misfit(denoiser, file) for file in (encoder, vae, other)] == [None] * 3


def test_a_folder_is_known_by_its_config(tmp_path):
    tiny_encoder(**ENCODER).save_pretrained(tmp_path / "e")
    tiny_vae().save_pretrained(tmp_path / "v")
    tiny_denoiser().save_pretrained(tmp_path / "d")
    encoder, vae, denoiser = (read_component(tmp_path / name) for name in "evd")
    assert (encoder.component, encoder.sizes) == ("text_encoder", {"text_width": TEXT_WIDTH, "num_layers": 6})
    assert (vae.component, vae.sizes) == ("vae", {"token_channels": 16})
    assert (denoiser.component, denoiser.sizes["num_layers"]) == ("transformer", 5)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_component(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 32}, "its features have width 32, and the denoiser reads 48"),
        ({"num_hidden_layers": 4}, "it has 4 layers, and the denoiser reads 5"),
    ],
)
def test_an_encoder_that_does_not_fit_says_why(tree, tmp_path, changes, reason):
    path = write_nvfp4_encoder(tmp_path / "e.safetensors", **changes)
    assert misfit(read_component(tree.denoiser), read_component(path)) == reason


def test_a_vae_of_other_latents_says_so(tree, tmp_path):
    save_vae_single_file(tiny_vae(latent_channels=3), tmp_path / "v.safetensors")
    reason = misfit(read_component(tree.denoiser), read_component(tmp_path / "v.safetensors"))
    assert reason == "its latents have 12 channels, and the denoiser's have 16"


@pytest.mark.parametrize("file", ["denoiser", "text_encoder", "vae"])
def test_half_of_the_tensors_are_no_component(tree, tmp_path, file):
    state = load_file(getattr(tree, file))
    save_file(dict(list(state.items())[: len(state) // 2]), tmp_path / "half.safetensors")
    assert read_component(tmp_path / "half.safetensors").component is None


def test_an_encoder_without_its_experts_is_no_component(tree, tmp_path):
    """As the first of three files is that a published folder has."""
    state = {name: value for name, value in load_file(tree.text_encoder).items() if "experts" not in name}
    save_file(state, tmp_path / "rest.safetensors")
    assert read_component(tmp_path / "rest.safetensors").component is None


def test_a_file_that_an_index_lists_with_others_is_no_component(tree, tmp_path):
    tiny_denoiser().save_pretrained(tmp_path, max_shard_size="300KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert {read_component(path).component for path in shards} == {None}
    assert read_component(shards[0]).title == "one of several files that belong together; give their folder"
    shutil.copy(tree.vae, tmp_path)
    assert read_component(tmp_path / tree.vae.name).component == "vae"


# The search.


def test_the_tree_around_a_denoiser_is_searched_by_content(tree):
    denoiser = read_component(tree.denoiser)
    search = ComponentSearch(tree.denoiser)
    assert search.root == tree.root / "models"
    assert search.find("text_encoder", denoiser) == [tree.text_encoder]
    assert search.find("vae", denoiser) == [tree.vae]
    for start in (tree.root, tree.root / "models", tree.denoiser.parent):
        assert is_component_tree(start)
        assert [file.path for file in ComponentSearch(start).denoisers()] == [tree.denoiser]


def test_files_of_other_models_and_broken_ones_are_skipped_in_silence(tree, tmp_path, caplog):
    root = tmp_path / "comfy"
    shutil.copytree(tree.root, root)
    folder = root / "models" / "text_encoders"
    save_file({"input_blocks.0.0.weight": torch.zeros(3)}, folder / "sdxl.safetensors")
    (folder / "pickled.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (folder / "old.ckpt").write_bytes(b"\x80\x02")
    (folder / "again").symlink_to(root / "models")
    (folder / "gone.safetensors").symlink_to(root / "nowhere")
    write_nvfp4_encoder(folder / "another.safetensors", hidden_size=32)
    denoiser = read_component(root / tree.denoiser.relative_to(tree.root))
    search = ComponentSearch(denoiser.path)
    found = search.find("text_encoder", denoiser)
    assert [path.name for path in found] == ["gpt.safetensors"]
    assert len(search.files) == 5 and caplog.text == ""


def test_of_several_that_fit_the_smallest_comes_first(tree, tmp_path):
    root = tmp_path / "comfy"
    shutil.copytree(tree.root, root)
    folder = root / "models" / "clip"
    folder.mkdir()
    write_gguf_encoder(folder / "a.gguf")
    write_nvfp4_encoder(folder / "b.safetensors", has_tokenizer=False)
    denoiser = read_component(root / tree.denoiser.relative_to(tree.root))
    found = ComponentSearch(denoiser.path).find("text_encoder", denoiser)
    assert [path.name for path in found] == ["b.safetensors", "gpt.safetensors", "a.gguf"]
    sizes = [path.stat().st_size for path in found]
    assert sizes == sorted(sizes)
    with_tokenizer = ComponentSearch(denoiser.path).find("text_encoder", denoiser, needs_tokenizer=True)
    assert with_tokenizer == found[1:]


def test_without_a_tree_only_the_files_own_folder_is_searched(tree, tmp_path):
    (tmp_path / "deep").mkdir()
    denoiser = read_component(shutil.copy(tree.denoiser, tmp_path) and tmp_path / tree.denoiser.name)
    shutil.copy(tree.vae, tmp_path / "deep")
    shutil.copy(tree.text_encoder, tmp_path)
    search = ComponentSearch(denoiser.path)
    assert search.find("text_encoder", denoiser) == [tmp_path / "gpt.safetensors"]
    with pytest.raises(CheckpointError) as caught:
        search.find("vae", denoiser)
    message = str(caught.value)
    assert f"none was found in {tmp_path} (2 files of weights)" in message
    assert "needs a FLUX.2 VAE" in message and "Name it with --vae FILE (vae= in Python)" in message


def test_what_does_not_fit_is_listed_where_nothing_fits(tree, tmp_path):
    path = tmp_path / "d.safetensors"
    save_denoiser(tiny_denoiser(), path)
    shutil.copy(tree.text_encoder, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"gpt\.safetensors does not fit, as its features have width 48"
    ):
        ComponentSearch(path).find("text_encoder", read_component(path))


# Tokenizers.


def test_a_tokenizer_reads_prompts_alike_wherever_it_is(tree, gguf_encoder, tmp_path):
    own = tiny_tokenizer()
    text = own.backend_tokenizer.to_str()
    own.save_pretrained(tmp_path / "tokenizer")
    expected = PromptTemplate(own).tokenize(PROMPTS)
    places = [
        tree.text_encoder,
        gguf_encoder,
        tmp_path / "tokenizer",
        tmp_path / "tokenizer" / "tokenizer.json",
    ]
    for place in [*places, tmp_path]:
        loaded = load_tokenizer(place)
        assert torch.equal(PromptTemplate(loaded).tokenize(PROMPTS).input_ids, expected.input_ids), place
        assert (loaded.pad_token_id, loaded.eos_token_id) == (own.pad_token_id, own.eos_token_id)
        assert _counts(load_tokenizer_backend(place)) == _counts(Tokenizer.from_str(text))


def _counts(backend):
    return [len(backend.encode(prompt, add_special_tokens=False).ids) for prompt in PROMPTS]


def test_a_gguf_tokenizer_of_another_kind_is_refused(tmp_path):
    path = write_gguf_encoder(tmp_path / "e.gguf", split="llama-bpe")
    with pytest.raises(
        CheckpointError, match=r"'gpt2' with the split 'llama-bpe', but GPT-OSS has .*'gpt-4o'"
    ):
        load_tokenizer(path)


def test_a_file_without_a_tokenizer_names_the_option(tree, tmp_path):
    plain = write_gguf_encoder(tmp_path / "e.gguf", has_tokenizer=False)
    for path in (plain, tree.vae):
        with pytest.raises(CheckpointError, match=r"has no tokenizer inside.*--tokenizer"):
            load_tokenizer(path)
    (tmp_path / "tokenizer.json").write_text('{"model": 5}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no tokenizer that can be read"):
        load_tokenizer(tmp_path / "tokenizer.json")
