"""DPG-Bench: the share of a prompt's questions that hold in its images.

A question counts as failed where one that it depends on has failed.
"""

from typing import Any, Self

from pydantic import model_validator

from lens.evals.scores.observations import BenchmarkScore, Observation, check_answers, group_by, mean

NO_PARENT = 0


class DpgLine(Observation):
    """A judge's answers about one image of a prompt: a crop of its grid."""

    prompt_id: str
    crop: int
    answers: dict[str, str | None]
    dependency: dict[str, list[int]]
    """The questions on which each depends; 0 is none. Their order decides."""
    category: dict[str, str]
    """Of each question: a broad name and mostly, after ` - `, a narrow one."""

    @model_validator(mode="after")
    def _every_question_has_an_answer(self) -> Self:
        check_answers(self.answers, dependency=self.dependency, category=self.category)
        return self


def score_dpg(lines: list[DpgLine]) -> BenchmarkScore:
    """Return 100 times the mean of the prompts' scores, and the share of right answers by category."""
    scores = [_crop_score(line) for line in lines]
    by_prompt = group_by(zip(lines, scores, strict=True), lambda pair: pair[0].prompt_id)
    left_out = {name for name, own in by_prompt.items() if any(score is None for _, score in own)}
    prompts = {
        name: None if name in left_out else mean(score for _, score in own if score is not None)
        for name, own in by_prompt.items()
    }
    cases: list[dict[str, Any]] = [
        {"score": None if line.prompt_id in left_out else score}
        for line, score in zip(lines, scores, strict=True)
    ]
    total = mean(value for value in prompts.values() if value is not None)
    kept = [line for line in lines if line.prompt_id not in left_out]
    return BenchmarkScore(None if total is None else 100 * total, _categories(kept), cases, prompts)


def _crop_score(line: DpgLine) -> float | None:
    """Return the share of questions that hold; None where a question depends on one that is not there."""
    values = {question: float(answer == "yes") for question, answer in line.answers.items()}
    for question, parents in line.dependency.items():
        for parent in parents:
            if parent == NO_PARENT:
                continue
            if str(parent) not in values:
                return None
            if values[str(parent)] == 0:  # as it stands now, so that zeros run from parent to grandchild
                values[question] = 0.0
                break
    return mean(values.values())


def _categories(lines: list[DpgLine]) -> dict[str, float | None]:
    """Return 100 times the share of right answers of each category, in the last crop of each prompt."""
    prompts = group_by(lines, lambda line: line.prompt_id)
    last = [max(own, key=lambda line: line.crop) for own in prompts.values()]
    broad: dict[str, list[bool]] = {}
    whole: dict[str, list[bool]] = {}
    for line in last:
        for question, category in line.category.items():
            is_right = line.answers[question] == "yes"
            broad.setdefault(category.partition("-")[0].strip(), []).append(is_right)
            whole.setdefault(category, []).append(is_right)
    parts = {f"L1/{name}": broad[name] for name in sorted(broad)}
    parts |= {f"L2/{name}": whole[name] for name in sorted(whole)}
    return {name: 100 * sum(answers) / len(answers) for name, answers in parts.items()}
