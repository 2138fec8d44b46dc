"""Registration of the Lens classes with diffusers and transformers.

Published folders name `diffusers.LensPipeline`, `diffusers.LensTransformer2DModel` and
`transformers.LensGptOssEncoder`, which `from_pretrained` looks up as attributes of those libraries. Both are
slow to import, so neither is imported here: their modules get the names when they load, and a class is
imported when its name is first used. Spec: section 6.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LIBRARY_NAMES = {
    "diffusers": frozenset({"LensPipeline", "LensTransformer2DModel"}),
    "transformers": frozenset({"LensGptOssEncoder"}),
}
"""The names that each library gets; all of them are attributes of `lens` too."""


AUTO_PIPELINES = "diffusers.pipelines.auto_pipeline"
AUTO_TASKS = ("TEXT2IMAGE", "IMAGE2IMAGE", "INPAINT")
"""The tables of diffusers' `AutoPipelineFor...` that get LensPipeline, which does all three."""


def register() -> None:
    """Add the Lens classes to both libraries: at once where they are imported, otherwise on import."""
    for library in LIBRARY_NAMES:
        _add_lens_names(library)
    _add_auto_pipelines()
    if not any(isinstance(finder, _LibraryWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LibraryWatcher())


def _add_lens_names(library: str) -> None:
    # Always the module in sys.modules: both libraries replace the object that was first created, and
    # transformers (processing_utils) runs its own __init__ a second time without any finder.
    module = sys.modules.get(library)
    if module is None or getattr(type(module), "has_lens", False):
        return
    kind: Any = type(module)

    class WithLens(kind):
        """The class of the library's module, with the Lens names looked up in `lens`."""

        has_lens = True

        def __getattr__(self, name: str) -> Any:
            if name in LIBRARY_NAMES[library]:
                return getattr(importlib.import_module("lens"), name)
            try:
                inherited = super().__getattr__
            except AttributeError:
                raise AttributeError(f"module {library!r} has no attribute {name!r}") from None
            return inherited(name)

        def __reduce__(self) -> Any:  # a local class cannot be pickled by name; the module can
            return importlib.import_module, (library,)

    module.__class__ = WithLens


def _add_auto_pipelines() -> None:
    module = sys.modules.get(AUTO_PIPELINES)
    is_complete = hasattr(module, "AutoPipelineForInpainting")  # the last class; the tables are above it
    if module is None or not is_complete or "lens" in module.AUTO_TEXT2IMAGE_PIPELINES_MAPPING:
        return
    pipeline = importlib.import_module("lens.sampling.pipeline").LensPipeline
    for task in AUTO_TASKS:
        getattr(module, f"AUTO_{task}_PIPELINES_MAPPING")["lens"] = pipeline


class _LibraryWatcher(MetaPathFinder):
    """A finder that finds nothing: it extends a library at the end of its import by another finder."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        library = fullname.partition(".")[0]
        if library not in LIBRARY_NAMES:
            return None
        if fullname != library:
            _add_lens_names(library)  # before a submodule, as the library may have been replaced
            if fullname != AUTO_PIPELINES:
                return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            is_auto = fullname == AUTO_PIPELINES
            _run_after_exec(spec.loader, _add_auto_pipelines if is_auto else lambda: _add_lens_names(library))
        return spec


def _run_after_exec(loader: Any, action: Any) -> None:
    """Make a loader call an action after it runs a module; its class stays, as other code inspects it."""
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        action()

    loader.exec_module = exec_module
