"""Makes diffusers and transformers know the Lens classes, so that `DiffusionPipeline.from_pretrained` works.

Published folders name `diffusers.LensPipeline`, `diffusers.LensTransformer2DModel` and
`transformers.LensGptOssEncoder`, which those libraries look up as attributes of themselves. Both are slow to
import, so neither is imported here: their modules are given the names when they load, and the classes behind
the names are imported when somebody asks for one. Spec: section 6.
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
"""What each library is given; all of them are attributes of `lens` itself."""


def register() -> None:
    """Give both libraries the Lens classes: now where they are imported, otherwise as soon as they are."""
    for library in LIBRARY_NAMES:
        _add_lens_names(library)
    if not any(isinstance(finder, _LibraryWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LibraryWatcher())


def _add_lens_names(library: str) -> None:
    # Always the module in sys.modules: both libraries put another object there than the one first created,
    # and transformers (processing_utils) runs its own __init__ a second time, past every finder.
    module = sys.modules.get(library)
    if module is None or getattr(type(module), "has_lens", False):
        return
    kind: Any = type(module)

    class WithLens(kind):
        """The library's own kind of module, which looks the Lens names up in `lens` when asked for one."""

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


class _LibraryWatcher(MetaPathFinder):
    """Finds nothing itself: extends a library when its import ends, whoever finds it."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        library = fullname.partition(".")[0]
        if library not in LIBRARY_NAMES:
            return None
        if fullname != library:
            _add_lens_names(library)  # a submodule is coming: has the library been replaced since?
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _run_after_exec(spec.loader, lambda: _add_lens_names(library))
        return spec


def _run_after_exec(loader: Any, action: Any) -> None:
    """Make a loader call an action after it has run a module; its class stays, as others look at it."""
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run(module)
        action()

    loader.exec_module = exec_module
