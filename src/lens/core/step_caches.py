"""Caches of denoising steps by name, and when one is worth it; free of torch, so that commands start fast."""

from lens.errors import SettingError

CACHE_NAMES = ("first-block", "taylorseer")
NO_CACHE = "none"
MIN_STEPS = 12
"""Denoising steps below which a cache saves little: the first steps are always computed."""


def parse_cache(name: str | None, setting: str = "cache") -> str | None:
    """Return the name of a cache; None for `none`.

    Raises: SettingError for an unknown name.
    """
    if name in (None, NO_CACHE, *CACHE_NAMES):
        return None if name == NO_CACHE else name
    raise SettingError(setting, name, f"one of {', '.join((NO_CACHE, *CACHE_NAMES))}")


def cache_warning(name: str | None, num_steps: int, setting: str = "cache") -> str | None:
    """Return what to tell about a cache that is useless at so few steps, or None."""
    if name is None or num_steps >= MIN_STEPS:
        return None
    return (
        f"{setting} {name} saves next to nothing at {num_steps} steps, as the first steps are always "
        f"computed; it is meant for {MIN_STEPS} steps or more."
    )
