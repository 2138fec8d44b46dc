"""ComfyUI's graph of nodes as settings: what the sampler that starts from an empty latent was given.

A graph is `{id: {"class_type": ..., "inputs": {name: value or [id of another node, its output]}}}`. Nodes of
extensions are followed by the names of their inputs. Knows nothing of files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lens.sampling.metadata_formats.foreign_settings import ForeignSettings

Graph = Mapping[str, Mapping[str, Any]]
MAX_LINKS, MAX_CHAIN, MAX_TEXT = 100_000, 200, 100_000
"""Links that are followed for all values, and for one; characters of a text that nodes join.

A graph from a file may be a circle, or double what it holds at each node.
"""
SAMPLER_INPUTS = ("latent_image", "samples", "latent")
SEEDS, STEPS, GUIDANCES = ("seed", "noise_seed"), ("steps",), ("cfg", "guidance")
BESIDE_SAMPLER = ("noise", "sigmas", "guider", "scheduler", "sampler")
"""Inputs of a sampler whose nodes hold its settings."""
TEXTS = (
    "text", "prompt", "t5xxl", "text_g", "clip_l", "text_l", "string", "value", "populated_text",
    "wildcard_text", "text_positive",
)  # fmt: skip
NUMBERS = ("value", "int", "float", "number", "seed", "noise_seed")
SHOWN = ("sampler_name", "scheduler", "denoise", "ckpt_name", "unet_name", "vae_name", "control_net_name")
"""Inputs that are settings which Lens does not take over."""
UNREMARKABLE = (
    "Sampler", "Empty", "TextEncode", "Loader", "VAE", "SaveImage", "PreviewImage", "Noise", "Guider",
    "Guidance", "Scheduler", "Conditioning", "Primitive", "ModelSampling", "Reroute", "Note", "CLIP",
    "String", "Seed", "Text",
)  # fmt: skip
"""Parts of the classes of nodes whose work is told by their settings."""


def graph_of(document: Any) -> Graph | None:
    """Return a JSON document, or what stands under `prompt` in it, as a graph; None if it is none."""
    if isinstance(document, Mapping) and "prompt" in document and not _is_graph(document):
        document = document["prompt"]
        if isinstance(document, str):
            try:
                document = json.loads(document)
            except (ValueError, RecursionError):
                return None
    return document if _is_graph(document) else None


def is_workflow(document: Any) -> bool:
    """Return whether a JSON document is a graph as ComfyUI's editor saves it, whose values have no names."""
    return isinstance(document, Mapping) and all(
        isinstance(document.get(key), list) for key in ("nodes", "links")
    )


def _is_graph(document: Any) -> bool:
    return (
        isinstance(document, Mapping)
        and all(isinstance(node, Mapping) for node in document.values())
        and any({"class_type", "inputs"} <= node.keys() for node in document.values())
    )


def comfyui_settings(graph: Graph) -> ForeignSettings:
    """Return the settings of a graph; without a sampler, it says that none was found."""
    nodes = _Nodes(graph)
    samplers = [name for name in graph if nodes.is_sampler(name)]
    first = next((name for name in samplers if not nodes.starts_from_sampler(name)), None)
    if first is None:
        return ForeignSettings.of("ComfyUI", {}, [("all settings: its graph has no sampler known here", "")])
    width, height = nodes.latent_size(first)
    values = {
        "prompt": nodes.prompt(first, "positive"),
        "negative_prompt": nodes.prompt(first, "negative"),
        "seed": nodes.number(first, SEEDS),
        "steps": nodes.number(first, STEPS),
        "guidance": nodes.guidance(first),
        "width": width,
        "height": height,
    }
    others = list(dict.fromkeys(nodes.others()))
    if len(samplers) > 1:
        others.append(("further samplers", len(samplers) - 1))
    return ForeignSettings.of("ComfyUI", values, others)


class _Nodes:
    """The nodes of a graph, and ways through it. A damaged part is as if it were not there."""

    def __init__(self, graph: Graph):
        self._graph, self._num_links = graph, 0

    def inputs(self, name: str) -> Mapping[str, Any]:
        inputs = self._graph.get(name, {}).get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def kind(self, name: str) -> str:
        return str(self._graph.get(name, {}).get("class_type", ""))

    def link(self, value: Any) -> tuple[str, Any] | None:
        """Return (node, output) if the value of an input comes from another node."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self._graph:
            return str(value[0]), value[1]
        return None

    def linked(self, name: str, inputs: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
        """Yield the nodes that some inputs, or all, come from."""
        for key, value in self.inputs(name).items():
            link = self.link(value)
            if link is not None and (inputs is None or key in inputs):
                yield link

    def upstream(self, name: str, inputs: Sequence[str] | None = None) -> Iterator[str]:
        """Yield the nodes that a node's inputs come from, the nearest first, each once."""
        seen, names = {name}, [name]
        for current in names:
            for other, _ in self.linked(current, inputs if current == name else None):
                if other not in seen:
                    seen.add(other)
                    names.append(other)
                    yield other

    def is_sampler(self, name: str) -> bool:
        inputs = self.inputs(name)
        has_latent = any(self.link(inputs.get(key)) for key in SAMPLER_INPUTS)
        is_guided = "guider" in inputs or "positive" in inputs or "conditioning" in inputs
        samples = "steps" in inputs or "sigmas" in inputs or "noise" in inputs
        return has_latent and is_guided and samples

    def starts_from_sampler(self, name: str) -> bool:
        return any(self.is_sampler(other) for other in self.upstream(name, SAMPLER_INPUTS))

    def number(self, sampler: str, keys: Sequence[str]) -> Any:
        """Return a number of a sampler: its own, or one of the nodes of its noise, guider or schedule."""
        for name in (sampler, *self.upstream(sampler, BESIDE_SAMPLER)):
            for key in keys:
                if key in self.inputs(name):
                    found = self.literal(self.inputs(name)[key], NUMBERS)
                    if found is not None:
                        return found
        return None

    def guidance(self, sampler: str) -> Any:
        """Return the guidance scale; where none is used, the number that a distilled model is given."""
        scale = self.number(sampler, GUIDANCES[:1])
        if scale is not None and scale != 1:
            return scale
        for name in self.upstream(sampler):
            if "guidance" in self.inputs(name) and "positive" not in self.inputs(name):
                return self.literal(self.inputs(name)["guidance"], NUMBERS)
        return scale

    def literal(self, value: Any, keys: Sequence[str], seen: frozenset[str] = frozenset()) -> Any:
        """Return a value itself, or the one that the node has which it comes from."""
        link = self.link(value)
        if link is None:
            return None if isinstance(value, list | dict) else value
        name = link[0]
        self._num_links += 1
        if name in seen or len(seen) == MAX_CHAIN or self._num_links > MAX_LINKS:
            return None
        inputs, seen = self.inputs(name), seen | {name}
        if "string_a" in inputs:
            parts = [self.literal(inputs.get(key), keys, seen) for key in ("string_a", "string_b")]
            delimiter = self.literal(inputs.get("delimiter"), keys, seen)
            return str(delimiter or "").join(str(part) for part in parts if part)[:MAX_TEXT]
        key = next((key for key in keys if key in inputs), None)
        links = [other for other, _ in self.linked(name)]
        if key is None and len(links) != 1:  # which of them holds the value cannot be known
            return None
        return self.literal(inputs[key] if key is not None else [links[0], 0], keys, seen)

    def prompt(self, sampler: str, side: str) -> str:
        """Return the text of a side, positive or negative."""
        start = self.link(self.inputs(sampler).get(side))
        guider = self.link(self.inputs(sampler).get("guider"))
        if start is None and guider is not None:
            start = self.link(self.inputs(guider[0]).get(side))
            if start is None and side == "positive":
                start = self.link(self.inputs(guider[0]).get("conditioning"))
        return "" if start is None else ", ".join(dict.fromkeys(self._texts(*start, side, set())))

    def _texts(self, name: str, output: Any, side: str, seen: set[str]) -> Iterator[str]:
        if name in seen or len(seen) == MAX_CHAIN or "ZeroOut" in self.kind(name):
            return
        seen.add(name)
        inputs = self.inputs(name)
        if "positive" in inputs and "negative" in inputs:  # a node that both sides pass through
            through = self.link(inputs["positive" if output == 0 else "negative"])
            if through is not None:
                yield from self._texts(*through, side, seen)
                return
        for key in (side, *TEXTS):
            text = self.literal(inputs[key], TEXTS) if key in inputs else None
            if isinstance(text, str) and text.strip():
                yield text.strip()
                return
        for key, value in inputs.items():
            link = self.link(value)
            if link is not None and key not in ("clip", "model", "vae", "image", "control_net"):
                yield from self._texts(*link, side, seen)

    def latent_size(self, sampler: str) -> tuple[Any, Any]:
        """Return (width, height) of the empty latent that a sampler starts from."""
        for name in self.upstream(sampler, SAMPLER_INPUTS):
            inputs = self.inputs(name)
            if "width" in inputs and "height" in inputs:
                return self.literal(inputs["width"], NUMBERS), self.literal(inputs["height"], NUMBERS)
        return None, None

    def others(self) -> Iterator[tuple[str, Any]]:
        """Yield the settings that Lens does not have, and the kinds of nodes that do something else."""
        for name in self._graph:
            inputs, kind = self.inputs(name), self.kind(name)
            for key in SHOWN:
                value = self.literal(inputs[key], NUMBERS) if key in inputs else None
                if value is not None and (key, value) not in (("denoise", 1), ("denoise", 1.0)):
                    yield key, value
            lora = self.literal(inputs["lora_name"], NUMBERS) if "lora_name" in inputs else None
            if lora is not None:
                yield "LoRA", f"{lora} ({inputs.get('strength_model', 1)})"
            elif not any(part in kind for part in UNREMARKABLE):
                yield "node", kind
