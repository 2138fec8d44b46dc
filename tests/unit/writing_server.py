"""A server that writes prompts and rubrics as a language model does, slips included."""

import hashlib
import json
import random
import re
import socket
import threading
from typing import Any

from local_server import Answering, started_server

WORDS = (
    "amber", "bridge", "canvas", "dawn", "ember", "field", "garden", "harbour", "island", "jacket",
    "kettle", "lantern", "meadow", "narrow", "orchard", "pebble", "quiet", "river", "silver", "timber",
    "umbrella", "valley", "window", "yarn", "zenith", "arch", "basket", "copper", "drift", "echo",
    "feather", "granite", "hollow", "ivory", "juniper", "knot", "ladder", "marble", "needle", "ocean",
    "petal", "quartz", "ribbon", "shadow", "thread", "urn", "velvet", "willow", "alley", "beacon", "cedar",
    "dune", "elm", "fog", "glade", "hedge", "ink", "jade", "kiln", "loom", "mist", "nest", "oak", "path",
    "quill", "reed", "stone", "tide", "under", "vine", "wave", "attic", "bloom", "cliff", "dusk", "easel",
    "flint", "gate", "haze", "iron", "jar", "keel", "lace", "moss", "notch", "opal", "pine", "quarry",
    "rust", "sand", "tower", "usher", "veil", "wool", "axle", "brass", "clay", "delta", "edge", "frost",
    "grain",
)  # fmt: skip
PHRASES = {
    "attribute": "worn by age", "spatial": "behind a low wall", "count": "three small stones",
    "interaction": "watched by a child", "colour": "painted deep blue",
}  # fmt: skip
WRITING = "OPEN LATE"


class WritingServer:
    """Answers what `lens rl` asks; every seventh first answer is wrong, others are only untidy."""

    def __init__(self, delay_s: float = 0.0):
        self.answered: list[str] = []
        """Whole requests, in the order of their answers."""
        self.answers_left: int | None = None
        """After so many answers, requests get none until `go_on`."""
        self.lock, self._free = threading.Lock(), threading.Event()
        outer = self

        class Handler(Answering):
            def is_left(self) -> bool:
                """Return whether who asked has closed the connection, as the system does for one killed."""
                try:
                    return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
                except BlockingIOError:
                    return False

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                if not outer._takes():
                    outer._free.wait(20)
                    return  # whoever asked is gone
                threading.Event().wait(delay_s)
                if self.is_left():
                    return
                answer = json.dumps(completion(written_for(json.loads(body)))).encode()
                with outer.lock:
                    outer.answered.append(body)
                self.send(200, {}, answer)

        self.http = started_server(Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def go_on(self) -> None:
        self.answers_left = None
        self._free.set()

    def close(self) -> None:
        self._free.set()
        self.http.shutdown()
        self.http.server_close()

    def _takes(self) -> bool:
        with self.lock:
            if self.answers_left is not None:
                self.answers_left -= 1
            return self.answers_left is None or self.answers_left >= 0


def completion(text: str) -> dict[str, Any]:
    """Return an answer as the API has it."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 50}}


def written_for(body: dict[str, Any]) -> str:
    """Return what a language model could answer: the same for the same request."""
    system, user = (message["content"] for message in body["messages"][:2])
    draw = int(hashlib.sha256(f"{user} {body['seed']}".encode()).hexdigest()[:8], 16)
    is_wrong = draw % 7 == 0 and len(body["messages"]) == 2
    values = _prompt(user, draw) if "write prompts" in system else _rubric(user)
    if is_wrong:
        values = dict(list(values.items())[:1])
    text = json.dumps(values, indent=1)
    return (text, f"```json\n{text}\n```", f"Here it is:\n{text[:-2]},\n}}")[draw % 3]


def _prompt(user: str, draw: int) -> dict[str, Any]:
    item = re.findall(r"^Subject: (.*)$", user, flags=re.MULTILINE)[0]
    dimensions = re.findall(r"^- (\w+):", user, flags=re.MULTILINE)
    points = [PHRASES[dimension] for dimension in dimensions if dimension in PHRASES]
    said = [*points, f'with the words "{WRITING}"'] if "text" in dimensions else points
    others = random.Random(draw).sample(WORDS, 26)
    prompt = f"A photograph of {item}, {', '.join([*said, ' '.join(others)])}."
    return {"prompt": prompt, "keypoints": points} | ({"text": WRITING} if "text" in dimensions else {})


def _rubric(user: str) -> dict[str, Any]:
    item = re.findall(r"^Subject: (.*)$", user, flags=re.MULTILINE)[0]
    told = {"Subject": f"There is {item}.", "Light": "It is even.", "Camera": "It is a photograph."}
    for line in re.findall(r"^Keypoints: (.*)$", user, flags=re.MULTILINE):
        told |= {f"Point {number}": f"There is {one}." for number, one in enumerate(line.split("; "))}
    return told
