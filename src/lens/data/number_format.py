"""Numbers for people: sizes in bytes, shares in percent, and compact numbers."""


def format_bytes(num_bytes: float) -> str:
    """Return a size with three digits, such as 12.3 GB."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while num_bytes >= 999.5 and len(units) > 1:
        num_bytes /= 1000
        del units[0]
    return f"{num_bytes:.3g} {units[0]}" if num_bytes < 1000 else f"{num_bytes:,.0f} {units[0]}"


def format_share(part: float, whole: float) -> str:
    """Return a share in percent; only none is 0.0% and only all is 100.0%."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1%"
    return "> 99.9%" if 99.9 < percent < 100 else f"{percent:.1f}%"


def format_compact(value: float) -> str:
    """Return a number for the axis of a plot: 0.35, 12, 150k, 2.5M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if letter == 'k' else factor):.4g}{letter}"
    return f"{value:.4g}"
