"""The frozen encoders of a model folder: captions are encoded with the date that the model states."""

import pytest
import torch
from PIL import Image
from tiny_models import CAPTURED_LAYERS, tiny_pipeline

from lens.data.image_text_dataset import ImageTextSample
from lens.models.prompt_date import PINNED_DATE
from lens.models.prompt_template import encode_prompts
from lens.train.data.encode import Encoders, encode_into_cache
from lens.train.data.latent_cache import LatentCache


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, pipeline = tmp_path_factory.mktemp("models"), tiny_pipeline()
    for name, date in (("pinned", PINNED_DATE), ("dated", "2031-07-04")):
        pipeline.register_to_config(prompt_date=date)
        pipeline.save_pretrained(root / name)
    return root


def encoders_of(folder):
    return Encoders(folder, CAPTURED_LAYERS, torch.device("cpu"), torch.float32)


def test_captions_are_encoded_with_the_date_of_the_model(folders):
    for name, date in (("pinned", PINNED_DATE), ("dated", "2031-07-04")):
        encoders = encoders_of(folders / name)
        expected, _ = encode_prompts(
            encoders.text_encoder, encoders.tokenizer, ["a fox"], CAPTURED_LAYERS, date=date
        )
        found = encoders.encode_caption("a fox")  # (L, T, E)
        torch.testing.assert_close(found, torch.cat(expected).to(torch.bfloat16), rtol=0, atol=0)


def test_the_progress_of_encoding_is_shown_on_stderr_alone(folders, tmp_path, capsys):
    encoders, cache = encoders_of(folders / "pinned"), LatentCache(tmp_path / "store")
    sample = ImageTextSample("1", "a fox", Image.new("RGB", (32, 32), "red"))
    assert len(encode_into_cache(cache, encoders, [sample])) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "Encoding into store" in printed.err


def test_features_of_another_date_have_other_keys_in_a_latent_cache(folders):
    assert encoders_of(folders / "pinned").revision != encoders_of(folders / "dated").revision
