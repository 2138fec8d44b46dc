"""GenEval: whether an image shows the objects of its prompt, in their number, colours and places.

Scores and boxes are 32-bit floats, as the official detector gives them, and so is the arithmetic on them.
"""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lens.benchmarks.geneval import COLOURS
from lens.errors import SettingError
from lens.evals.scores.observations import BenchmarkScore, Observation, group_by, mean

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""An object stays when its score is above; of the tag `counting`, above the second."""
MAX_OBJECTS = 16
"""Of one class, the most confident ones."""
POSITION_MARGIN = 0.1
"""Share of the two objects' sizes by which their centres have to be apart."""
MIN_OFFSET_PX = 1e-3
MIN_COMPONENT = 0.5

Relation = Literal["left of", "right of", "above", "below"]


class Detection(Observation):
    """An object that a detector found."""

    class_name: str = Field(alias="class")
    score: float
    box: list[float] = Field(min_length=4, max_length=4)
    """x0, y0, x1, y1 in pixels, y downwards."""
    color_scores: dict[str, float] | None = None
    """Cosine of each colour; None where no clause asks for the colour of this class."""


class Clause(Observation):
    """Objects that an image must show, or must not."""

    class_name: str = Field(alias="class")
    count: int = Field(ge=0)
    color: str | None = None
    position: tuple[Relation, int] | None = Field(None, strict=False)
    """The relation to the objects of another clause, by its index."""


class GenevalLine(Observation):
    """What a detector saw in one image, and what its prompt asks for."""

    prompt_id: int
    repeat: int = 0
    tag: str
    include: list[Clause]
    exclude: list[Clause] = Field(default_factory=list)
    detections: list[Detection]
    """All that the detector gave, in its order."""

    @model_validator(mode="after")
    def _has_what_its_clauses_ask_for(self) -> Self:
        for clause in self.include:
            if clause.position and not 0 <= clause.position[1] < len(self.include):
                raise SettingError("include.position", list(clause.position), "the index of another clause")
        objects = _objects_by_class(self)
        for clause in self.include:
            for found in objects.get(clause.class_name, [])[: clause.count]:
                if clause.color and (missing := set(COLOURS) - set(found.color_scores or {})):
                    needs = f"a score of {min(missing)}, as a clause asks for a colour of {clause.class_name}"
                    raise SettingError("detections.color_scores", found.color_scores, needs)
        return self


def score_geneval(lines: list[GenevalLine]) -> BenchmarkScore:
    """Return the mean over tasks of the share of correct images."""
    correct = [is_correct(line) for line in lines]
    pairs = list(zip(lines, correct, strict=True))
    by_tag = group_by(pairs, lambda pair: pair[0].tag)
    tags: dict[str, float | None] = {tag: _share(by_tag[tag]) for tag in sorted(by_tag)}
    by_prompt = group_by(pairs, lambda pair: pair[0].prompt_id)
    prompts = [any(is_right for _, is_right in own) for own in by_prompt.values()]
    parts = tags | {"share_of_images": _share(pairs), "share_of_prompts": sum(prompts) / len(prompts)}
    headline = mean(value for value in tags.values() if value is not None)
    return BenchmarkScore(headline, parts, [{"correct": is_right} for is_right in correct])


def is_correct(line: GenevalLine) -> bool:
    """Return whether no clause fails."""
    objects = _objects_by_class(line)
    groups: list[list[Detection] | None] = []
    """The objects of each clause; None for one that failed."""
    for clause in line.include:
        found = objects.get(clause.class_name, [])[: clause.count]
        holds = len(found) == clause.count
        holds = holds and (clause.color is None or all(_colour(one) == clause.color for one in found))
        if holds and clause.position:
            relation, index = clause.position
            # A clause that comes later has no objects yet, and counts as failed.
            others = groups[index] if index < len(groups) else None
            holds = others is not None and all(
                relation in relations(_corners(one), _corners(other)) for one in found for other in others
            )
        groups.append(found if holds else None)
    too_many = any(len(objects.get(clause.class_name, [])) >= clause.count for clause in line.exclude)
    return None not in groups and not too_many


def relations(a: NDArray[np.float32], b: NDArray[np.float32]) -> set[str]:
    """Return where a box lies, seen from another: none, one or two relations."""
    offset = (a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2
    sizes = np.abs(a[2:] - a[:2]) + np.abs(b[2:] - b[:2])
    reduced = np.maximum(np.abs(offset) - POSITION_MARGIN * sizes, 0) * np.sign(offset)
    if (np.abs(reduced) < MIN_OFFSET_PX).all():
        return set()
    x, y = reduced / np.linalg.norm(offset)  # the length of the whole offset, not of the reduced one
    held = {
        "right of": x > MIN_COMPONENT,
        "left of": x < -MIN_COMPONENT,
        "below": y > MIN_COMPONENT,
        "above": y < -MIN_COMPONENT,
    }
    return {relation for relation, is_held in held.items() if is_held}


def _objects_by_class(line: GenevalLine) -> dict[str, list[Detection]]:
    """Return the objects that stay, the most confident first; of equal scores the later one comes first."""
    threshold = np.float32(COUNTING_THRESHOLD if line.tag == "counting" else THRESHOLD)
    stay = [found for found in line.detections if np.float32(found.score) > threshold]
    return {
        name: sorted(found, key=lambda one: np.float32(one.score))[::-1][:MAX_OBJECTS]
        for name, found in group_by(stay, lambda one: one.class_name).items()
    }


def _corners(found: Detection) -> NDArray[np.float32]:
    return np.array(found.box, np.float32)


def _colour(found: Detection) -> str | None:
    """Return the colour with the greatest score, of equal ones the first."""
    scores = found.color_scores
    return max(COLOURS, key=lambda colour: scores.get(colour, -np.inf)) if scores else None


def _share(pairs: list[tuple[GenevalLine, bool]]) -> float:
    return sum(is_right for _, is_right in pairs) / len(pairs)
