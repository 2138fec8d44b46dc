"""Pictures are judged in threads while the next ones are drawn; what was judged once is not judged again.

A score that cannot be had, or not in time, is a failure of that one picture, and is asked for anew next time.
Anything else that a reward raises is a mistake of ours, which its future raises in turn.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from lens.errors import LensError
from lens.llm.response_cache import Answers
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import BusyReward, Picture, Reward, Score

JUDGED_BY = {"prompt", "rubric", "expected", "text"}
"""Fields of a prompt that a score may depend on."""

STOPPED = Score(None, {}, "the run stopped before there was a score")


class RewardPool:
    """Threads that ask one reward. Leaving it waits for what was handed in; on an error it lets that go."""

    def __init__(self, reward: Reward, workers: int = 4, timeout_s: float = 120.0, cache: Path | None = None):
        """Start no thread yet; `cache` is a file of scores that one process at a time writes."""
        self.reward, self.timeout_s = reward, timeout_s
        self._answers = Answers(cache) if cache is not None else None
        self._known: dict[str, Score] = {}
        self._counts = {"calls": 0, "cache_hits": 0, "failures": 0}
        self._running: set[Future[Score]] = set()
        self._is_stopped = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="reward")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._let_go()
        self._threads.shutdown(wait=True)
        if self._answers is not None:
            self._answers.close()

    def submit(self, pictures: Sequence[Picture], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each picture and its prompt, in their order.

        A picture must not change before its future is done. A reward with workers of its own is asked by none
        of the threads.
        """
        if isinstance(self.reward, BusyReward):
            self._counts["calls"] += len(pictures)
            return self.reward.submit(pictures, prompts)
        pairs = list(zip(pictures, prompts, strict=True))
        return [self._threads.submit(self._score, picture, prompt) for picture, prompt in pairs]

    @property
    def counts(self) -> dict[str, int]:
        """Return how often the reward was asked, how often a score was known, and how many failed."""
        with self._lock:
            return dict(self._counts)

    def _score(self, picture: Picture, prompt: RLPrompt) -> Score:
        key = score_key(picture, prompt, self.reward.version)
        if (known := self._kept(key)) is not None:
            self._count("cache_hits")
            return known
        self._count("calls")
        score = self._asked(key, picture, prompt)
        if score.value is None:
            self._count("failures")
        return score

    def _asked(self, key: str, picture: Picture, prompt: RLPrompt) -> Score:
        """Ask in a thread of its own: no thread can be stopped, but one that takes too long can be left."""
        future: Future[Score] = Future()

        def ask() -> None:
            try:
                score = self.reward.score(picture, prompt)
                assert score.value is None or -1e-6 <= score.value <= 1 + 1e-6, score
                self._keep(key, score)  # one that comes too late is of use to the next who asks
            except BaseException as error:
                with suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    future.set_result(score)

        with self._lock:
            if self._is_stopped:
                return STOPPED
            self._running.add(future)
        threading.Thread(target=ask, name="reward call", daemon=True).start()
        try:
            return future.result(self.timeout_s)
        except TimeoutError as error:
            return Score(None, {}, str(error) or f"no score within {self.timeout_s:g} s")
        except LensError as error:
            return Score(None, {}, str(error))
        finally:
            with self._lock:
                self._running.discard(future)

    def _kept(self, key: str) -> Score | None:
        with self._lock:
            known = self._known.get(key)
        if known is None and self._answers is not None and (answer := self._answers.get(key)):
            known = Score(answer["value"], answer["parts"])
        return known

    def _keep(self, key: str, score: Score) -> None:
        if score.value is None:
            return
        with self._lock:
            self._known[key] = score
        if self._answers is not None:
            self._answers.put(key, {"value": score.value, "parts": score.parts})

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _let_go(self) -> None:
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for future in running:
            with suppress(InvalidStateError):
                future.set_result(STOPPED)


def gathered(futures: Iterable[Future[Score]]) -> list[Score]:
    """Return the scores in the order of their futures, when all are there.

    Raises: whatever a reward raised that was no LensError.
    """
    return [future.result() for future in futures]


def score_key(picture: Picture, prompt: RLPrompt, version: str) -> str:
    """Return the key of a score: the picture, what is judged of it, and who judges."""
    asked = prompt.model_dump(mode="json", include=JUDGED_BY)
    facts = json.dumps([picture_hash(picture), asked, version], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(facts.encode()).hexdigest()


def picture_hash(picture: Picture) -> str:
    """Return a hash of a picture's pixels and shape."""
    return hashlib.sha256(f"{picture.dtype} {picture.shape} ".encode() + picture.tobytes()).hexdigest()
