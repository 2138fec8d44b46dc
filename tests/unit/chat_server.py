"""A scripted chat endpoint of a reasoner, and the settings that lead to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_server import Answer, Server


def completion(content: str | None, finish: str = "stop", **message: Any) -> Answer:
    """Return the answer of a chat endpoint that says this."""
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    return 200, json.dumps({"choices": [choice], "usage": usage}).encode()


class ChatServer(Server):
    """Refuses by category, else rewrites; both are functions of what the user's message says."""

    def __init__(
        self,
        rewrite: Callable[[str], str | Answer] = lambda request: f"{request}, in bright light",
        category: Callable[[str], str | Answer | None] = lambda request: None,
    ):
        super().__init__()
        self._rewrite, self._category = rewrite, category

    def answer_to(self, body: Any) -> Answer:
        request = body["messages"][1]["content"]
        if "response_format" not in body:
            answer = self._rewrite(request)
            return completion(answer) if isinstance(answer, str) else answer
        answer = self._category(request) or "none"
        return completion(json.dumps({"answer": answer})) if isinstance(answer, str) else answer

    @property
    def rewritten(self) -> list[str]:
        """The requests to be rewritten, in order; repairs are not counted."""
        bodies = [asked.body for asked in self.asked if "response_format" not in asked.body]
        return [body["messages"][1]["content"] for body in bodies if len(body["messages"]) == 2]

    def write_settings(self, file: Path, **changes: Any) -> Path:
        """Write the settings of a reasoner at this endpoint to a YAML file, and return its path."""
        endpoint = {"url": self.url, "model": "scripted", "max_attempts": 1, "timeout_s": 20}
        file.write_text(json.dumps({"backend": "endpoint", "endpoint": endpoint | changes}))
        return file
