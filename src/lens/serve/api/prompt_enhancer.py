"""Prompt enhancement by a language model. Spec: section 11.

Knows nothing of HTTP or of images.
"""

import logging

from lens.errors import LensError, PromptRefusedError
from lens.llm.client import ChatClient, ChatError
from lens.serve.settings.server import PromptEnhancerSettings

logger = logging.getLogger(__name__)

ENHANCER_SYSTEM_PROMPT = """You prepare prompts for a text-to-image model. Rewrite the user's request as one
detailed \
description of a single picture, in the language of the request. Keep everything the user said. Make simple \
inferences explicit: "the answer to 2+2" becomes "2+2=4". Describe each of several like subjects. \
If the request asks for harmful, sexual, hateful or illegal content, answer with the single word REFUSED. \
Answer with the description alone."""
REFUSAL_WORD = "REFUSED"


class EnhancerUnavailableError(LensError):
    """A language model that does not answer; only the log has the cause, as it names the address."""


class PromptEnhancer:
    """Enhances prompts; safe to share among threads."""

    def __init__(self, endpoint: PromptEnhancerSettings):
        self._client = ChatClient(endpoint)

    def __call__(self, prompt: str) -> str:
        """Return the enhanced prompt, or the prompt itself if the answer is empty or cut.

        Raises: PromptRefusedError if the model declines; EnhancerUnavailableError if it does not answer.
        """
        system = {"role": "system", "content": ENHANCER_SYSTEM_PROMPT}
        try:
            reply = self._client.complete([system, {"role": "user", "content": prompt}])
        except ChatError as error:
            logger.warning("a prompt was not enhanced: %s", error)
            raise EnhancerUnavailableError("The language model of this server did not answer.") from error
        # JSON may contain NUL and lone surrogates, which files and databases reject.
        text = reply.text.replace("\0", " ").encode(errors="replace").decode().strip()
        if reply.is_refused or text.strip(".*\"'`") == REFUSAL_WORD:
            reason = f" Its answer: {text}" if reply.is_refused and text else ""
            raise PromptRefusedError(None, f"The language model declined to enhance it.{reason}")
        return text if text and not reply.is_cut else prompt
