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
from lens.llm.response_cache import ResponseCache
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import AsyncReward, ImageArray, Reward, Score

SCORED_FIELDS = {"prompt", "rubric", "expected", "text"}
"""Fields of a prompt that a score may depend on."""

STOPPED_SCORE = Score(None, {}, "the run stopped before there was a score")


class RewardExecutor:
    """Threads that ask one reward. Leaving it waits for what was handed in; on an error it lets that go."""

    def __init__(
        self, reward: Reward, num_workers: int = 4, timeout_s: float = 120.0, cache_path: Path | None = None
    ):
        """Start no thread yet; `cache` is a file of scores that one process at a time writes."""
        self.reward, self.timeout_s = reward, timeout_s
        self._disk_cache = ResponseCache(cache_path) if cache_path is not None else None
        self._memory_cache: dict[str, Score] = {}
        self._counts = {"calls": 0, "cache_hits": 0, "failures": 0}
        self._running: set[Future[Score]] = set()
        self._is_stopped = False
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="reward")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._cancel_running()
        self._executor.shutdown(wait=True)
        if self._disk_cache is not None:
            self._disk_cache.close()

    def submit(self, images: Sequence[ImageArray], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each picture and its prompt, in their order.

        A picture must not change before its future is done. A reward with workers of its own is asked by none
        of the threads.
        """
        if isinstance(self.reward, AsyncReward):
            self._counts["calls"] += len(images)
            return self.reward.submit(images, prompts)
        pairs = list(zip(images, prompts, strict=True))
        return [self._executor.submit(self._score, picture, prompt) for picture, prompt in pairs]

    @property
    def counts(self) -> dict[str, int]:
        """Return how often the reward was asked, how often a score was known, and how many failed."""
        with self._lock:
            return dict(self._counts)

    def _score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        key = score_key(image, prompt, self.reward.version)
        if (known := self._cache_lookup(key)) is not None:
            self._count("cache_hits")
            return known
        self._count("calls")
        score = self._score_with_timeout(key, image, prompt)
        if score.value is None:
            self._count("failures")
        return score

    def _score_with_timeout(self, key: str, image: ImageArray, prompt: RLPrompt) -> Score:
        """Ask in a thread of its own: no thread can be stopped, but one that takes too long can be left."""
        future: Future[Score] = Future()

        def call_reward() -> None:
            try:
                score = self.reward.score(image, prompt)
                assert score.value is None or -1e-6 <= score.value <= 1 + 1e-6, score
                self._cache_store(key, score)  # one that comes too late is of use to the next who asks
            except BaseException as error:
                with suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    future.set_result(score)

        with self._lock:
            if self._is_stopped:
                return STOPPED_SCORE
            self._running.add(future)
        threading.Thread(target=call_reward, name="reward call", daemon=True).start()
        try:
            return future.result(self.timeout_s)
        except TimeoutError as error:
            return Score(None, {}, str(error) or f"no score within {self.timeout_s:g} s")
        except LensError as error:
            return Score(None, {}, str(error))
        finally:
            with self._lock:
                self._running.discard(future)

    def _cache_lookup(self, key: str) -> Score | None:
        with self._lock:
            known = self._memory_cache.get(key)
        if known is None and self._disk_cache is not None and (answer := self._disk_cache.get(key)):
            known = Score(answer["value"], answer["parts"])
        return known

    def _cache_store(self, key: str, score: Score) -> None:
        if score.value is None:
            return
        with self._lock:
            self._memory_cache[key] = score
        if self._disk_cache is not None:
            self._disk_cache.put(key, {"value": score.value, "parts": score.parts})

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _cancel_running(self) -> None:
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for future in running:
            with suppress(InvalidStateError):
                future.set_result(STOPPED_SCORE)


def gather_scores(futures: Iterable[Future[Score]]) -> list[Score]:
    """Return the scores in the order of their futures, when all are there.

    Raises: whatever a reward raised that was no LensError.
    """
    return [future.result() for future in futures]


def score_key(image: ImageArray, prompt: RLPrompt, version: str) -> str:
    """Return the key of a score: the picture, what is judged of it, and who judges."""
    scored_fields = prompt.model_dump(mode="json", include=SCORED_FIELDS)
    serialized = json.dumps([image_hash(image), scored_fields, version], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(serialized.encode()).hexdigest()


def image_hash(image: ImageArray) -> str:
    """Return a hash of a picture's pixels and shape."""
    return hashlib.sha256(f"{image.dtype} {image.shape} ".encode() + image.tobytes()).hexdigest()
