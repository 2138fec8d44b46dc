"""The reasoner in front of a language model: refusal question, rewriting, checks, one repair.

A failure of the model is an outcome, never an exception. Its cause goes to the log: it may name an address.
Spec: section 11.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lens.core.prompt_text import check_prompt_text
from lens.errors import SettingError
from lens.llm.client import ChatError, ChatResponse
from lens.llm.response_cache import ResponseCache, response_key
from lens.reasoner.checks import broken, check_prompt, is_detailed
from lens.reasoner.cleaning import CleanAnswer, chosen_answer, clean_answer
from lens.reasoner.language_model import LanguageModel, Message, NoChoiceError
from lens.reasoner.model_session import ModelSession
from lens.reasoner.outcome import Check, Reasoned, Usage
from lens.reasoner.refusal import (
    ALLOWED,
    RefusalCategory,
    check_categories,
    refusal_choices,
    refusal_question,
)
from lens.reasoner.rules.quotes import quotes_of
from lens.reasoner.settings import PROMPT_ROOM_TOKENS, ReasonerSettings
from lens.reasoner.system_prompts import SystemPrompt, read_system_prompt

logger = logging.getLogger(__name__)

MAX_REWRITES = 2
"""The rewriting and one repair."""
MAX_CACHE_BYTES = 64 * 2**20
"""Of the answers on disk, which are in memory too; beyond it the oldest half goes."""
WORDS_PER_TOKEN = 0.6
NO_ANSWER = "The language model did not answer"
UNCHECKED = Check("policy", False, "It was not checked against the operator's policy.")


class RewritingReasoner:
    """Refines requests with a language model; threads may share it."""

    def __init__(
        self,
        model: LanguageModel,
        settings: ReasonerSettings,
        *,
        categories: Sequence[RefusalCategory] = (),
        count_tokens: Callable[[str], int],
        when_down: Literal["refuse", "allow"] = "refuse",
        cache_file: Path | None = None,
        system_prompt: SystemPrompt | None = None,
    ):
        """`system_prompt` replaces that of the settings, for a text that is in no file."""
        check_categories(categories)
        self._model, self._settings, self._count_tokens = model, settings, count_tokens
        self._categories, self._when_down = tuple(categories), when_down
        self.system_prompt = system_prompt or read_system_prompt(settings.system_prompt)
        self._cache = _AnswerCache(cache_file, model.name, settings) if cache_file else None

    def __call__(
        self,
        prompt: str,
        *,
        seed: int = 0,
        should_stop: Callable[[], bool] | None = None,
        metadata: str | None = None,
    ) -> Reasoned:
        """Return the answer to a request; `metadata` is for a system prompt that sees a scorer's metadata.

        Raises: ReasoningStoppedError; SettingError for metadata that the system prompt does not see.
        """
        if metadata is not None and not self.system_prompt.sees_metadata:
            raise SettingError("metadata", metadata, "a system prompt that sees metadata", "Leave it out.")
        return _Request(self, prompt, seed, should_stop, metadata).answer()

    def close(self) -> None:
        """Write kept answers to disk."""
        if self._cache:
            self._cache.close()


class _Request:
    """One request on its way to an outcome."""

    def __init__(
        self,
        reasoner: RewritingReasoner,
        prompt: str,
        seed: int,
        should_stop: Callable[[], bool] | None,
        metadata: str | None,
    ):
        settings = reasoner._settings
        self._reasoner, self._settings, self._prompt = reasoner, settings, prompt
        self._metadata, self._cache = metadata, reasoner._cache
        self._seed = seed if settings.uses_seed else 0
        self._session = ModelSession(
            reasoner._model,
            seed=self._seed,
            max_tokens=settings.max_tokens,
            time_limit_s=settings.time_limit_s,
            should_stop=should_stop,
        )
        self._stored: list[Usage] = []
        """What answers from the cache cost when they were asked for."""
        self._unchecked: tuple[Check, ...] = ()

    def answer(self) -> Reasoned:
        try:
            check_prompt_text(self._prompt)
        except SettingError as error:
            return self._reasoned("failed", str(error))
        if not self._prompt.strip():
            return self._reasoned("unchanged", "There are no words to refine.")
        refused = self._refusal() if self._reasoner._categories else None
        if refused is not None:
            return refused
        if not self._settings.rewrites_detailed and is_detailed(self._prompt):
            return self._reasoned("unchanged", "It is detailed already.", checks=self._unchecked)
        return self._cached_rewrite() or self._rewrite()

    def _refusal(self) -> Reasoned | None:
        """Return the outcome for a request that the policy refuses, or that cannot be checked."""
        categories = self._reasoner._categories
        question, choices = refusal_question(self._prompt, categories), refusal_choices(categories)
        key = self._cache and self._cache.key(question[0]["content"], self._prompt)
        stored = self._cache.get(key) if self._cache and key else None
        answer = chosen_answer(str(stored.get("answer")), choices) if stored else None
        if answer is not None and stored:
            self._stored.append(_usage_of(stored))
        else:
            try:
                response = self._session.ask(question, choices)
                if response.is_refused:
                    return self._declined(response.text)
                answer = chosen_answer(response.text, choices)
                if answer is None:
                    raise NoChoiceError(choices)
            except ChatError as error:
                return self._not_checked(error)
            self._store(key, {"answer": answer}, Usage())
        if answer == ALLOWED:
            return None
        reason = "The policy refuses requests of this category."
        return self._reasoned("refused", reason, category=answer)

    def _not_checked(self, error: ChatError) -> Reasoned | None:
        """Return the outcome for a request that could not be checked against the policy."""
        logger.warning("a request was not checked against the policy: %s", error)
        if self._reasoner._when_down == "refuse":
            reason = "It could not be checked against the policy, as the language model gave no answer."
            return self._reasoned("refused", f"{reason} Try again later.", is_unavailable=True)
        self._unchecked = (UNCHECKED,)
        if isinstance(error, NoChoiceError):
            return None  # the model is there, so it may rewrite
        return self._failed(f"{NO_ANSWER}. {UNCHECKED.detail}", is_unavailable=True)

    def _rewrite(self) -> Reasoned:
        messages, before = self._messages(), self._session.usage
        checks: tuple[Check, ...] = ()
        for attempt in range(MAX_REWRITES):
            try:
                response = self._session.ask(messages)
            except ChatError as error:
                logger.warning("a prompt was not rewritten: %s", error)
                if attempt:
                    return self._failed(f"{_sentence(checks)} {NO_ANSWER} when asked to mend it.", checks)
                return self._failed(f"{NO_ANSWER}.", is_unavailable=True)
            if response.is_refused:
                return self._store_outcome(self._declined(response.text), before)
            clean = clean_answer(response.text, self._quoted())
            checks = self._checks(clean, response)
            if not broken(checks):
                return self._store_outcome(self._refined(clean.text, checks), before)
            messages = [*messages, *_repair(clean.text, checks)]
        if any(check.rule == "no_refusal" for check in broken(checks)):
            return self._declined("", checks)
        return self._failed(_sentence(checks), checks)

    def _cached_rewrite(self) -> Reasoned | None:
        """Return the outcome of an earlier request of this kind, if its prompt keeps the rules of today."""
        stored = self._cache.get(self._rewrite_key()) if self._cache else None
        if stored is None:
            return None
        self._stored.append(_usage_of(stored))
        if stored.get("outcome") == "refused":
            return self._declined("")
        text = str(stored.get("prompt", ""))
        checks = self._checks(CleanAnswer(text, False, False, ()), None)
        if broken(checks):
            self._stored.pop()
            return None
        return self._refined(text, checks)

    def _messages(self) -> list[Message]:
        request = self._prompt
        if self._metadata is not None:
            request = f"Request:\n{request}\n\nMetadata:\n{self._metadata}"
        system, room = self._reasoner.system_prompt.text, self._settings.max_prompt_tokens
        if room < PROMPT_ROOM_TOKENS:  # the prompts of Lens are written for the room of the released models
            words = max(5, int(room * WORDS_PER_TOKEN))
            system += f"\n\nThis model reads short prompts only. Write at most {words} words."
        return [{"role": "system", "content": system}, {"role": "user", "content": request}]

    def _quoted(self) -> list[str]:
        return [quote.text for quote in quotes_of(self._prompt)]

    def _checks(self, clean: CleanAnswer, response: ChatResponse | None) -> tuple[Check, ...]:
        return check_prompt(
            self._prompt,
            clean.text,
            count_tokens=self._reasoner._count_tokens,
            max_tokens=self._settings.max_prompt_tokens,
            is_cut=clean.is_cut or (response is not None and response.is_cut),
            paragraphs=clean.paragraphs,
        )

    def _refined(self, text: str, checks: tuple[Check, ...]) -> Reasoned:
        checks = (*self._unchecked, *checks)
        if text == self._prompt.strip():
            return self._reasoned("unchanged", "The language model left it as it is.", checks=checks)
        return self._reasoned("refined", None, prompt=text, checks=checks)

    def _declined(self, words: str, checks: tuple[Check, ...] = ()) -> Reasoned:
        said = clean_answer(words).text[:300]
        reason = f'The language model declined it: "{said}"' if said else "The language model declined it."
        return self._reasoned("refused", reason, checks=checks)

    def _failed(self, reason: str, checks: tuple[Check, ...] = (), is_unavailable: bool = False) -> Reasoned:
        checks = (*self._unchecked, *checks)
        return self._reasoned("failed", reason, checks=checks, is_unavailable=is_unavailable)

    def _reasoned(
        self,
        outcome: Literal["refined", "unchanged", "refused", "failed"],
        reason: str | None,
        *,
        prompt: str | None = None,
        category: str | None = None,
        checks: tuple[Check, ...] = (),
        is_unavailable: bool = False,
    ) -> Reasoned:
        system_prompt = self._reasoner.system_prompt
        return Reasoned(
            outcome,
            self._prompt if prompt is None else prompt,
            self._prompt,
            reason=reason,
            category=category,
            checks=checks,
            usage=self._usage(),
            model=self._reasoner._model.name,
            system_prompt=system_prompt.name,
            system_prompt_hash=system_prompt.hash,
            is_unavailable=is_unavailable,
        )

    def _usage(self) -> Usage:
        """Return what this request cost, or, where every answer was stored, what it cost the first time."""
        if self._stored and not self._session.usage.num_requests:
            totals = (sum(counts) for counts in zip(*(usage[:3] for usage in self._stored), strict=True))
            return Usage(*totals, is_cached=True)
        return self._session.usage

    def _rewrite_key(self) -> str:
        assert self._cache is not None
        return self._cache.key(
            self._reasoner.system_prompt.hash, self._prompt, seed=self._seed, metadata=self._metadata
        )

    def _store_outcome(self, reasoned: Reasoned, before: Usage) -> Reasoned:
        if self._cache:
            values = {"outcome": reasoned.outcome, "prompt": reasoned.prompt}
            self._store(self._rewrite_key(), values, before)
        return reasoned

    def _store(self, key: str | None, values: dict[str, Any], before: Usage) -> None:
        if self._cache and key:
            now = self._session.usage
            cost = [after - earlier for after, earlier in zip(now[:3], before[:3], strict=True)]
            self._cache.put(key, values | {"usage": cost})


class _AnswerCache:
    """Answers on disk, by everything they depend on; a disk that fails costs requests, and no picture."""

    def __init__(self, file: Path, model: str, settings: ReasonerSettings):
        # Answers tell of requests, so they are for the owner of the file alone.
        self._responses, self._model = ResponseCache(file, MAX_CACHE_BYTES, mode=0o600), model
        ours = {"max_tokens", "max_prompt_tokens", "effort", "backend", "endpoint", "model"}
        scope = settings.model_dump(mode="json", include=ours)
        self._scope = hashlib.sha256(json.dumps(scope, sort_keys=True).encode()).hexdigest()
        self._has_failed = False

    def key(self, system: str, prompt: str, **others: Any) -> str:
        return response_key(prompt, system, self._model, {"scope": self._scope, **others})

    def get(self, key: str) -> dict[str, Any] | None:
        return self._responses.get(key)

    def close(self) -> None:
        self._responses.close()

    def put(self, key: str, values: dict[str, Any]) -> None:
        try:
            self._responses.put(key, values)
        except OSError as error:
            if not self._has_failed:
                logger.warning("answers of the reasoner are not kept: %s", error)
            self._has_failed = True


def _usage_of(stored: dict[str, Any]) -> Usage:
    try:
        num_requests, prompt_tokens, completion_tokens = map(int, stored["usage"])
    except (LookupError, TypeError, ValueError):  # a line of an older version
        return Usage()
    return Usage(num_requests, prompt_tokens, completion_tokens)


def _repair(text: str, checks: Sequence[Check]) -> list[Message]:
    """Return the answer and the request that names what broke."""
    problems = "\n".join(f"- {check.detail}" for check in broken(checks))
    request = (
        f"This prompt cannot be used:\n{problems}\n\nWrite it again so that this is mended, and change "
        "nothing else. Answer with the prompt alone."
    )
    return [{"role": "assistant", "content": text or "(no prompt)"}, {"role": "user", "content": request}]


def _sentence(checks: Sequence[Check]) -> str:
    """Return what broke, for the user."""
    details = (check.detail for check in broken(checks))
    return " ".join(["The language model's answer cannot be used.", *details])
