"""The reasoners of a server: which one a model has, when it stops, what is counted and recorded.

The generation service asks them for the API, jobs and the studio alike. Knows nothing of HTTP, nor of how a
reasoner works.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from lens.core.prompt_text import TokenCount
from lens.errors import (
    DrainingError,
    GenerationCancelledError,
    PromptRefusedError,
    QueueFullError,
    SettingError,
)
from lens.nano.request_warnings import is_nano
from lens.reasoner.language_model import ReasoningStoppedError
from lens.reasoner.outcome import Outcome, Reasoned, Reasoner
from lens.reasoner.refusal import RefusalPolicy
from lens.serve.api.errors import without_places
from lens.serve.engine.request import ModelInfo
from lens.serve.settings.server import ServerSettings

logger = logging.getLogger(__name__)
STOPPED = "stopped"
REASONING_ENDS = (*get_args(Outcome), STOPPED)
"""How a request to a reasoner ends, as the metrics count it."""
MAX_OPEN_REQUESTS = 64
"""Requests to reasoners at a time; more are turned away, as each holds a thread."""
RETRY_AFTER_S = 10.0
NUM_PROMPT_THREADS = 4
"""Prompts of one request that are reasoned about at a time."""
ReasonerFinder = Callable[[ModelInfo], Reasoner | None]
"""A model -> its reasoner, or None where the server has none for it."""
RefusalRecorder = Callable[[Reasoned, str], str]
"""(refusal, caller) -> the id of its record."""
ShouldStop = Callable[[], bool]


def never() -> bool:
    """Return False: for what nobody stops."""
    return False


class ServerReasoning:
    """Asks the reasoners of a server; safe to share among threads."""

    def __init__(self, find_reasoner: ReasonerFinder | None, record_refusal: RefusalRecorder | None = None):
        self._find_reasoner, self._record_refusal = find_reasoner, record_refusal
        self._ends: Counter[str] = Counter()
        self._lock, self._places = threading.Lock(), threading.BoundedSemaphore(MAX_OPEN_REQUESTS)

    def can_reason(self, model: ModelInfo) -> bool:
        """Whether a model has a reasoner here."""
        return self._find_reasoner is not None and self._find_reasoner(model) is not None

    def check(self, model: ModelInfo) -> Reasoner:
        """Return the reasoner of a model. Raises: SettingError if it has none."""
        reasoner = self._find_reasoner(model) if self._find_reasoner is not None else None
        if reasoner is None:
            fix = "The operator of this server has configured no language model."
            raise SettingError("enhance", True, f"to be false for {model.name}", fix)
        return reasoner

    def ends(self) -> dict[str, int]:
        """Return how many requests ended in each way."""
        with self._lock:
            return {name: self._ends[name] for name in REASONING_ENDS}

    def reason(
        self, prompt: str, model: ModelInfo, caller: str, should_stop: ShouldStop, is_draining: ShouldStop
    ) -> Reasoned:
        """Return what the reasoner of a model makes of a prompt, unless it is refused. May block for minutes.

        Raises: PromptRefusedError; SettingError if the model has no reasoner; DrainingError if the server
        shuts down meanwhile; GenerationCancelledError once `should_stop` returns True; LensError if a refusal
        cannot be recorded.
        """
        reasoner = self.check(model)
        try:
            with self._place():
                reasoned = reasoner(prompt, should_stop=lambda: should_stop() or is_draining())
        except ReasoningStoppedError as error:
            self._count(STOPPED)
            if should_stop():
                raise GenerationCancelledError("The caller stopped the reasoner.") from error
            raise DrainingError() from error
        self._count(reasoned.outcome)
        if reasoned.outcome == "refused":
            record = None if self._record_refusal is None else self._record_refusal(reasoned, caller)
            raise PromptRefusedError(reasoned.category, reasoned.reason, record, reasoned.is_unavailable)
        if reasoned.outcome == "failed":
            logger.warning("a prompt is drawn as it was written: %s", reasoned.reason)
        return reasoned

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            text = f"{MAX_OPEN_REQUESTS} prompts are with reasoners already. Try again soon."
            raise QueueFullError(text, RETRY_AFTER_S)
        try:
            yield
        finally:
            self._places.release()

    def _count(self, end: str) -> None:
        with self._lock:
            self._ends[end] += 1


class ModelReasoners:
    """The reasoners that the settings of a server describe, each built when its model first needs it.

    The language model of the settings serves every model. Without one, the rules serve those of the nano
    family: they are local and cost nothing.
    """

    def __init__(
        self,
        settings: ServerSettings,
        policy: RefusalPolicy,
        count_tokens: Callable[[str, str], TokenCount],
        tokenizers: Mapping[str, Path],
    ):
        """Take what counts the tokens of (model, text), and the folder or file of each model's tokenizer.

        Raises: SettingError for a backend that cannot be used.
        """
        from lens.reasoner.factory import build_language_model

        self._folder = settings.state.absolute() / "reasoner"
        self._settings, self._policy = settings, policy
        self._count_tokens, self._tokenizers = count_tokens, tokenizers
        chosen = settings.enhance if settings.is_enhancing else None
        has_rules_only = chosen is None or chosen.backend == "nano"
        self._language_model = None if has_rules_only or chosen is None else build_language_model(chosen)
        self._reasoners: dict[str, Reasoner] = {}
        self._lock = threading.Lock()

    def __call__(self, model: ModelInfo) -> Reasoner | None:
        """Return the reasoner of a model, or None if it has none."""
        if not self._settings.is_enhancing or (self._language_model is None and not is_nano(model.variant)):
            return None
        with self._lock:
            if model.name not in self._reasoners:
                self._reasoners[model.name] = self._build(model.name)
            return self._reasoners[model.name]

    def _build(self, name: str) -> Reasoner:
        chosen = self._settings.enhance
        if self._language_model is None or chosen is None:
            from lens.reasoner.nano_rules import NanoReasoner, world_of

            path = self._tokenizers[name]
            path = path / "tokenizer.json" if path.is_dir() else path
            return NanoReasoner(world_of(path) if path.suffix == ".json" else None)
        from lens.reasoner.rewriter import RewritingReasoner

        self._folder.mkdir(0o700, parents=True, exist_ok=True)  # answers tell of requests
        room = self._count_tokens(name, "").room
        return RewritingReasoner(
            self._language_model,
            chosen.model_copy(update={"max_prompt_tokens": min(chosen.max_prompt_tokens, room)}),
            categories=self._policy.categories,
            count_tokens=lambda text: self._count_tokens(name, text).num_tokens,
            when_down=self._policy.when_down,
            cache_file=self._folder / f"{quote(name, safe='')}.jsonl",
        )


def answer_fields(reasoned: Iterable[Reasoned]) -> list[dict[str, Any]]:
    """Return what reasoners made of prompts as an answer of the API has it, without places of the server."""
    fields = [one.to_json() for one in reasoned]
    return [one | {"reason": one["reason"] and without_places(one["reason"])} for one in fields]


def for_each_prompt(
    prompts: Iterable[str], reason: Callable[[str, ShouldStop], Reasoned], should_stop: ShouldStop
) -> dict[str, Reasoned]:
    """Return what `reason` makes of each distinct prompt, a few at a time; the first error stops the others.

    Raises: whatever `reason` raises.
    """
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) == 1:
        return {distinct[0]: reason(distinct[0], should_stop)}
    has_failed = threading.Event()

    def one(prompt: str) -> Reasoned:
        try:
            return reason(prompt, lambda: has_failed.is_set() or should_stop())
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(NUM_PROMPT_THREADS, "lens-reasoning") as threads:
        asked = {prompt: threads.submit(one, prompt) for prompt in distinct}
    causes = [error for error in (one.exception() for one in asked.values()) if error is not None]
    if causes:  # that some were stopped is what the first error led to
        raise next((one for one in causes if not isinstance(one, GenerationCancelledError)), causes[0])
    return {prompt: one.result() for prompt, one in asked.items()}
