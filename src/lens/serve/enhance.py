"""A prompt written out by a language model before it is drawn. Spec: section 11.

Knows nothing of HTTP or of pictures.
"""

from lens.chat import Chat, Endpoint
from lens.errors import LensError

INSTRUCTION = """You prepare prompts for a text-to-image model. Rewrite the user's request as one detailed \
description of a single picture, in the language of the request. Keep everything the user said. Make simple \
inferences explicit: "the answer to 2+2" becomes "2+2=4". Describe each of several like subjects. \
If the request asks for harmful, sexual, hateful or illegal content, answer with the single word REFUSED. \
Answer with the description alone."""
REFUSED = "REFUSED"


class RefusedError(LensError):
    """A request that is not drawn; the message gives the reason."""


class Enhancer:
    """Writes prompts out; safe to share among threads."""

    def __init__(self, endpoint: Endpoint):
        self._chat = Chat(endpoint)

    def __call__(self, prompt: str) -> str:
        """Return the prompt written out.

        Raises: RefusedError where the model declines; ChatError where it cannot be asked.
        """
        system = {"role": "system", "content": INSTRUCTION}
        reply = self._chat.ask([system, {"role": "user", "content": prompt}])
        text = reply.text.strip()
        if reply.is_refused or text.rstrip(".") == REFUSED:
            raise RefusedError("The language model declined to write this prompt out.")
        return text if text and not reply.is_cut else prompt
