"""Lens, a text-to-image model: the public names of the package.

The import is cheap, as each name is imported when it is first used. It also registers the Lens classes with
diffusers and transformers, so that `DiffusionPipeline.from_pretrained` loads Lens afterwards.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lens.registration import register

if TYPE_CHECKING:
    from lens.core.resolution import RESOLUTION_BUCKETS, resolve_resolution
    from lens.models.checkpoints.text_encoder import LensGptOssEncoder
    from lens.models.denoiser import LensTransformer2DModel
    from lens.sampling.pipeline import LensPipeline

__version__ = "0.1.0"
__all__ = [
    "RESOLUTION_BUCKETS",
    "LensGptOssEncoder",
    "LensPipeline",
    "LensTransformer2DModel",
    "resolve_resolution",
]

_MODULE_OF = {
    "RESOLUTION_BUCKETS": "lens.core.resolution",
    "resolve_resolution": "lens.core.resolution",
    "LensTransformer2DModel": "lens.models.denoiser",
    "LensGptOssEncoder": "lens.models.checkpoints.text_encoder",
    "LensPipeline": "lens.sampling.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lens' has no attribute {name!r}")
    from lens.library_logs import quiet_imports

    with quiet_imports():
        value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    register()  # the import above may have replaced a library's module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


register()
