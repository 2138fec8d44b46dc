"""What a build would take: core-hours, GPU-hours, bytes, tokens and days, stage by stage, before it begins.

Nothing is built or measured here: every number is from throughput.yaml, and what is only assumed is called so.
Each stage is taken to have the whole cluster; the bottleneck is the resource that would need longest alone.
Paper: Lens report, data section.
"""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from lens.data.build.dedup import comparisons
from lens.data.build.settings import BuildSettings
from lens.data.captions.prompts import Kind
from lens.data.captions.settings import SidecarCaptioner
from lens.data.estimate.throughput import Asked, Rate, read_rates
from lens.data.report.html import bytes_in_words
from lens.data.sources.manifest import ManifestSource
from lens.errors import SettingError

MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
COUNT = re.compile(r"(\d+(?:\.\d+)?)([kMB]?)")


class Cost(NamedTuple):
    """What one stage takes."""

    core_s: float = 0.0
    gpu_s: float = 0.0
    download_bytes: float = 0.0
    score_bytes: float = 0.0
    shard_bytes: float = 0.0
    caption_tokens: float = 0.0
    """Written by the model."""
    prompt_tokens: float = 0.0
    """Read by it: the question and the picture."""

    def plus(self, other: "Cost") -> "Cost":
        return Cost(*(one + two for one, two in zip(self, other, strict=True)))


class Line(NamedTuple):
    """One stage of a plan."""

    stage: str
    cost: Cost
    days: dict[str, float]
    """By resource."""
    rates: tuple[str, ...]

    @property
    def bound_by(self) -> str:
        return max(self.days, key=lambda name: self.days[name])


class Plan(NamedTuple):
    """What a build would take."""

    num_images: int
    num_gpus: int
    num_cores: int
    lines: tuple[Line, ...]
    total: Line
    rates: dict[str, Rate]
    """Those that were used."""

    @property
    def days_in_turn(self) -> float:
        """Return the days of all stages one after another."""
        return sum(line.days[line.bound_by] for line in self.lines)


def count_of(text: str, option: str = "--images") -> int:
    """Return the number that a text such as 12345, 10k, 800M or 1.5B means.

    Raises: SettingError that names the option.
    """
    match = COUNT.fullmatch(text.strip())
    number = Decimal(match[1]) * MULTIPLES[match[2]] if match else Decimal(0)
    if number < 1 or number != int(number):
        raise SettingError(option, text, "a whole number above 0, such as 12345, 10k, 800M or 1.5B")
    return int(number)


def plan_of(
    settings: BuildSettings, num_images: int, num_gpus: int = 0, num_cores: int | None = None,
    rates: dict[str, Rate] | None = None,
) -> Plan:  # fmt: skip
    """Reckon a build of so many pictures on a cluster; which stages there are is up to the settings.

    Raises: SettingError where a stage needs GPUs and there are none.
    """
    if num_gpus < 0:
        raise SettingError("--gpus", num_gpus, "0 or more")
    if num_cores is not None and num_cores < 1:
        raise SettingError("--cores", num_cores, "1 or more")
    rates = rates or read_rates()
    cluster = Asked(rates)
    cores = num_cores or round(max(1, num_gpus) * cluster("cores_a_gpu"))
    lines = []
    for stage, cost_of in _stages(settings):
        asked = Asked(rates)
        cost = cost_of(asked, num_images)
        if cost.gpu_s and not num_gpus:
            fix = "Say --gpus 8, or take the stage out of the recipe."
            raise SettingError("--gpus", num_gpus, f"at least 1 for the stage {stage}", fix)
        days = {"cores": cost.core_s / cores / 86400, "GPUs": cost.gpu_s / max(1, num_gpus) / 86400}
        if cost.download_bytes:
            days["network"] = cost.download_bytes / asked("network_bytes_a_s") / 86400
        lines.append(Line(stage, cost, days, tuple(asked.names)))
    total = Cost()
    for line in lines:
        total = total.plus(line.cost)
    resources = ("cores", "GPUs", "network")
    alone = {name: sum((line.days.get(name, 0.0) for line in lines), 0.0) for name in resources}
    used = dict.fromkeys([*cluster.names, *(name for line in lines for name in line.rates)])
    whole = Line("total", total, alone, ())
    return Plan(num_images, num_gpus, cores, tuple(lines), whole, {name: rates[name] for name in used})


def facts(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    rates = {name: rate.model_dump(mode="json") for name, rate in plan.rates.items()}
    return {
        "images": plan.num_images, "gpus": plan.num_gpus, "cores": plan.num_cores,
        "stages": [_line_facts(line) for line in plan.lines], "total": _line_facts(plan.total),
        "bottleneck": plan.total.bound_by, "days_in_turn": plan.days_in_turn, "rates": rates,
    }  # fmt: skip


def told(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan for people: a table, and under each stage what it was reckoned with."""
    yield f"{plan.num_images:,} pictures, {plan.num_gpus:,} GPUs, {plan.num_cores:,} cores"
    if "cores_a_gpu" in plan.rates:
        yield f"    {_rate_told('cores_a_gpu', plan.rates['cores_a_gpu'])}"
    yield ""
    yield _row("stage", "core-hours", "GPU-hours", "bytes", "tokens", "days", "bound by")
    for line in plan.lines:
        yield _line_told(line)
        yield from (f"    {_rate_told(name, plan.rates[name])}" for name in line.rates)
    yield _line_told(plan.total)
    yield ""
    cost, days = plan.total.cost, plan.total.days
    kinds = {"downloads": cost.download_bytes, "scores": cost.score_bytes, "shards": cost.shard_bytes}
    yield f"bytes: {', '.join(f'{bytes_in_words(size)} of {kind}' for kind, size in kinds.items())}"
    if cost.caption_tokens:
        yield f"tokens: {cost.caption_tokens:,.0f} written, {cost.prompt_tokens:,.0f} read"
    longest = plan.total.bound_by
    yield f"bottleneck: {longest}, busy for {_days(days[longest])} days"
    yield f"all stages one after another: {_days(plan.days_in_turn)} days"
    assumed = sum(rate.kind == "assumed" for rate in plan.rates.values())
    yield f"{assumed} of {len(plan.rates)} rates are assumed: a plan is no better than they are"


def _stages(settings: BuildSettings) -> Iterator[tuple[str, Callable[[Asked, int], Cost]]]:
    """Yield the stages that a recipe runs, in their order."""
    by_hash, by_embedding = settings.duplicates.max_hash_bits, settings.duplicates.min_cosine
    if any(isinstance(source, ManifestSource) for source in settings.all_sources):
        yield "fetch", _fetch
    yield "decode", _decode
    yield "scores without models", _pixel_scores
    yield from ((f"{scorer.kind} scores", SCORES[scorer.kind]) for scorer in settings.scorers)
    if by_hash is not None:
        yield "near duplicates by hash", lambda ask, count: _compare(ask, count, by_hash)
    if by_embedding is not None:
        yield "near duplicates by embedding", _search
    if not isinstance(settings.captions, SidecarCaptioner):
        kinds = settings.captions.kinds
        yield "captions", lambda ask, count: _caption(ask, count, kinds)
    yield "shards", _pack


def _fetch(ask: Asked, count: int) -> Cost:
    fetched = count * ask("fetched_share")
    core_s = fetched / ask("fetch_pictures_a_s") * ask("fetch_cores")
    return Cost(core_s, download_bytes=fetched * ask("picture_bytes"))


def _decode(ask: Asked, count: int) -> Cost:
    return Cost(count * ask("picture_megapixels") * ask("decode_s"))


def _pixel_scores(ask: Asked, count: int) -> Cost:
    core_s = count * ask("picture_megapixels") * ask("pixel_scores_s")
    return Cost(core_s, score_bytes=count * ask("score_bytes"))


def _classify(ask: Asked, count: int) -> Cost:
    return Cost(gpu_s=count / ask("classify_pictures_a_s"))


def _like(ask: Asked, count: int) -> Cost:
    return Cost(gpu_s=count / ask("like_pictures_a_s"))


def _detect_nudity(ask: Asked, count: int) -> Cost:
    return Cost(count * ask("nudenet_s"))


def _read_text(ask: Asked, count: int) -> Cost:
    return Cost(count * ask("ocr_s"))


def _embed(ask: Asked, count: int) -> Cost:
    # Published for both scores together: too much rather than too little for the embeddings alone.
    gpu_s = count / ask("embed_and_like_pictures_a_s") * ask("embed_and_like_gpus")
    return Cost(gpu_s=gpu_s, score_bytes=count * ask("embedding_bytes"))


SCORES = {
    "nudenet": _detect_nudity, "ocr": _read_text, "nsfw": _classify, "watermark": _classify,
    "aesthetics": _like, "embedding": _embed,
}  # fmt: skip


def _compare(ask: Asked, count: int, max_bits: int) -> Cost:
    # The one stage that grows with the square of the pictures, if by a small part of it.
    return Cost(comparisons(count, max_bits) / ask("hash_pairs_a_s"))


def _search(ask: Asked, count: int) -> Cost:
    return Cost(count / ask("search_pictures_a_s"))


def _caption(ask: Asked, count: int, kinds: tuple[Kind, ...]) -> Cost:
    kept = count * ask("kept_share")
    words = kept * sum(ask(f"{kind}_words") for kind in kinds)
    tokens, prompts = words * ask("tokens_a_word"), kept * len(kinds) * ask("prompt_tokens")
    return Cost(gpu_s=tokens / ask("caption_tokens_a_s"), caption_tokens=tokens, prompt_tokens=prompts)


def _pack(ask: Asked, count: int) -> Cost:
    kept = count * ask("kept_share")
    source, packed = kept * ask("picture_megapixels"), kept * ask("shard_megapixels")
    core_s = source * (ask("decode_s") + ask("fill_bucket_s")) + packed * ask("encode_s")
    return Cost(core_s, shard_bytes=packed * ask("shard_bytes"))


def _line_facts(line: Line) -> dict[str, Any]:
    values = line.cost._asdict()
    hours = {"core_hours": values.pop("core_s") / 3600, "gpu_hours": values.pop("gpu_s") / 3600}
    return {"stage": line.stage, **hours, **values, "days": line.days, "rates": list(line.rates)}


def _line_told(line: Line) -> str:
    cost = line.cost
    size = cost.download_bytes + cost.score_bytes + cost.shard_bytes
    return _row(
        line.stage, f"{cost.core_s / 3600:,.1f}", f"{cost.gpu_s / 3600:,.1f}", bytes_in_words(size),
        f"{cost.caption_tokens:,.0f}", _days(line.days[line.bound_by]), line.bound_by,
    )  # fmt: skip


def _row(stage: str, cores: str, gpus: str, size: str, tokens: str, days: str, bound: str) -> str:
    return f"{stage:<29}{cores:>15}{gpus:>12}{size:>10}{tokens:>19}{days:>12}  {bound}"


def _days(days: float) -> str:
    return f"{days:,.1f}" if days >= 1 else f"{days:.2g}"


def _rate_told(name: str, rate: Rate) -> str:
    return f"{name} {rate.value:,.10g} {rate.unit} ({rate.origin})"
