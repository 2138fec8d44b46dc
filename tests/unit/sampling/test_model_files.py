"""Models of any files: parts named, found or replaced, with their defaults, hashes and images."""

import hashlib
import shutil
from datetime import date

import pytest
import torch
from model_files import ENCODER, TEXT_WIDTH, write_gguf_encoder, write_nvfp4_encoder, write_tree
from safetensors.torch import load_file, save_file
from tiny_models import tiny_denoiser, tiny_encoder, tiny_pipeline, tiny_scheduler, tiny_tokenizer, tiny_vae

from lens import LensPipeline, LensTransformer2DModel
from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.single_file import save_denoiser
from lens.models.checkpoints.text_encoder import load_text_encoder
from lens.models.prompt_date import PINNED_DATE
from lens.sampling.loader import (
    load_denoiser_of,
    load_scheduler_of,
    load_text_encoder_of,
    load_tokenizer_of,
    load_vae_of,
)
from lens.sampling.resolved_model import ResolvedModel


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("comfy"))


@pytest.fixture
def copied(tree, tmp_path):
    """A tree of its own, to be changed."""
    shutil.copytree(tree.root, tmp_path / "comfy")
    root = tmp_path / "comfy"
    return type(tree)(root, *(root / path.relative_to(tree.root) for path in tree[1:]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in diffusers layout."""
    path = tmp_path_factory.mktemp("models") / "lens-tiny"
    tiny_pipeline().save_pretrained(path)
    return path


def same_image(one, other):
    """Whether two pipelines draw the same, up to rounding: mapped weights lie at other addresses."""
    return torch.allclose(draw(one), draw(other), atol=2e-5, rtol=0)


def draw(pipeline, **settings):
    pipeline.set_progress_bar_config(disable=True)
    request = {"num_inference_steps": 2, "guidance_scale": 1, "base_resolution": 64, "output_type": "pt"}
    request |= settings
    return pipeline("a fox", generator=torch.Generator().manual_seed(0), **request).images


# Resolution.


def test_the_parts_of_a_file_are_found_around_it_and_said(tree, caplog):
    for source in (tree.denoiser, tree.root, tree.root / "models"):
        model = ResolvedModel.of(source)
        assert model.folder is None and model.parts == {
            "transformer": tree.denoiser, "text_encoder": tree.text_encoder, "vae": tree.vae,
            "tokenizer": tree.text_encoder,
        }  # fmt: skip
    assert model.recorded_name == str(tree.denoiser)
    with caplog.at_level("INFO", "lens"):
        model.log_summary()
    assert caplog.messages == [
        "lens_turbo_bf16.safetensors: Turbo, 4 steps, guidance 1; text encoder gpt.safetensors, "
        "VAE latents.safetensors"
    ]


def test_a_choice_among_several_is_said_with_the_others(copied, caplog):
    write_gguf_encoder(copied.text_encoder.with_name("other.gguf"))
    with caplog.at_level("INFO", "lens"):
        ResolvedModel.of(copied.denoiser).log_summary()
    assert caplog.messages[1] == (
        "2 files hold a GPT-OSS text encoder that fits. The smallest is used, "
        f"{copied.text_encoder}; --text-encoder names another: {copied.text_encoder.with_name('other.gguf')}."
    )


def test_the_configs_of_files_are_those_of_the_modules(tree):
    configs = ResolvedModel.of(tree.denoiser).configs
    assert configs["transformer"]["enc_hidden_dim"] == configs["text_encoder"]["hidden_size"] == TEXT_WIDTH
    assert configs["text_encoder"]["num_hidden_layers"] == 6
    assert configs["vae"]["latent_channels"] == 4


@pytest.mark.parametrize(
    ("name", "variant", "defaults"),
    [
        ("lens_mxfp8.safetensors", "lens", (20, 5.0, 1024)),
        ("Lens-Turbo-Q4_K.safetensors", "turbo", (4, 1.0, 1024)),
        ("lens_base_bf16.safetensors", "base", (50, 5.0, 1024)),
        ("turbo-lens.safetensors", "lens", (20, 5.0, 1024)),
        ("lens-nano-turbo.safetensors", "nano-turbo", (4, 1.0, 128)),
    ],
)
def test_defaults_come_from_the_name_of_the_file(copied, name, variant, defaults):
    model = ResolvedModel.of(copied.denoiser.rename(copied.denoiser.with_name(name)))
    assert (model.variant, model.defaults) == (variant, defaults)


def test_a_name_that_says_nothing_leaves_it_to_its_folder(copied):
    folder = copied.denoiser.parent / "lens-base"
    folder.mkdir()
    model = ResolvedModel.of(copied.denoiser.rename(folder / "model_q8.safetensors"))
    assert model.variant == "base"


def test_defaults_in_the_metadata_come_before_the_name(copied):
    path = copied.denoiser
    metadata = {"lens_config": _metadata(path)["lens_config"], "lens_variant": "base", "default_steps": "7"}
    save_file(load_file(path), path, metadata | {"default_guidance": "2.5", "prompt_date": "2026-04-02"})
    model = ResolvedModel.of(path)
    assert (model.variant, model.defaults) == ("base", (7, 2.5, 1024))
    assert model.prompt_date == "2026-04-02"
    pipeline = LensPipeline.from_single_file(path)
    assert pipeline.defaults == (7, 2.5, 1024) and pipeline.config.prompt_date == "2026-04-02"


def _metadata(path):
    from lens.models.checkpoints.reader import read_header

    return read_header(path)[1]


def test_several_denoisers_are_listed_and_none_is_taken(copied):
    shutil.copy(copied.denoiser, copied.denoiser.with_name("lens_mxfp8.safetensors"))
    with pytest.raises(
        SettingError, match=r"It has 2; give one: .*lens_mxfp8\.safetensors, .*lens_turbo_bf16"
    ):
        ResolvedModel.of(copied.root)


def test_a_tree_without_a_denoiser_says_how_much_was_looked_at(copied):
    copied.denoiser.unlink()
    with pytest.raises(CheckpointError, match=r"models and its folders has no Lens denoiser \(2 files"):
        ResolvedModel.of(copied.root)


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("text_encoder", "vae", r"^text_encoder is .*It is a FLUX\.2 VAE; give it as --vae\.$"),
        ("vae", "text_encoder", r"^vae is .*It is a GPT-OSS text encoder; give it as --text-encoder\.$"),
        ("vae", "denoiser", r"^vae is .*It is a Lens denoiser; give it as --model\.$"),
        ("tokenizer", "vae", r"^tokenizer is .*needs a folder with tokenizer\.json"),
    ],
)
def test_a_swapped_file_is_named_for_what_it_is(tree, option, file, message):
    with pytest.raises(SettingError, match=message):
        ResolvedModel.of(tree.denoiser, **{option: getattr(tree, file)})


def test_a_file_that_is_no_denoiser_is_named_for_what_it_is(tree, tmp_path):
    with pytest.raises(
        SettingError, match=r"model is .*a whole Lens denoiser.*It is a FLUX\.2 VAE; give it as --vae"
    ):
        ResolvedModel.of(tree.vae)
    path = tmp_path / "x.safetensors"
    save_file({"double_stream_modulation_img.lin.weight": torch.zeros(3)}, path)
    with pytest.raises(SettingError, match=r"It is probably a FLUX\.2 denoiser\."):
        ResolvedModel.of(path)
    with pytest.raises(CheckpointError, match=r"does not exist"):
        ResolvedModel.of(tmp_path / "gone.safetensors")
    with pytest.raises(SettingError, match=r"vae is .*a file or folder that exists"):
        ResolvedModel.of(tree.denoiser, vae=tmp_path / "gone.safetensors")


def test_a_named_part_that_does_not_fit_is_refused_before_anything_is_loaded(tree, tmp_path):
    path = write_nvfp4_encoder(tmp_path / "e.safetensors", hidden_size=32)
    with pytest.raises(CheckpointError, match=r"does not fit .*: its features have width 32"):
        ResolvedModel.of(tree.denoiser, text_encoder=path)


def test_a_tokenizer_is_needed_and_can_come_from_elsewhere(copied, tmp_path):
    bare = write_gguf_encoder(tmp_path / "bare.gguf", has_tokenizer=False)
    model = ResolvedModel.of(copied.denoiser, text_encoder=bare)
    assert model.component_path("tokenizer") == copied.text_encoder, "another encoder of the tree has one"
    copied.text_encoder.unlink()
    with pytest.raises(CheckpointError, match=r"bare\.gguf has no tokenizer inside.*--tokenizer"):
        ResolvedModel.of(copied.denoiser, text_encoder=bare)
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    for place in (tmp_path / "tok", tmp_path / "tok" / "tokenizer.json"):
        model = ResolvedModel.of(copied.denoiser, text_encoder=bare, tokenizer=place)
        assert model.component_path("tokenizer") == place


def test_a_plain_folder_of_gpt_oss_brings_its_tokenizer(tree, tmp_path):
    tiny_encoder(**ENCODER).save_pretrained(tmp_path / "gpt-oss-20b")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt-oss-20b")
    model = ResolvedModel.of(tree.denoiser, text_encoder=tmp_path / "gpt-oss-20b")
    assert model.parts["text_encoder"] == model.parts["tokenizer"] == tmp_path / "gpt-oss-20b"
    assert model.configs["text_encoder"]["hidden_size"] == TEXT_WIDTH
    assert model.summary is not None and f"text encoder {tmp_path.name}/gpt-oss-20b, VAE" in model.summary
    assert draw(LensPipeline.from_pretrained(model)).shape == (1, 3, 64, 64)


def test_components_of_diffusers_folders_serve_as_parts(tree, folder):
    """A model folder stands for its component, and the folder beside an encoder for the tokenizer."""
    model = ResolvedModel.of(tree.denoiser, vae=folder)
    assert model.component_path("vae") == folder / "vae"
    path = folder / "text_encoder"
    with pytest.raises(CheckpointError, match="its features have width 24"):
        ResolvedModel.of(tree.denoiser, text_encoder=path)


# Hashes.


def test_each_part_has_a_hash_and_they_make_the_models(copied):
    model = ResolvedModel.of(copied.denoiser)
    hashes = {part: model.part_hash(part) for part in model.parts}
    digest = hashlib.sha256(copied.vae.read_bytes()).hexdigest()
    assert hashes["vae"] == digest and hashes["tokenizer"] == hashes["text_encoder"]
    save_file(load_file(copied.vae), copied.vae, _metadata(copied.vae) | {"note": "other bytes"})
    again = ResolvedModel.of(copied.denoiser)
    assert again.content_hash != model.content_hash and again.part_hash("vae") != digest


def test_a_folder_keeps_its_name_hash_and_defaults(folder):
    model = ResolvedModel.of(folder)
    assert (model.parts, model.notes, model.summary, model.prompt_date) == ({}, (), None, PINNED_DATE)
    assert model.content_hash == content_hash(folder) and model.recorded_name == str(folder)
    assert model.component_path("vae") == folder / "vae"
    assert model.part_hash("vae") == content_hash(folder / "vae")


# Pipelines.


def test_components_load_one_at_a_time_from_wherever_they_are(tree):
    model = ResolvedModel.of(tree.denoiser)
    assert load_denoiser_of(model, torch.float32).config["enc_hidden_dim"] == TEXT_WIDTH
    assert load_text_encoder_of(model).dtype == torch.bfloat16
    assert load_vae_of(model).config["latent_channels"] == 4
    assert load_tokenizer_of(model).get_vocab() == tiny_tokenizer().get_vocab()
    assert load_scheduler_of(model).config == tiny_scheduler().config


def test_a_pipeline_of_files_gives_the_image_of_their_components(tree):
    loaded = LensPipeline.from_single_file(tree.denoiser, torch_dtype=torch.float32)
    assert loaded.defaults == (4, 1.0, 1024), "a turbo, by its name"
    by_hand = LensPipeline(
        tiny_scheduler(), tiny_vae(), load_text_encoder(tree.text_encoder, torch.float32), tiny_tokenizer(),
        tiny_denoiser(enc_hidden_dim=TEXT_WIDTH),
    )  # fmt: skip
    assert same_image(loaded, by_hand)
    assert same_image(LensPipeline.from_pretrained(tree.root, torch_dtype=torch.float32), by_hand)


def test_a_gguf_encoder_and_its_vocabulary_give_the_image_of_the_plain_one(tree, tmp_path):
    path = write_gguf_encoder(tmp_path / "gpt-oss.gguf")
    loaded = LensPipeline.from_single_file(tree.denoiser, text_encoder=path, torch_dtype=torch.float32)
    tiny_encoder(**ENCODER).save_pretrained(tmp_path / "plain")
    # Shapes do not show the rotary embedding, so the released one is used.
    encoder = load_text_encoder(path, torch.float32)
    by_hand = LensPipeline.from_single_file(
        str(tree.denoiser), text_encoder=encoder, tokenizer=tiny_tokenizer(), vae=tiny_vae(),
        torch_dtype=torch.float32,
    )  # fmt: skip
    assert same_image(loaded, by_hand)


def test_bfloat16_is_the_dtype_of_a_single_file_unless_another_is_given(tree):
    loaded = LensPipeline.from_single_file(tree.denoiser)
    assert {loaded.transformer.dtype, loaded.text_encoder.dtype, loaded.vae.dtype} == {torch.bfloat16}
    other = LensPipeline.from_single_file(
        tree.denoiser, dtype={"vae": torch.float32, "default": torch.float16}
    )
    assert (other.transformer.dtype, other.vae.dtype) == (torch.float16, torch.float32)


def test_loaded_parts_need_no_files(copied):
    copied.text_encoder.unlink()
    copied.vae.unlink()
    encoder = tiny_encoder(**ENCODER)
    loaded = LensPipeline.from_single_file(
        copied.denoiser, text_encoder=encoder, vae=tiny_vae(), tokenizer=tiny_tokenizer()
    )
    assert loaded.text_encoder is encoder


def test_the_class_of_the_denoiser_reads_a_single_file_too(tree):
    loaded = LensTransformer2DModel.from_single_file(tree.denoiser, torch_dtype=torch.float32)
    expected = LensPipeline.from_single_file(tree.denoiser, torch_dtype=torch.float32).transformer
    for name, weight in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


@pytest.mark.parametrize("name", ["config", "original_config", "local_files_only", "quantization_config"])
def test_settings_of_diffusers_that_do_not_apply_are_refused_by_name(tree, name):
    with pytest.raises(SettingError, match=rf"^{name} is .*left out of from_single_file"):
        LensPipeline.from_single_file(tree.denoiser, **{name: "x"})
    with pytest.raises(SettingError, match=rf"^{name} is .*left out of from_single_file"):
        LensTransformer2DModel.from_single_file(tree.denoiser, **{name: "x"})
    with pytest.raises(SettingError, match=rf"^{name} is|^low_cpu_mem_usage is"):
        LensPipeline.from_pretrained(tree.denoiser, low_cpu_mem_usage=True)


def test_what_is_no_file_is_refused_with_the_method_to_use(folder):
    with pytest.raises(SettingError, match="Use from_pretrained"):
        LensPipeline.from_single_file(folder)
    with pytest.raises(SettingError, match="hf download"):
        LensPipeline.from_single_file("https://some.where/lens.safetensors")
    with pytest.raises(CheckpointError, match="lens-nano does not exist"):
        LensPipeline.from_single_file("lens-nano")
    with pytest.raises(
        SettingError, match=r"transformer is 'x\.gguf'.*a loaded component.*as the model itself"
    ):
        LensPipeline.from_pretrained(folder, transformer="x.gguf")


def test_a_part_of_a_folder_is_replaced_by_a_file(folder, tmp_path):
    save_denoiser(tiny_denoiser(), tmp_path / "d.safetensors")
    from lens.models.checkpoints.vae import save_vae_single_file

    save_vae_single_file(tiny_vae(seed=9), tmp_path / "v.safetensors")
    model = ResolvedModel.of(folder, vae=tmp_path / "v.safetensors")
    assert model.summary == "lens-tiny: Lens, 20 steps, guidance 5; VAE v.safetensors"
    assert model.content_hash != content_hash(folder)
    replaced = LensPipeline.from_pretrained(model)
    for other in (tiny_vae(seed=9), tmp_path / "v.safetensors", str(tmp_path / "v.safetensors")):
        assert same_image(replaced, LensPipeline.from_pretrained(folder, vae=other))
    assert not same_image(replaced, LensPipeline.from_pretrained(folder))


def test_a_tokenizer_with_more_ids_than_the_encoder_is_refused(tree, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"another model's: its largest id is \d+, and the text encoder has"
    ):
        LensPipeline.from_single_file(
            tree.denoiser,
            text_encoder=write_nvfp4_encoder(
                tmp_path / "e.safetensors", vocab_size=300, pad_token_id=None, eos_token_id=None
            ),
        )


# The prompt's date.


def test_the_date_is_the_models_and_a_request_replaces_it(folder, tmp_path):
    assert LensPipeline.from_pretrained(folder).config.prompt_date == PINNED_DATE
    stated = tmp_path / "stated"
    tiny_pipeline(prompt_date="2026-04-02").save_pretrained(stated)
    assert ResolvedModel.of(stated).prompt_date == "2026-04-02"
    assert LensPipeline.from_pretrained(stated).config.prompt_date == "2026-04-02"
    for extra in ({}, {"low_cpu_mem_usage": True}):
        other = LensPipeline.from_pretrained(stated, prompt_date="2025-01-31", **extra)
        assert other.config.prompt_date == "2025-01-31"
    today = ResolvedModel.of(stated, prompt_date="today").prompt_date
    assert today in (date.today().isoformat(), today) and len(today) == 10
    with pytest.raises(SettingError, match="prompt_date is 'tomorrow'"):
        LensPipeline.from_pretrained(stated, prompt_date="tomorrow")


def test_a_pipeline_encodes_with_its_date(folder):
    pipeline = tiny_pipeline()
    features = {}
    for day in (PINNED_DATE, "2027-12-24"):
        other = LensPipeline(**pipeline.components, prompt_date=day)
        features[day] = other.encode_prompt("a fox")[0][-1]  # the first layer sees only nearby tokens
    from lens.models.prompt_template import encode_prompts

    layers = pipeline.transformer.config.selected_layer_index
    for day, found in features.items():
        expected, _ = encode_prompts(pipeline.text_encoder, pipeline.tokenizer, ["a fox"], layers, date=day)
        assert torch.equal(found, expected[-1])
    assert not torch.equal(*features.values())


@pytest.mark.parametrize("layout", ["single-f32", "gguf-bf16"])
def test_a_converted_file_keeps_what_its_model_states(tree, tmp_path, layout):
    from lens.models.checkpoints.convert import convert

    folder = tmp_path / "model"
    wide = {"enc_hidden_dim": TEXT_WIDTH, "inner_dim": 64, "num_attention_heads": 4}
    components = tiny_pipeline().components | {"transformer": tiny_denoiser(**wide)}
    LensPipeline(
        **components, lens_variant="base", default_guidance=3.5, prompt_date="2026-04-02"
    ).save_pretrained(folder)
    suffix = "gguf" if layout.startswith("gguf") else "safetensors"
    path = convert(folder, tmp_path / f"turbo.{suffix}", layout, part="denoiser")
    model = ResolvedModel.of(path, text_encoder=tree.text_encoder, vae=tree.vae)
    assert (model.variant, model.defaults, model.prompt_date) == ("base", (50, 3.5, 1024), "2026-04-02")
    again = convert(path, tmp_path / "again.safetensors", "single-bf16")
    assert ResolvedModel.of(again, text_encoder=tree.text_encoder, vae=tree.vae).defaults == (50, 3.5, 1024)
