"""Plain diffusers loads Lens after `import lens`, in any order; importing lens alone costs nearly nothing."""

import importlib
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

import lens

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(code: str, *arguments: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a tiny model in diffusers layout, saved by the pipeline itself."""
    from tiny_models import tiny_pipeline

    folder = tmp_path_factory.mktemp("tiny-lens")
    tiny_pipeline().save_pretrained(folder)
    return folder


def test_importing_lens_imports_nothing_large():
    loaded = run("import sys, lens; print(*sorted({name.partition('.')[0] for name in sys.modules}))").split()
    assert not {"torch", "numpy", "diffusers", "transformers", "pydantic", "yaml", "PIL"} & set(loaded)


WHAT_LENS_EXPORTS = """
import sys, lens
assert lens.resolve_resolution(base_resolution=1024, aspect_ratio="16:9") == (768, 1376)
assert lens.RESOLUTION_BUCKETS[1024]["1:1"] == (1024, 1024)
assert "torch" not in sys.modules
assert set(lens.__all__) <= set(dir(lens))
from lens import LensTransformer2DModel, LensGptOssEncoder, LensPipeline
print(LensTransformer2DModel.__module__, LensGptOssEncoder.__module__, LensPipeline.__module__)
try:
    lens.Nothing
except AttributeError as error:
    print(error)
"""
WHAT_THE_LIBRARIES_FIND = """
import pickle, sys, types
import lens, diffusers, transformers
assert diffusers.LensPipeline is lens.LensPipeline
assert diffusers.LensTransformer2DModel is lens.LensTransformer2DModel
assert transformers.LensGptOssEncoder is lens.LensGptOssEncoder
assert not hasattr(transformers, "LensPipeline") and not hasattr(diffusers, "LensGptOssEncoder")
assert isinstance(diffusers, types.ModuleType) and diffusers.__name__ == "diffusers"
assert diffusers.AutoencoderKLFlux2.__name__ == "AutoencoderKLFlux2"
import transformers
assert pickle.loads(pickle.dumps(transformers)) is transformers
for library in (diffusers, transformers):
    try:
        library.NoSuchClass
    except AttributeError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What one interpreter prints of the classes: those that Lens exports, then those of the libraries."""
    return run(WHAT_LENS_EXPORTS + WHAT_THE_LIBRARIES_FIND).splitlines()


def test_what_lens_exports_is_imported_when_it_is_used(told):
    assert told[:2] == [
        "lens.models.denoiser lens.models.checkpoints.text_encoder lens.sampling.pipeline",
        "module 'lens' has no attribute 'Nothing'",
    ]


def test_the_published_index_names_the_libraries_as_upstream_does(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "LensPipeline"
    assert index["text_encoder"] == ["transformers", "LensGptOssEncoder"]
    assert index["transformer"] == ["diffusers", "LensTransformer2DModel"]


LOADED_BY_DIFFUSERS = """
import sys, torch, diffusers
pipeline = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
print(*(type(part).__module__ for part in (pipeline, pipeline.text_encoder, pipeline.transformer)))
"""
ORDERS = {
    "lens first": "import lens; import diffusers, transformers",
    "lens last": "from diffusers import DiffusionPipeline, AutoencoderKLFlux2; import transformers, lens",
    "a submodule last": "import lens, diffusers; import transformers.models.gpt_oss.modeling_gpt_oss",
}


EACH_ORDER = """
import json, os, sys
import accelerate, huggingface_hub, numpy, PIL.Image, regex, safetensors.torch, tokenizers, torch
assert not {"lens", "diffusers", "transformers"} & set(sys.modules)
code = """ + repr(LOADED_BY_DIFFUSERS) + """
for name, imports in json.loads(sys.argv[2]).items():
    print(name, flush=True)
    if os.fork() == 0:
        exec(imports + code, {})
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded_in_each_order(folder) -> list[str]:
    """What processes that import the libraries in each order print; torch is imported once for all."""
    return run(EACH_ORDER, str(folder), json.dumps(ORDERS)).splitlines()


@pytest.mark.parametrize("order", ORDERS)
def test_plain_diffusers_loads_a_lens_folder_whatever_was_imported_first(order, loaded_in_each_order):
    assert loaded_in_each_order[loaded_in_each_order.index(order) + 1] == (
        "lens.sampling.pipeline lens.models.checkpoints.text_encoder lens.models.denoiser"
    )


def test_the_libraries_find_the_names_and_are_otherwise_as_they_were(told):
    assert told[2:] == [
        "module diffusers has no attribute NoSuchClass",
        "module transformers has no attribute NoSuchClass",
    ]


def test_a_library_whose_module_was_replaced_is_extended_again(monkeypatch):
    replacement = ModuleType("transformers")
    replacement.__path__ = []
    monkeypatch.setitem(sys.modules, "transformers", replacement)
    monkeypatch.setitem(vars(lens), "LensGptOssEncoder", "the class")
    assert not hasattr(replacement, "LensGptOssEncoder")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("transformers.nothing")
    assert replacement.LensGptOssEncoder == "the class"
    with pytest.raises(AttributeError, match="module 'transformers' has no attribute 'Nothing'"):
        _ = replacement.Nothing
