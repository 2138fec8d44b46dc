"""Executor that scores images in threads while the next ones are generated, with a cache and a time-out.

A score that is not available, or not in time, is a failure of that one image, which is scored anew the next
time. Any other error of a reward is a bug, which its future raises.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from lens.errors import LensError
from lens.llm.response_cache import ResponseCache
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import AsyncReward, ImageArray, Reward, Score

SCORED_FIELDS = {"prompt", "rubric", "expected", "text"}
"""Fields of a prompt that a score may depend on."""

NO_IMAGE_SCORE = Score(None, {}, "the image is not finite")
STOPPED_SCORE = Score(None, {}, "the run stopped before there was a score")


class RewardExecutor:
    """Threads that call one reward. Leaving it waits for submitted images; on an error it abandons them."""

    def __init__(
        self, reward: Reward, num_workers: int = 4, timeout_s: float = 120.0, cache_path: Path | None = None
    ):
        """Create it without starting threads; only one process at a time may write to `cache_path`."""
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

    def submit(self, images: Sequence[ImageArray | None], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each image and its prompt, in order; None, no image, is a failure.

        An image must not change before its future is done. A reward with its own workers gets all images that
        the cache does not know; the threads wait for its scores.
        """
        pairs = [(image, prompt) for image, prompt in zip(images, prompts, strict=True) if image is not None]
        if isinstance(self.reward, AsyncReward):
            futures = iter(self._submit_to_workers(self.reward, pairs))
        else:
            futures = iter([self._executor.submit(self._score, image, prompt) for image, prompt in pairs])
        self._count("failures", len(images) - len(pairs))
        return [_done(NO_IMAGE_SCORE) if image is None else next(futures) for image in images]

    @property
    def counts(self) -> dict[str, int]:
        """Return the numbers of calls of the reward, of scores from the cache, and of failures."""
        with self._lock:
            return dict(self._counts)

    def _submit_to_workers(
        self, reward: AsyncReward, pairs: list[tuple[ImageArray, RLPrompt]]
    ) -> list[Future[Score]]:
        keys = [score_key(image, prompt, self.reward.version) for image, prompt in pairs]
        known = [self._cache_lookup(key) for key in keys]
        missing = [pair for pair, score in zip(pairs, known, strict=True) if score is None]
        self._count("cache_hits", len(pairs) - len(missing))
        self._count("calls", len(missing))
        scores = iter(reward.submit(*map(list, zip(*missing, strict=True))) if missing else ())
        return [
            self._executor.submit(self._wait_for_worker, key, next(scores)) if score is None else _done(score)
            for key, score in zip(keys, known, strict=True)
        ]

    def _wait_for_worker(self, key: str, score: Future[Score]) -> Score:
        def resolve(result: Future[Score]) -> None:
            score.add_done_callback(lambda done: self._resolve(key, result, done.result))

        return self._wait(resolve)

    def _score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        key = score_key(image, prompt, self.reward.version)
        if (known := self._cache_lookup(key)) is not None:
            self._count("cache_hits")
            return known
        self._count("calls")

        def start_thread(result: Future[Score]) -> None:
            # No thread can be stopped, but one that takes too long can be abandoned.
            call = partial(self.reward.score, image, prompt)
            arguments = (key, result, call)
            threading.Thread(target=self._resolve, args=arguments, name="reward call", daemon=True).start()

        return self._wait(start_thread)

    def _resolve(self, key: str, result: Future[Score], call: Callable[[], Score]) -> None:
        """Put the score of a call into its future, unless that has another one, and into the cache."""
        try:
            score = call()
            assert score.value is None or -1e-6 <= score.value <= 1 + 1e-6, score
            self._cache_store(key, score)  # a late score still serves the next call
        except BaseException as error:
            with suppress(InvalidStateError):
                result.set_exception(error)
        else:
            with suppress(InvalidStateError):
                result.set_result(score)

    def _wait(self, start: Callable[[Future[Score]], None]) -> Score:
        """Start something that resolves a future; return its score, or a failure after the time-out."""
        future: Future[Score] = Future()
        with self._lock:
            if self._is_stopped:
                return STOPPED_SCORE
            self._running.add(future)
        start(future)
        try:
            score = future.result(self.timeout_s)
        except TimeoutError as error:
            score = Score(None, {}, str(error) or f"no score within {self.timeout_s:g} s")
        except LensError as error:
            score = Score(None, {}, str(error))
        finally:
            with self._lock:
                self._running.discard(future)
        if score.value is None:
            self._count("failures")
        return score

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

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def _cancel_running(self) -> None:
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for future in running:
            with suppress(InvalidStateError):
                future.set_result(STOPPED_SCORE)


def _done(score: Score) -> Future[Score]:
    future: Future[Score] = Future()
    future.set_result(score)
    return future


def gather_scores(futures: Iterable[Future[Score]]) -> list[Score]:
    """Wait for all scores and return them in the order of their futures.

    Raises: any error of a reward other than a LensError.
    """
    return [future.result() for future in futures]


def score_key(image: ImageArray, prompt: RLPrompt, version: str) -> str:
    """Return the key of a score: a hash of the image, the scored fields of the prompt and the reward."""
    scored_fields = prompt.model_dump(mode="json", include=SCORED_FIELDS)
    serialized = json.dumps([image_hash(image), scored_fields, version], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(serialized.encode()).hexdigest()


def image_hash(image: ImageArray) -> str:
    """Return a hash of the pixels and the shape of an image."""
    return hashlib.sha256(f"{image.dtype} {image.shape} ".encode() + image.tobytes()).hexdigest()
