"""The exact judge of the nano world: every criterion of a rubric by the scorer, without a learned model.

A picture is read once. Knows nothing of how criteria are worded: their short names say what is checked.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

from lens.errors import LensError
from lens.nano.scoring.scorer import Detections, detect, is_related, score_detections
from lens.nano.scoring.scorer_pool import submit_calls
from lens.nano.scoring.template_matching import UNKNOWN
from lens.nano.world.scenes import SceneSpec
from lens.rl.prompts.dataset import GLOBAL_CRITERION, RLPrompt
from lens.rl.prompts.nano import BACKGROUND, NOTHING_ELSE, scene_spec_of
from lens.rl.rewards.base import ImageArray, Score

VERSION = "1"
"""Whoever changes what a check means, or what the scorer sees, changes this."""
PASSED = "passed"
"""Name of the part that is 1 where the picture passes the whole test."""


class NanoReward:
    """Mean over the criteria of the rubric, with the whole test mixed in."""

    def __init__(self, exact_weight: float = 0.5):
        self.exact_weight = exact_weight
        self.version = f"nano {VERSION}, exact {exact_weight:g}"

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return (1 - exact_weight) * mean of the criteria + exact_weight * whether all was as asked.

        Raises: LensError for a prompt of another world, without a rubric, or with a criterion unknown here.
        """
        spec = scene_spec_of(prompt)
        detections = detect(image)
        known = criterion_results(detections, spec)
        unknown = sorted(set(prompt.rubric) - set(known))
        if unknown or not prompt.rubric:
            has = f"the criteria {', '.join(unknown)}" if unknown else "no rubric"
            needs = f"The exact judge knows {', '.join(known)} of it."
            raise LensError(f"The prompt {prompt.prompt!r} has {has}. {needs}")
        parts = {name: float(known[name]) for name in prompt.rubric}
        mean = sum(parts.values()) / len(parts)
        passed = float(score_detections(detections, spec).passed)
        value = (1 - self.exact_weight) * mean + self.exact_weight * passed
        return Score(value, {**parts, PASSED: passed})


class MultiprocessNanoReward(NanoReward):
    """The same by several processes."""

    def __init__(self, exact_weight: float, num_processes: int):
        super().__init__(exact_weight)
        self._num_processes = num_processes

    def submit(self, images: Sequence[ImageArray], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each picture and its prompt."""
        calls = [(self.exact_weight, *pair) for pair in zip(images, prompts, strict=True)]
        return submit_calls(_score_or_failure, calls, self._num_processes)


def _score_or_failure(exact_weight: float, image: ImageArray, prompt: RLPrompt) -> Score:
    try:
        return NanoReward(exact_weight).score(image, prompt)
    except LensError as error:
        return Score(None, {}, str(error))


def criterion_results(detections: Detections, spec: SceneSpec) -> dict[str, bool]:
    """Return every criterion that can be judged exactly, by the names that rubrics give them."""
    counts = Counter(found.class_name for found in detections.objects)
    asked_for = [thing for thing, _ in spec.groups]
    results = {f"count_{i}": counts[thing] == count for i, (thing, count) in enumerate(spec.groups)}
    if spec.background is not None:
        results[BACKGROUND] = detections.background == spec.background
    for i, (first, relation, second) in enumerate(spec.relations):
        results[f"relation_{i}"] = is_related(detections, asked_for[first], relation, asked_for[second])
    return results | {NOTHING_ELSE: set(counts) <= set(asked_for), GLOBAL_CRITERION: counts[UNKNOWN] == 0}
