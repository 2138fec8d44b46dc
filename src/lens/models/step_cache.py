"""Caches of denoising: neighbouring steps are much alike, so parts of one are used again in the next.

The methods are diffusers'. Here they meet this denoiser, which runs the two passes of guidance one after the
other: each pass has a state of its own, chosen by `cache_context("cond")` or `("uncond")`. In a server images
take turns at different steps, so each can have a cache of its own (`cached_pass`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.faster_cache import (
    FasterCacheBlockHook,
    FasterCacheBlockState,
    FasterCacheConfig,
    FasterCacheDenoiserHook,
    FasterCacheDenoiserState,
)
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.hooks.hooks import CacheContext, HookRegistry, ModelHook, StateManager
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.pyramid_attention_broadcast import (
    PyramidAttentionBroadcastConfig,
    PyramidAttentionBroadcastHook,
    PyramidAttentionBroadcastState,
)
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from torch import nn

from lens.core.step_caches import CACHE_NAMES
from lens.errors import SettingError
from lens.models.layers import LensTransformerBlock

SUPPORTED = (
    FirstBlockCacheConfig,
    TaylorSeerCacheConfig,
    PyramidAttentionBroadcastConfig,
    MagCacheConfig,
    FasterCacheConfig,
)

CACHES: dict[str, Callable[[], Any]] = {
    "first-block": lambda: FirstBlockCacheConfig(threshold=0.2),
    "taylorseer": lambda: TaylorSeerCacheConfig(
        cache_interval=2, disable_cache_before_step=4, taylor_factors_dtype=torch.float32, use_lite_mode=True
    ),
}
"""Settings by the name of a cache; diffusers changes a configuration that it uses, so each is made anew."""
assert set(CACHES) == set(CACHE_NAMES)

# `register` would import all of diffusers' transformers. Blocks are called with positional arguments.
TransformerBlockRegistry._registry[LensTransformerBlock] = TransformerBlockMetadata(
    return_hidden_states_index=0,
    return_encoder_hidden_states_index=1,
    _cls=LensTransformerBlock,
    _cached_parameter_indices={"hidden_states": 0, "encoder_hidden_states": 1},
)


def cache_settings(name: str) -> Any:
    """Return the settings of a cache, for `enable_cache`.

    Raises: SettingError for an unknown name.
    """
    if name not in CACHES:
        raise SettingError("cache", name, f"one of {', '.join(CACHES)}")
    return CACHES[name]()


@dataclass
class ImageCache:
    """The cache of one image that is denoised among others."""

    name: str
    """One of CACHES."""
    states: list[dict[str, Any]] = field(default_factory=list)
    """State of each hook, by pass."""


class StepCacheMixin(CacheMixin):
    """diffusers' `enable_cache` and `disable_cache` on a denoiser, and caches of single images."""

    _image_managers: dict[str, list[StateManager]]
    """Managers of the hooks that `cached_pass` has installed, by the name of their cache."""

    def enable_cache(self, config: Any) -> None:
        """Cache parts of steps from now on, by a configuration of diffusers.

        Raises: SettingError for a method that does not work on this denoiser; ValueError if a cache is
            enabled already.
        """
        if not isinstance(config, SUPPORTED):
            names = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise SettingError("config", type(config).__name__, f"one of {names}")
        if isinstance(config, FasterCacheConfig) and not config.is_guidance_distilled:
            fix = "The passes of guidance run one after the other here, so there is no batch of both."
            raise SettingError("is_guidance_distilled", False, "True", fix)
        super().enable_cache(config)
        assert isinstance(self, nn.Module)
        for hook in self._hooks():
            if type(hook) in _HOOKS_BY_PASS:
                hook.__class__ = _HOOKS_BY_PASS[type(hook)]
                hook.initialize_hook(self)

    @contextmanager
    def cached_pass(self, cache: ImageCache, name: str) -> Iterator[None]:
        """Compute one pass of one image in the block, `cond` or `uncond`, with the cache of that image.

        Other passes, before and after, are computed as if there was no cache.
        """
        managers = self._managers_of(cache.name)
        if not cache.states:
            cache.states = [{} for _ in managers]
        for manager, states in zip(managers, cache.states, strict=True):
            manager._state_cache = states
            manager.set_context(CacheContext(name))
        try:
            yield
        finally:
            for manager in managers:
                manager._state_cache = {}
                manager.set_context(None)

    def release_cached_passes(self) -> None:
        """Remove the hooks of `cached_pass` until its next use, as layers that have hooks cannot be replaced.

        The images keep their states.
        """
        for name in vars(self).pop("_image_managers", {}):
            self._cache_config = cache_settings(name)
            self.disable_cache()

    def _managers_of(self, name: str) -> list[StateManager]:
        by_name = vars(self).setdefault("_image_managers", {})
        if name not in by_name:
            before = {id(hook) for hook in self._hooks()}
            self.enable_cache(cache_settings(name))
            self._cache_config = None  # or no hooks of another cache could be beside these
            hooks: list[Any] = [hook for hook in self._hooks() if id(hook) not in before]
            for hook in hooks:
                _compute_plainly_without_context(hook)
            by_name[name] = list({id(hook.state_manager): hook.state_manager for hook in hooks}.values())
        return by_name[name]

    def _hooks(self) -> Iterator[ModelHook]:
        assert isinstance(self, nn.Module)
        for module in self.modules():
            registry = getattr(module, "_diffusers_hook", None)
            yield from registry.hooks.values() if isinstance(registry, HookRegistry) else ()

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        if self.is_cache_enabled:  # or the denoiser would get a registry of hooks that it does not need
            super()._reset_stateful_cache(recurse)


def _compute_plainly_without_context(hook: Any) -> None:
    """Have a hook of a cache compute its module as it is, while no pass is named."""
    cached, plain, manager = hook.fn_ref.forward, hook.fn_ref.original_forward, hook.state_manager

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (plain if manager._context is None else cached)(*args, **kwargs)

    hook.fn_ref.forward = forward


class _StateByPass:
    """A hook whose state diffusers keeps once for both passes of guidance: one for each pass."""

    state_class: Any

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        self._manager = StateManager(self.state_class)  # diffusers tells it the pass
        self._states: dict[str, Any] = {}
        self._last_pass = ""
        return module

    @property
    def state(self) -> Any:
        """The state of the current pass; between two passes that of the last one."""
        if self._manager._context is not None:
            self._last_pass = self._manager._context.name
        return self._states.setdefault(self._last_pass, self.state_class())

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._states.clear()
        self._last_pass = ""
        return module


class _PyramidHook(_StateByPass, PyramidAttentionBroadcastHook):
    state_class = PyramidAttentionBroadcastState


class _FasterCacheHook(_StateByPass, FasterCacheBlockHook):
    state_class = FasterCacheBlockState


class _FasterCacheDenoiserHook(_StateByPass, FasterCacheDenoiserHook):
    state_class = FasterCacheDenoiserState


_HOOKS_BY_PASS: dict[type, type] = {
    PyramidAttentionBroadcastHook: _PyramidHook,
    FasterCacheBlockHook: _FasterCacheHook,
    FasterCacheDenoiserHook: _FasterCacheDenoiserHook,
}
