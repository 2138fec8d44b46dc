"""Cost estimates: core-hours, GPU-hours, bytes, tokens and days of each stage of a build.

Nothing is built or measured here: every rate comes from throughput.yaml, and assumed rates are marked. Each
stage has the whole cluster; the bottleneck is the resource that would need the most time by itself.
Paper: Lens report, data section.
"""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from lens.data.build.dedup import num_comparisons
from lens.data.build.settings import BuildSettings
from lens.data.captions.prompts import CaptionKind
from lens.data.captions.settings import SidecarCaptionerSettings
from lens.data.estimate.throughput import Rate, RateLookup, read_rates
from lens.data.number_format import format_bytes
from lens.errors import SettingError

MULTIPLIERS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
COUNT_PATTERN = re.compile(r"(\d+(?:\.\d+)?)([kMB]?)")


class ResourceCost(NamedTuple):
    """The cost of one stage."""

    core_s: float = 0.0
    gpu_s: float = 0.0
    download_bytes: float = 0.0
    score_bytes: float = 0.0
    shard_bytes: float = 0.0
    caption_tokens: float = 0.0
    """Tokens that the model generates."""
    prompt_tokens: float = 0.0
    """Tokens of the prompt and the image."""

    def plus(self, other: "ResourceCost") -> "ResourceCost":
        """Return the sum of two costs."""
        return ResourceCost(*(one + two for one, two in zip(self, other, strict=True)))


class StageCost(NamedTuple):
    """One stage of an estimate."""

    stage: str
    cost: ResourceCost
    days: dict[str, float]
    """Days by resource."""
    rates: tuple[str, ...]

    @property
    def bottleneck(self) -> str:
        """Return the resource that needs the most time."""
        return max(self.days, key=lambda name: self.days[name])


class BuildEstimate(NamedTuple):
    """The cost of a build."""

    num_images: int
    num_gpus: int
    num_cores: int
    stages: tuple[StageCost, ...]
    total: StageCost
    rates: dict[str, Rate]
    """The rates that were used."""

    @property
    def sequential_days(self) -> float:
        """Return the days of all stages in sequence."""
        return sum(line.days[line.bottleneck] for line in self.stages)


def parse_count(text: str, option: str = "--images") -> int:
    """Return the number of a text such as 12345, 10k, 800M or 1.5B.

    Raises: SettingError that names the option.
    """
    match = COUNT_PATTERN.fullmatch(text.strip())
    number = Decimal(match[1]) * MULTIPLIERS[match[2]] if match else Decimal(0)
    if number < 1 or number != int(number):
        raise SettingError(option, text, "a whole number above 0, such as 12345, 10k, 800M or 1.5B")
    return int(number)


def estimate_build(
    settings: BuildSettings, num_images: int, num_gpus: int = 0, num_cores: int | None = None,
    rates: dict[str, Rate] | None = None,
) -> BuildEstimate:  # fmt: skip
    """Estimate a build of `num_images` images on a cluster; the settings decide its stages.

    Raises: SettingError where a stage needs GPUs and there are none.
    """
    if num_gpus < 0:
        raise SettingError("--gpus", num_gpus, "0 or more")
    if num_cores is not None and num_cores < 1:
        raise SettingError("--cores", num_cores, "1 or more")
    rates = rates or read_rates()
    cluster = RateLookup(rates)
    cores = num_cores or round(max(1, num_gpus) * cluster("cores_a_gpu"))
    lines = []
    for stage, cost_of in _cost_functions(settings):
        lookup = RateLookup(rates)
        cost = cost_of(lookup, num_images)
        if cost.gpu_s and not num_gpus:
            fix = "Pass --gpus, or remove the stage from the recipe."
            raise SettingError("--gpus", num_gpus, f"at least 1 for the stage {stage}", fix)
        days = {"cores": cost.core_s / cores / 86400, "GPUs": cost.gpu_s / max(1, num_gpus) / 86400}
        if cost.download_bytes:
            days["network"] = cost.download_bytes / lookup("network_bytes_a_s") / 86400
        lines.append(StageCost(stage, cost, days, tuple(lookup.used_names)))
    total = ResourceCost()
    for line in lines:
        total = total.plus(line.cost)
    resources = ("cores", "GPUs", "network")
    days_by_resource = {name: sum((line.days.get(name, 0.0) for line in lines), 0.0) for name in resources}
    used = dict.fromkeys([*cluster.used_names, *(name for line in lines for name in line.rates)])
    total_stage = StageCost("total", total, days_by_resource, ())
    return BuildEstimate(
        num_images, num_gpus, cores, tuple(lines), total_stage, {name: rates[name] for name in used}
    )


def build_estimate_to_dict(estimate: BuildEstimate) -> dict[str, Any]:
    """Return an estimate as plain values, for JSON."""
    rates = {name: rate.model_dump(mode="json") for name, rate in estimate.rates.items()}
    return {
        "images": estimate.num_images, "gpus": estimate.num_gpus, "cores": estimate.num_cores,
        "stages": [_stage_to_dict(line) for line in estimate.stages], "total": _stage_to_dict(estimate.total),
        "bottleneck": estimate.total.bottleneck, "days_in_turn": estimate.sequential_days, "rates": rates,
    }  # fmt: skip


def format_build_estimate(estimate: BuildEstimate) -> Iterator[str]:
    """Yield the lines of an estimate: a table, and below each stage the rates that it uses."""
    yield f"{estimate.num_images:,} images, {estimate.num_gpus:,} GPUs, {estimate.num_cores:,} cores"
    if "cores_a_gpu" in estimate.rates:
        yield f"    {_format_rate('cores_a_gpu', estimate.rates['cores_a_gpu'])}"
    yield ""
    yield _table_row("stage", "core-hours", "GPU-hours", "bytes", "tokens", "days", "bound by")
    for line in estimate.stages:
        yield _stage_row(line)
        yield from (f"    {_format_rate(name, estimate.rates[name])}" for name in line.rates)
    yield _stage_row(estimate.total)
    yield ""
    cost, days = estimate.total.cost, estimate.total.days
    kinds = {"downloads": cost.download_bytes, "scores": cost.score_bytes, "shards": cost.shard_bytes}
    yield f"bytes: {', '.join(f'{format_bytes(size)} of {kind}' for kind, size in kinds.items())}"
    if cost.caption_tokens:
        yield f"tokens: {cost.caption_tokens:,.0f} generated, {cost.prompt_tokens:,.0f} in prompts"
    longest = estimate.total.bottleneck
    yield f"bottleneck: {longest}, {_format_days(days[longest])} days"
    yield f"all stages in sequence: {_format_days(estimate.sequential_days)} days"
    assumed = sum(rate.kind == "assumed" for rate in estimate.rates.values())
    yield f"{assumed} of {len(estimate.rates)} rates are assumed; measure them for a better estimate"


def _cost_functions(
    settings: BuildSettings,
) -> Iterator[tuple[str, Callable[[RateLookup, int], ResourceCost]]]:
    """Yield the stages of a recipe in their order, each with its cost function."""
    by_hash, by_embedding = settings.duplicates.max_hash_bits, settings.duplicates.min_cosine
    if any(source.may_download for source in settings.all_sources):
        yield "fetch", _download_cost
    yield "decode", _decode_cost
    yield "scores without models", _pixel_scores_cost
    yield from ((f"{scorer.kind} scores", SCORER_COSTS[scorer.kind]) for scorer in settings.scorers)
    if by_hash is not None:
        yield "near duplicates by hash", lambda rate, count: _hash_dedup_cost(rate, count, by_hash)
    if by_embedding is not None:
        yield "near duplicates by embedding", _embedding_dedup_cost
    if not isinstance(settings.captions, SidecarCaptionerSettings):
        kinds = settings.captions.kinds
        yield "captions", lambda rate, count: _caption_cost(rate, count, kinds)
    yield "shards", _shard_cost


def _download_cost(rate: RateLookup, count: int) -> ResourceCost:
    fetched = count * rate("fetched_share")
    core_s = fetched / rate("fetch_pictures_a_s") * rate("fetch_cores")
    return ResourceCost(core_s, download_bytes=fetched * rate("picture_bytes"))


def _decode_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(count * rate("picture_megapixels") * rate("decode_s"))


def _pixel_scores_cost(rate: RateLookup, count: int) -> ResourceCost:
    core_s = count * rate("picture_megapixels") * rate("pixel_scores_s")
    return ResourceCost(core_s, score_bytes=count * rate("score_bytes"))


def _classifier_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(gpu_s=count / rate("classify_pictures_a_s"))


def _aesthetics_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(gpu_s=count / rate("like_pictures_a_s"))


def _nudenet_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(count * rate("nudenet_s"))


def _ocr_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(count * rate("ocr_s"))


def _embedding_cost(rate: RateLookup, count: int) -> ResourceCost:
    # Published for both scores together: an upper bound for the embeddings alone.
    gpu_s = count / rate("embed_and_like_pictures_a_s") * rate("embed_and_like_gpus")
    return ResourceCost(gpu_s=gpu_s, score_bytes=count * rate("embedding_bytes"))


SCORER_COSTS = {
    "nudenet": _nudenet_cost, "ocr": _ocr_cost, "nsfw": _classifier_cost, "watermark": _classifier_cost,
    "aesthetics": _aesthetics_cost, "embedding": _embedding_cost,
}  # fmt: skip


def _hash_dedup_cost(rate: RateLookup, count: int, max_bits: int) -> ResourceCost:
    # The only stage whose cost has a part that grows with the square of the images.
    return ResourceCost(num_comparisons(count, max_bits) / rate("hash_pairs_a_s"))


def _embedding_dedup_cost(rate: RateLookup, count: int) -> ResourceCost:
    return ResourceCost(count / rate("search_pictures_a_s"))


def _caption_cost(rate: RateLookup, count: int, kinds: tuple[CaptionKind, ...]) -> ResourceCost:
    kept = count * rate("kept_share")
    words = kept * sum(rate(f"{kind}_words") for kind in kinds)
    tokens, prompts = words * rate("tokens_a_word"), kept * len(kinds) * rate("prompt_tokens")
    return ResourceCost(
        gpu_s=tokens / rate("caption_tokens_a_s"), caption_tokens=tokens, prompt_tokens=prompts
    )


def _shard_cost(rate: RateLookup, count: int) -> ResourceCost:
    kept = count * rate("kept_share")
    source, packed = kept * rate("picture_megapixels"), kept * rate("shard_megapixels")
    core_s = source * (rate("decode_s") + rate("fill_bucket_s")) + packed * rate("encode_s")
    return ResourceCost(core_s, shard_bytes=packed * rate("shard_bytes"))


def _stage_to_dict(line: StageCost) -> dict[str, Any]:
    values = line.cost._asdict()
    hours = {"core_hours": values.pop("core_s") / 3600, "gpu_hours": values.pop("gpu_s") / 3600}
    return {"stage": line.stage, **hours, **values, "days": line.days, "rates": list(line.rates)}


def _stage_row(line: StageCost) -> str:
    cost = line.cost
    size = cost.download_bytes + cost.score_bytes + cost.shard_bytes
    return _table_row(
        line.stage, f"{cost.core_s / 3600:,.1f}", f"{cost.gpu_s / 3600:,.1f}", format_bytes(size),
        f"{cost.caption_tokens:,.0f}", _format_days(line.days[line.bottleneck]), line.bottleneck,
    )  # fmt: skip


def _table_row(stage: str, cores: str, gpus: str, size: str, tokens: str, days: str, bound: str) -> str:
    return f"{stage:<29}{cores:>15}{gpus:>12}{size:>10}{tokens:>19}{days:>12}  {bound}"


def _format_days(days: float) -> str:
    return f"{days:,.1f}" if days >= 1 else f"{days:.2g}"


def _format_rate(name: str, rate: Rate) -> str:
    return f"{name} {rate.value:,.10g} {rate.unit} ({rate.origin})"
