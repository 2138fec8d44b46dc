"""The result of a search as a table, and as values of JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lens.reasoner.search.final import Finalist
from lens.reasoner.search.loop import SearchResult

COLUMNS = ("candidate", "parent", "selection", "test", "gain over the start", "selection - test")


def format_result(result: SearchResult) -> str:
    """Return the table of the last comparison, and what the search took, as text."""
    rows = [COLUMNS, *[_cells(one) for one in result.finalists]]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    texts = verdict(result), winners_curse(result), cost(result)
    return "\n".join([*(line.rstrip() for line in lines), "", *texts])


def verdict(result: SearchResult) -> str:
    """Return in a sentence or two what the search found."""
    best, start = result.winner, result.finalists[0]
    if best is not start:
        return (
            f"Candidate {best.candidate.number} is better than the start: {best.test.value:.3f} after "
            f"{start.test.value:.3f} on the test split."
        )
    if len(result.finalists) == 1:
        return "No candidate got as far as the last comparison; the start stays."
    return "No candidate is surely better than the start, which stays. More pictures may tell."


def winners_curse(result: SearchResult) -> str:
    """Return what the choice by the highest score added by chance, of the best one by that score."""
    if len(result.finalists) == 1:
        return "There is no winner's curse to tell."
    first = result.finalists[1]
    on_selection, on_test = first.gain.value + first.gain_gap, first.gain.value
    return (
        f"Winner's curse: candidate {first.candidate.number}, the best one of the search, gained "
        f"{on_selection:+.3f} where it was chosen and {on_test:+.3f} on new prompts and seeds."
    )


def cost(result: SearchResult) -> str:
    """Return what the search took, and what ended it."""
    counts = Counter(one.status for one in result.candidates[1:])
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "none"
    spent = result.spent
    return (
        f"{len(result.candidates) - 1} proposals ({told}); {spent.pictures:,} pictures, "
        f"{spent.tokens:,} tokens in {spent.requests:,} requests, {spent.seconds:,.0f} s of calls. "
        f"Ended by the budget of {result.stopped_by}."
    )


def result_to_dict(result: SearchResult) -> dict[str, Any]:
    """Return the result as values of JSON."""
    best = result.winner.candidate
    return {
        "best": best.number,
        "is_better": best.number != 0,
        "text": best.text,
        "finalists": [one.to_dict() for one in result.finalists],
        "candidates": [one.to_dict() for one in result.candidates],
        "stopped_by": result.stopped_by,
        "spent": result.spent._asdict(),
        "calls_of_this_run": result.num_calls,
        "seed": result.settings.seed,
    }


def _cells(one: Finalist) -> Sequence[str]:
    candidate = one.candidate
    is_start = candidate.parent is None
    return (
        "start" if is_start else str(candidate.number),
        "" if is_start else str(candidate.parent),
        str(one.selection),
        str(one.test),
        "" if is_start else str(one.gain),
        str(one.gap),
    )
