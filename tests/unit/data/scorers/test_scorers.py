"""Scorers against an independent computation, on tiny random models saved in the published layouts."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModelWithProjection,
    Siglip2Config,
    Siglip2ForImageClassification,
    Siglip2ImageProcessorPil,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from lens.config import Settings
from lens.data.scorers import nudenet
from lens.data.scorers.aesthetics import AestheticsSettings
from lens.data.scorers.base import check_columns, load_scorer, package_versions
from lens.data.scorers.classifiers import NsfwSettings, WatermarkSettings
from lens.data.scorers.clip import EmbeddingSettings
from lens.data.scorers.nudenet import EXPLICIT_CLASSES, NudeNetSettings
from lens.data.scorers.ocr import OcrSettings
from lens.data.scorers.pretrained import resolve_model_folder, scorer_device
from lens.data.scorers.registry import AnyScorerSettings
from lens.errors import CheckpointError, LensError, SettingError
from lens.nano.world.scenes import draw_scene, random_scene

SIZE_PX, PATCH_PX, WIDTH = 24, 8, 12
VISION = {
    "hidden_size": WIDTH, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": SIZE_PX, "patch_size": PATCH_PX,
}  # fmt: skip
LABELS = {0: "Neutral", 1: "Low", 2: "Medium", 3: "High"}


def pictures() -> list[Image.Image]:
    """Return three pictures of different shapes, one of them three pixels high."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((31, 44), (50, 27), (3, 40))
    ]


def of(names: dict[int, str]) -> dict:
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def pixels(image: Image.Image) -> torch.Tensor:
    """Return what SigLIP and ViT see by hand: stretched to their size, in [-1, 1]."""
    small = np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]           # (1, 3, H, W)


def square(kind):
    size = {"height": SIZE_PX, "width": SIZE_PX}
    half = [0.5, 0.5, 0.5]
    return kind(size=size, resample=Image.Resampling.BICUBIC, image_mean=half, image_std=half)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """A SigLIP with a head in the layout of the aesthetic predictor, and its parts."""
    folder = tmp_path_factory.mktemp("predictor")
    torch.manual_seed(0)
    vision = SiglipVisionModel(SiglipVisionConfig(**VISION)).eval()
    layers = (nn.Linear(WIDTH, 7), nn.Dropout(0.5), nn.Linear(7, 5), nn.Dropout(0.5), nn.Linear(5, 1))
    head = nn.Sequential(*layers)
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in vision.state_dict().items()}
    weights = {f"vision_model.{name}": tensor for name, tensor in bare.items()}
    weights |= {f"layers.layers.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    vision.config.save_pretrained(folder)
    square(SiglipImageProcessorPil).save_pretrained(folder)
    return SimpleNamespace(folder=folder, vision=vision, head=head.eval(), weights=weights)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(1)
    model = ViTForImageClassification(ViTConfig(**VISION, **of(LABELS))).eval()
    nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    square(ViTImageProcessorPil).save_pretrained(folder)
    return SimpleNamespace(folder=folder, model=model)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(2)
    text = {"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=text | {"vocab_size": 30, "projection_dim": 10},
        vision_config=VISION | {"projection_dim": 10}, projection_dim=10,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    crop = {"height": SIZE_PX, "width": SIZE_PX}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE_PX}, crop_size=crop).save_pretrained(folder)
    return SimpleNamespace(folder=folder, model=model)


def scores(settings, images=None, column=None):
    column = column or next(iter(settings.columns))
    return [row[column] for row in load_scorer(settings).score(images or pictures())]


def copied(folder, to, **changed):
    """Copy a checkpoint with some tensors changed, or left out where the new one is None."""
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors") | changed
    save_file({name: one for name, one in weights.items() if one is not None}, to / "model.safetensors")
    return str(to)


def test_aesthetics_are_the_head_of_the_pooled_vector_at_unit_length(predictor):
    found = scores(AestheticsSettings(model=str(predictor.folder)))
    with torch.no_grad():
        for image, value in zip(pictures()[:2], found, strict=False):
            pooled = predictor.vision(pixels(image)).pooler_output                # (1, D)
            assert value == pytest.approx(predictor.head(pooled / pooled.norm()).item(), abs=1e-5)
    assert np.ptp(found) > 1e-3


def test_the_nsfw_score_is_the_probability_of_the_labels_that_are_not_safe(classifier):
    model = str(classifier.folder)
    with torch.no_grad():
        logits = torch.cat([classifier.model(pixels(image)).logits for image in pictures()])   # (3, labels)
    probabilities = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    usual, asked = NsfwSettings(model=model), NsfwSettings(model=model, unsafe_labels=("LOW",))
    assert scores(usual) == pytest.approx((probabilities[:, 2] + probabilities[:, 3]).tolist(), abs=1e-4)
    assert scores(asked) == pytest.approx(probabilities[:, 1].tolist(), abs=1e-4)
    assert load_scorer(usual).version != load_scorer(asked).version


def test_a_siglip_classifier_gives_the_probability_of_a_watermark(tmp_path):
    torch.manual_seed(3)
    text = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(vision_config=VISION, text_config=text, **of({0: "No Watermark", 1: "Watermark"}))
    model = SiglipForImageClassification(config).eval()
    nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    square(SiglipImageProcessorPil).save_pretrained(tmp_path)
    with torch.no_grad():
        logits = torch.cat([model(pixels(image)).logits for image in pictures()])          # (3, 2)
    expected = torch.sigmoid(logits[:, 1] - logits[:, 0])
    assert scores(WatermarkSettings(model=str(tmp_path))) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_siglip2_classifier_that_keeps_the_shape_of_each_image_works_too(tmp_path):
    torch.manual_seed(4)
    vision = {name: value for name, value in VISION.items() if name != "image_size"} | {"num_patches": 9}
    text = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Siglip2Config(vision_config=vision, text_config=text, **of({0: "clean", 1: "watermark"}))
    model = Siglip2ForImageClassification(config).eval()
    nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    Siglip2ImageProcessorPil(patch_size=PATCH_PX, max_num_patches=12).save_pretrained(tmp_path)
    settings = WatermarkSettings(model=str(tmp_path))
    together = scores(settings)
    assert together == pytest.approx([scores(settings, [one])[0] for one in pictures()], abs=1e-5)
    assert all(0 < value < 1 for value in together)


def test_an_embedding_is_the_projected_vector_at_unit_length(clip):
    found = np.stack(scores(EmbeddingSettings(model=str(clip.folder))))                   # (3, 10)
    inputs = CLIPImageProcessorPil.from_pretrained(clip.folder)(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        features = clip.model.get_image_features(**inputs)
    features = getattr(features, "pooler_output", features).numpy()
    np.testing.assert_allclose(found, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float32 and found.shape == (3, 10)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_the_vision_half_of_clip_gives_the_same_embedding_as_the_whole(clip, tmp_path):
    CLIPVisionModelWithProjection.from_pretrained(clip.folder).save_pretrained(tmp_path)
    CLIPImageProcessorPil.from_pretrained(clip.folder).save_pretrained(tmp_path)
    half, whole = (scores(EmbeddingSettings(model=str(folder))) for folder in (tmp_path, clip.folder))
    np.testing.assert_array_equal(half, whole)


def test_a_score_does_not_depend_on_the_other_images_or_on_the_size_of_a_batch(predictor, classifier, clip):
    for kind, one in ((AestheticsSettings, predictor), (NsfwSettings, classifier), (EmbeddingSettings, clip)):
        together, by_two = (scores(kind(model=str(one.folder), batch_size=size)) for size in (3, 2))
        alone = [scores(kind(model=str(one.folder)), [image])[0] for image in pictures()]
        np.testing.assert_allclose(together, alone, atol=1e-6)
        np.testing.assert_allclose(together, by_two, atol=1e-6)


def test_images_are_preprocessed_by_the_pil_backend(predictor):
    scorer = load_scorer(AestheticsSettings(model=str(predictor.folder)))
    assert type(scorer._processor).__name__ == "SiglipImageProcessorPil"


def test_a_predictor_without_its_head_is_refused(predictor, tmp_path):
    without = {name: None for name in predictor.weights if name.startswith("layers")}
    with pytest.raises(CheckpointError, match=r"lacks layers\.layers\.0\.bias, layers\.layers\.0\.weight"):
        scores(AestheticsSettings(model=copied(predictor.folder, tmp_path, **without)))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("layers.layers.2.bias", None, r"lacks layers\.layers\.2\.bias"),
        ("layers.layers.2.weight", torch.zeros(5, 6), r"has the sizes \[\(7, 12\), \(5, 6\), \(1, 5\)\]"),
        ("vision_model.post_layernorm.bias", None, r"lacks vision_model\.post_layernorm\.bias"),
        ("vision_model.post_layernorm.bias", torch.zeros(13), "not fit its own config: .*post_layernorm"),
        ("logit_scale", torch.zeros(1), "also holds logit_scale"),
    ],
)
def test_a_predictor_is_loaded_strictly(predictor, tmp_path, name, tensor, message):
    with pytest.raises(CheckpointError, match=message):
        scores(AestheticsSettings(model=copied(predictor.folder, tmp_path, **{name: tensor})))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("classifier.weight", None), ("left.over", torch.zeros(2)), ("classifier.weight", torch.zeros(4, 13))],
)
def test_a_classifier_is_loaded_strictly(classifier, tmp_path, name, tensor):
    with pytest.raises(CheckpointError):
        scores(NsfwSettings(model=copied(classifier.folder, tmp_path, **{name: tensor})))


def test_unknown_labels_are_an_error_that_lists_the_labels_of_the_model(classifier):
    model = str(classifier.folder)
    misnamed = NsfwSettings(model=model, unsafe_labels=("high", "nude"))
    for settings in (misnamed, WatermarkSettings(model=model)):
        with pytest.raises(SettingError, match=r"unsafe_labels.*It has Neutral, Low, Medium, High\."):
            load_scorer(settings)


def test_all_labels_cannot_be_unsafe(classifier):
    with pytest.raises(SettingError, match="some, but not all"):
        load_scorer(NsfwSettings(model=str(classifier.folder), unsafe_labels=tuple(LABELS.values())))


def test_a_multi_label_classifier_is_an_error(classifier, tmp_path):
    model = copied(classifier.folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    with pytest.raises(SettingError, match="single-label classifier"):
        load_scorer(NsfwSettings(model=model))


def test_pickled_weights_are_refused(classifier, tmp_path):
    copied(classifier.folder, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="Pickled weights"):
        load_scorer(NsfwSettings(model=str(tmp_path)))


def test_a_model_that_is_neither_a_folder_nor_a_name_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"nsfw\.model is .*nowhere"):
        resolve_model_folder(NsfwSettings(model=str(tmp_path / "nowhere")))


def test_an_unknown_device_is_an_error():
    with pytest.raises(SettingError, match=r"embedding\.device is 'cuda:99'"):
        scorer_device(EmbeddingSettings(model="any", device="cuda:99"))


def test_the_version_is_another_one_for_other_weights_and_the_same_for_another_batch_size(clip, tmp_path):
    weights = load_file(clip.folder / "model.safetensors")
    other = copied(clip.folder, tmp_path, logit_scale=weights["logit_scale"] + 1)
    settings = EmbeddingSettings(model=str(clip.folder))
    version = load_scorer(settings).version
    assert load_scorer(settings.model_copy(update={"batch_size": 2})).version == version
    assert load_scorer(EmbeddingSettings(model=other)).version != version


def test_one_scorer_serves_all_of_a_process(clip):
    one, same = (EmbeddingSettings(model=str(clip.folder)) for _ in range(2))
    assert load_scorer(one) is load_scorer(same)


def test_two_scorers_cannot_fill_one_column():
    check_columns([OcrSettings(judges_watermarks=False), WatermarkSettings(model="any"), NudeNetSettings()])
    with pytest.raises(SettingError, match="the column watermark, which ocr and watermark both fill"):
        check_columns([OcrSettings(), WatermarkSettings(model="any")])
    with pytest.raises(SettingError, match="the column nsfw, which nudenet and nsfw both fill"):
        check_columns([NudeNetSettings(), NsfwSettings(model="any")])


def test_a_recipe_names_scorers_by_their_kind():
    class Recipe(Settings):
        scorers: tuple[AnyScorerSettings, ...] = ()

    said = [{"kind": "nudenet"}, {"kind": "ocr", "max_side_px": 640}, {"kind": "aesthetics", "model": "a/b"}]
    read = Recipe.of({"scorers": said}).scorers
    assert read == (NudeNetSettings(), OcrSettings(max_side_px=640), AestheticsSettings(model="a/b"))
    with pytest.raises(SettingError):
        Recipe.of({"scorers": [{"kind": "beauty"}]})
    kinds = TypeAdapter(AnyScorerSettings).json_schema()["discriminator"]["mapping"]
    assert set(kinds) == {"nudenet", "ocr", "aesthetics", "nsfw", "watermark", "embedding"}


def test_settings_of_scorers_import_no_model():
    script = """
import sys, lens.data.scorers.registry
heavy = {"torch", "transformers", "safetensors", "huggingface_hub", "nudenet", "rapidocr", "onnxruntime"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_an_error_that_says_what_to_install():
    with pytest.raises(LensError, match=r'scorer ocr needs the package no-such.*pip install .*"\.\[data\]"'):
        package_versions("ocr", "numpy", "no-such-package-of-ours")


def test_nudity_is_the_most_probable_explicit_part_and_all_that_was_seen_is_named():
    seen = [
        {"class": "FACE_FEMALE", "score": 0.9},
        {"class": "BUTTOCKS_EXPOSED", "score": 0.3},
        {"class": "FEMALE_BREAST_COVERED", "score": 0.8},
        {"class": "BUTTOCKS_EXPOSED", "score": 0.6},
        {"class": "ANUS_EXPOSED", "score": 0.5},
    ]
    names = ["FACE_FEMALE", "FEMALE_BREAST_COVERED", "BUTTOCKS_EXPOSED", "ANUS_EXPOSED"]
    assert nudenet.score_row(seen) == {"nsfw": 0.6, "nsfw_classes": names}
    assert nudenet.score_row(seen[:1] + seen[2:3])["nsfw"] == 0


def test_flat_and_drawn_images_show_no_nudity_whatever_their_shape():
    scene = draw_scene(random_scene(np.random.default_rng(0), 128, 176)).transpose(1, 2, 0)
    drawn = Image.fromarray(((scene + 1) * 127.5).astype(np.uint8))
    shapes = [Image.new("RGB", size, (220, 170, 140)) for size in ((64, 48), (1, 1), (9000, 3))]
    assert load_scorer(NudeNetSettings()).score([drawn, *shapes]) == [{"nsfw": 0.0, "nsfw_classes": []}] * 4


def test_the_detector_gets_the_array_that_it_reads_from_a_file(tmp_path):
    from nudenet.nudenet import _read_image

    image = pictures()[0]
    image.save(tmp_path / "picture.png")
    from_file = _read_image(str(tmp_path / "picture.png"))
    from_array = _read_image(nudenet.to_bgr_array(image))
    np.testing.assert_array_equal(from_file[0], from_array[0])
    assert from_file[1:] == from_array[1:]


def test_explicit_parts_are_all_that_the_detector_calls_exposed_but_four():
    from nudenet import nudenet

    exposed = {name for name in vars(nudenet)["__labels"] if name.endswith("_EXPOSED")}
    harmless = {f"{part}_EXPOSED" for part in ("MALE_BREAST", "FEET", "ARMPITS", "BELLY")}
    assert exposed - harmless == EXPLICIT_CLASSES
