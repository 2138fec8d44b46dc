"""Reward of the nano world: the exact scorer checks every criterion of a rubric; no learned model.

Objects of an image are detected once. The short names of criteria say what is checked, not their sentences.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from lens.errors import LensError
from lens.nano.scoring.matching_groups import are_related, group_objects, has_size
from lens.nano.scoring.scorer import Detections, detect, score_detections, sign_errors
from lens.nano.scoring.scorer_pool import submit_calls
from lens.nano.scoring.template_matching import UNKNOWN
from lens.nano.world.scenes import SceneSpec
from lens.rl.prompts.dataset import GLOBAL_CRITERION, RLPrompt
from lens.rl.prompts.nano import BACKGROUND, NOTHING_ELSE, TEXT, scene_spec_of
from lens.rl.rewards.base import ImageArray, Score
from lens.rl.rewards.settings import NanoRewardSettings

VERSION = "2"
"""Change it with the meaning of a check and with what the scorer detects."""
PASSED = "passed"
"""Name of the part that is 1 where the image passes the whole test."""


class NanoReward:
    """Weighted mean of the criteria of the rubric and the whole test."""

    def __init__(self, exact_weight: float = 0.5):
        self.exact_weight = exact_weight
        self.version = f"nano {VERSION}, exact {exact_weight:g}"

    @staticmethod
    def from_settings(settings: NanoRewardSettings, cache_path: Path | None) -> "NanoReward":
        """Return the reward; it keeps nothing in a file."""
        if settings.processes:
            return MultiprocessNanoReward(settings.exact_weight, settings.processes)
        return NanoReward(settings.exact_weight)

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return (1 - exact_weight) * mean of the criteria + exact_weight * whether the image passes.

        Raises: LensError for a prompt of another world, without a rubric, or with an unknown criterion.
        """
        spec = scene_spec_of(prompt)
        detections = detect(image)
        known = criterion_results(detections, spec)
        unknown = sorted(set(prompt.rubric) - set(known))
        if unknown or not prompt.rubric:
            has = f"the criteria {', '.join(unknown)}" if unknown else "no rubric"
            needs = f"The nano reward can check {', '.join(known)}."
            raise LensError(f"The prompt {prompt.prompt!r} has {has}. {needs}")
        parts = {name: float(known[name]) for name in prompt.rubric}
        mean = sum(parts.values()) / len(parts)
        passed = float(score_detections(detections, spec).passed)
        value = (1 - self.exact_weight) * mean + self.exact_weight * passed
        return Score(value, {**parts, PASSED: passed})


class MultiprocessNanoReward(NanoReward):
    """The same reward in several processes."""

    def __init__(self, exact_weight: float, num_processes: int):
        super().__init__(exact_weight)
        self._num_processes = num_processes

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the score of one image, by one of the processes."""
        return self.submit([image], [prompt])[0].result()

    def submit(self, images: Sequence[ImageArray], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each image and its prompt."""
        calls = [(self.exact_weight, *pair) for pair in zip(images, prompts, strict=True)]
        return submit_calls(_score_or_failure, calls, self._num_processes)


def _score_or_failure(exact_weight: float, image: ImageArray, prompt: RLPrompt) -> Score:
    try:
        return NanoReward(exact_weight).score(image, prompt)
    except LensError as error:
        return Score(None, {}, str(error))


def criterion_results(detections: Detections, spec: SceneSpec) -> dict[str, bool]:
    """Return every criterion that can be checked exactly, by its name in rubrics."""
    counts = Counter(found.class_name for found in detections.objects)
    asked_for = [thing for thing, *_ in spec.groups]
    groups = [group_objects(detections, group) for group in spec.groups]
    results = {
        f"count_{i}": len(found) == group.count if group.count else bool(found)
        for i, (found, group) in enumerate(zip(groups, spec.groups, strict=True))
    }
    for i, (found, group) in enumerate(zip(groups, spec.groups, strict=True)):
        if group.size:
            of_size = [has_size(thing, group.size, detections.base_px) for thing in found]
            results[f"size_{i}"] = bool(found) and all(of_size)
    if spec.text is not None:
        results[TEXT] = not sign_errors(detections, spec.text)
    if spec.background is not None:
        results[BACKGROUND] = detections.background == spec.background
    for i, (first, relation, second) in enumerate(spec.relations):
        results[f"relation_{i}"] = bool(groups[first] and groups[second]) and are_related(
            groups[first], groups[second], relation
        )
    nothing_else = set(counts) <= set(asked_for) and (spec.text is not None or not detections.signs)
    return results | {NOTHING_ELSE: nothing_else, GLOBAL_CRITERION: counts[UNKNOWN] == 0}
