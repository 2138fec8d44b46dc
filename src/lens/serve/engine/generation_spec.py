"""The images of one request to a server, with every value decided, and the form in which a job keeps them.

Plain values, free of torch and HTTP.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from lens.core.noise import seed_of_image
from lens.core.resolution import SIDE_STEP_PX
from lens.reasoner.outcome import Reasoned
from lens.serve.engine.request import GenerationRequest, LoraRequest


@dataclass(frozen=True)
class ImagePrompt:
    """The prompt of one image: its choices are those of its seed."""

    prompt: str
    negative_prompt: str = ""
    loras: tuple[LoraRequest, ...] = ()
    reasoned: Reasoned | None = None


Prompted = TypeVar("Prompted", GenerationRequest, ImagePrompt)


@dataclass(frozen=True)
class GenerationSpec:
    """The images of one request, with every value decided, and their file format."""

    draw: GenerationRequest
    """The first image; the others have the seeds that follow."""
    count: int
    prompts: tuple[ImagePrompt, ...] = ()
    """Those of all images, where they are not all the same."""
    output_format: str = "png"
    output_quality: int | None = None
    quality: str = "medium"
    warnings: tuple[str, ...] = ()
    """What is told of the request, which is drawn all the same."""

    def requests(self) -> list[GenerationRequest]:
        """Return the requests of all images."""
        return [self.request(number) for number in range(self.count)]

    def request(self, index: int) -> GenerationRequest:
        """Return the request of one image, counted from 0."""
        own = vars(self.prompts[index]) if self.prompts else {}
        return replace(self.draw, seed=seed_of_image(self.draw.seed, index), **own)

    def distinct_requests(self) -> list[GenerationRequest]:
        """Return one request for each distinct prompt."""
        return list({(one.prompt, one.negative_prompt, one.loras): one for one in self.requests()}.values())

    def refined(self, reasoned: Mapping[str, Reasoned]) -> Self:
        """Return the same images of the prompts that a reasoner made of the prompts."""
        draw = _refined(self.draw, reasoned)
        return replace(self, draw=draw, prompts=tuple(_refined(one, reasoned) for one in self.prompts))

    @property
    def reasoned(self) -> list[Reasoned]:
        """What a reasoner made of each distinct prompt; empty if none was asked."""
        return list(dict.fromkeys(one.reasoned for one in self.requests() if one.reasoned is not None))

    @property
    def size(self) -> str:
        """WIDTHxHEIGHT."""
        return f"{self.draw.width}x{self.draw.height}"

    @property
    def tokens_per_image(self) -> int:
        """Image tokens of one image."""
        return self.draw.height * self.draw.width // SIDE_STEP_PX**2

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent, uploads by their names; `from_json` reads them."""
        values = asdict(self)
        for name in ("image", "mask"):
            path = values["draw"][name]
            values["draw"][name] = None if path is None else path.name
        for one, stored in zip((self.draw, *self.prompts), (values["draw"], *values["prompts"]), strict=True):
            stored["reasoned"] = None if one.reasoned is None else one.reasoned.to_json()
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any], uploads: Path) -> Self:
        """Return what `to_json` wrote; `uploads` is the folder of uploads, which may have moved since."""
        draw = _stored(values["draw"])
        for name in ("image", "mask"):
            draw[name] = None if draw[name] is None else uploads / Path(draw[name]).name
        prompts = tuple(ImagePrompt(**_stored(one)) for one in values.get("prompts", ()))
        read: dict[str, Any] = {"draw": GenerationRequest(**draw), "prompts": prompts}
        read["warnings"] = tuple(values.get("warnings", ()))
        known = {name: value for name, value in values.items() if name != "original_prompt"}  # of older jobs
        return cls(**{**known, **read})


def _refined(one: Prompted, reasoned: Mapping[str, Reasoned]) -> Prompted:
    answer = reasoned[one.prompt]
    return replace(one, prompt=answer.prompt, reasoned=answer)


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a prompt or a request as they were before `to_json`."""
    loras, reasoned = values["loras"], values.get("reasoned")
    read = {"loras": tuple(LoraRequest(**lora) for lora in loras)}
    return {**values, **read, "reasoned": None if reasoned is None else Reasoned.from_json(reasoned)}
