"""The recipe of a search for a system prompt: which prompts, which model draws, and what scores its images.

The search itself is in lens.reasoner.search. Scorers are the rewards of post-training: the criteria that an
image fails, in the words of its rubric, are what the rewriter reads.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lens.config import Settings, read_recipe
from lens.errors import LensError, SettingError
from lens.llm.client import Endpoint
from lens.reasoner.endpoint_model import EndpointModel
from lens.reasoner.factory import build_language_model
from lens.reasoner.outcome import Reasoner
from lens.reasoner.rewriter import RewritingReasoner
from lens.reasoner.search.evaluation import DrawRequest, PictureScore, SearchParts
from lens.reasoner.search.invented_prompts import geneval_prompts, text_prompts
from lens.reasoner.search.ledger import key_of
from lens.reasoner.search.loop import OnProgress, SearchResult, search
from lens.reasoner.search.prompts import SearchPrompt, Splits, read_excluded, split_by_prompt
from lens.reasoner.search.settings import SearchSettings
from lens.reasoner.settings import ReasonerEndpoint, ReasonerSettings
from lens.reasoner.system_prompts import SystemPrompt, read_system_prompt
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.prompts.nano import nano_prompts
from lens.rl.prompts.settings import KINDS, OWN_WORDS, check_choices
from lens.rl.rewards.base import ImageArray
from lens.rl.rewards.factory import create_reward
from lens.rl.rewards.settings import AnyRewardSettings, VlmJudgeSettings, WeightedRewardSettings

if TYPE_CHECKING:
    from lens.evals.nano_report import EvalModel

THUMBNAIL_PX, THUMBNAIL_QUALITY = 128, 80
SEARCHED = "searched"
"""Name of the system prompts of a search, in what a reasoner records."""
FACTS = {"rubric", "expected", "text"}
"""What rewards read of a prompt."""


class NanoSearchPrompts(Settings):
    """Prompts of the nano world, from its grammar; held-out combinations and phrases of tests never occur."""

    kind: Literal["nano"] = "nano"
    kinds: tuple[str, ...] = (OWN_WORDS,)
    """Kinds of prompt, those of the six tasks and `own_words`; they alternate."""

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        check_choices("kinds", self.kinds, KINDS)
        return self

    def draw(self, seed: int, count: int) -> list[SearchPrompt]:
        """Return at least so many prompts, which the seed fixes."""
        return [
            SearchPrompt(one.prompt, one.category, one.model_dump(mode="json", include=FACTS))
            for one in nano_prompts(count, seed, self.kinds)
        ]


class GenEvalSearchPrompts(Settings):
    """New prompts of GenEval's grammar, without the official ones."""

    kind: Literal["geneval"] = "geneval"
    official: Path
    """File of the 553 official prompts: generation_prompts.txt or evaluation_metadata.jsonl."""

    def draw(self, seed: int, count: int) -> list[SearchPrompt]:
        """Return all prompts there are, which the seed fixes."""
        return geneval_prompts(seed, self.official)


class TextSearchPrompts(Settings):
    """Prompts with invented texts."""

    kind: Literal["text"] = "text"

    def draw(self, seed: int, count: int) -> list[SearchPrompt]:
        """Return all prompts there are, which the seed fixes."""
        return text_prompts(seed)


AnySearchPrompts = NanoSearchPrompts | GenEvalSearchPrompts | TextSearchPrompts


class PromptSearchSettings(SearchSettings):
    """Settings of a search with a reasoner, a model that draws, and a scorer."""

    start: str = "general"
    """Name of a system prompt of Lens, or the path of a text file: where the search begins."""
    prompts: Annotated[AnySearchPrompts, Field(discriminator="kind")]
    benchmarks: tuple[Path, ...] = ()
    """Files with prompts of benchmarks, one a line; no prompt of the search is one of them."""
    reasoner: ReasonerSettings
    """Reasoner under search; its own system prompt is not used."""
    rewriter: ReasonerEndpoint
    """Endpoint of the model that writes system prompts; it may not be the judge."""
    scorer: AnyRewardSettings
    """Scores images; what it does not find is a failure that the rewriter reads."""
    model: str = "lens-turbo"
    """Model that draws; a turbo one is the cheap proxy."""
    steps: int | None = Field(None, ge=1)
    """Steps, in place of those of the model."""
    guidance: float | None = Field(None, ge=0)
    """Guidance scale, in place of that of the model."""
    batch_size: int = Field(8, ge=1)
    """Images that are drawn at a time."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.reasoner.backend in ("nano", "gpt-oss"):
            needs = "endpoint or transformers, which have a system prompt and need no pipeline"
            raise SettingError("reasoner.backend", self.reasoner.backend, needs)
        if any(judge.model == self.rewriter.model for judge in _judges(self.scorer)):
            needs = "another model than the judge's, which would favour what it wrote"
            raise SettingError("rewriter.model", self.rewriter.model, needs)
        return self


def read_search(path: Path, overrides: Sequence[str] | None = None) -> PromptSearchSettings:
    """Return the settings of a recipe. Raises: SettingError."""
    return PromptSearchSettings.of(read_recipe(path, list(overrides or [])), str(path))


def search_prompts(settings: PromptSearchSettings) -> Splits:
    """Return the prompts of a search. Raises: SettingError."""
    excluded = [prompt for path in settings.benchmarks for prompt in read_excluded(path, "benchmarks")]
    sizes = settings.splits
    count = sizes.feedback + sizes.selection + sizes.test + len(excluded)
    return split_by_prompt(settings.prompts.draw(settings.seed, count), sizes, excluded)


def start_of(settings: PromptSearchSettings) -> SystemPrompt:
    """Return the system prompt that a search begins with. Raises: SettingError."""
    start = read_system_prompt(settings.start, "start")
    if start.sees_metadata:
        fix = "Its scores are not those of requests that users write."
        raise SettingError("start", settings.start, "a system prompt that sees no metadata of a scorer", fix)
    return start


def run_search(settings: PromptSearchSettings, on_progress: OnProgress = lambda *_: None) -> SearchResult:
    """Run or resume the search of a recipe.

    Raises: SettingError; ReasoningStoppedError where a model does not answer.
    """
    from lens.evals.nano import eval_model

    start, splits = start_of(settings), search_prompts(settings)
    model = eval_model(settings.model, settings.steps, settings.guidance)
    draw_and_score, scorer_name = _images(settings, model)
    reasoner_facts = settings.reasoner.model_dump(mode="json", exclude={"system_prompt"})
    parts = SearchParts(
        reasoner_of=_reasoners(settings, model.model),
        reasoner_name=key_of([reasoner_facts]),
        draw_and_score=draw_and_score,
        scorer_name=scorer_name,
        rewriter=EndpointModel(settings.rewriter),
        batch_size=settings.batch_size,
    )
    return search(settings, start.text, splits, parts, on_progress)


def _reasoners(settings: PromptSearchSettings, model: str) -> Callable[[str], Reasoner]:
    from lens.models.prompt_template import PromptTemplate
    from lens.sampling.loader import load_tokenizer_of
    from lens.sampling.resolved_model import ResolvedModel

    resolved = ResolvedModel.of(model)
    template = PromptTemplate(load_tokenizer_of(resolved), resolved.prompt_date)
    language_model = build_language_model(settings.reasoner)

    def reasoner_of(text: str) -> Reasoner:
        return RewritingReasoner(
            language_model,
            settings.reasoner,
            count_tokens=lambda prompt: template.count_tokens(prompt).num_tokens,
            system_prompt=SystemPrompt(name=SEARCHED, text=text),
        )

    return reasoner_of


def _images(
    settings: PromptSearchSettings, model: "EvalModel"
) -> tuple[Callable[[Sequence[DrawRequest]], list[PictureScore]], str]:
    """Return what draws and scores, and its name; the model is loaded for the first image."""
    reward = create_reward(settings.scorer, settings.out / "judge")
    pipelines: list[Any] = []

    def draw_and_score(requests: Sequence[DrawRequest]) -> list[PictureScore]:
        import torch

        from lens.evals.nano import NanoEvalOptions, build_pipeline

        if not pipelines:
            pipelines.append(build_pipeline(model, NanoEvalOptions()))
        (images,) = pipelines[0](
            [request.drawn for request in requests], num_inference_steps=model.steps,
            guidance_scale=model.guidance, return_dict=False,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        )  # fmt: skip
        return [
            score_image(reward, np.asarray(image.convert("RGB")), request.prompt)
            for request, image in zip(requests, images, strict=True)
        ]

    facts = [model.hash, model.steps, model.guidance, reward.version]
    return draw_and_score, f"{model.name}, {model.sampling_label}, {key_of(facts)[:16]}"


def score_image(reward: Any, image: ImageArray, prompt: SearchPrompt) -> PictureScore:
    """Return the score of an image, with the criteria that it fails.

    Raises: LensError where the image has no score, which is no score of zero.
    """
    kind = prompt.kind or "prompt"
    asked = RLPrompt(prompt=prompt.prompt, category=kind, item=kind, **prompt.facts)
    score = reward.score(image, asked)
    if score.value is None:
        raise LensError(f"An image of {prompt.prompt!r} has no score: {score.failure}")
    rubric = {name: f"not met: {criterion}" for name, criterion in asked.rubric.items()}
    failed = [name.rpartition("/")[2] for name, value in score.parts.items() if value < 1]
    failures = dict.fromkeys(rubric[name] for name in failed if name in rubric)
    return PictureScore(score.value, tuple(failures), _thumbnail(image))


def _thumbnail(image: ImageArray) -> bytes:
    from PIL import Image

    small, buffer = Image.fromarray(image), io.BytesIO()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    small.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _judges(scorer: Any) -> list[Endpoint]:
    is_weighted = isinstance(scorer, WeightedRewardSettings)
    parts = [part.reward for part in scorer.parts.values()] if is_weighted else [scorer]
    return [part.endpoint for part in parts if isinstance(part, VlmJudgeSettings)]
