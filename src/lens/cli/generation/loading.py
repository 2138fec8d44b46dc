"""Loading of a model for `lens generate`: device, dtype, memory, quantization, LoRAs, offloading.

The command needs one part of a model at a time: it encodes all prompts, then drops the text encoder, then
loads the denoiser. Text features that are cached need no encoder at all.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.cli.arguments import LoraArgument
from lens.cli.generation.request import GenerateArguments
from lens.cli.process import prepare_libraries
from lens.errors import MemoryNeedError, SettingError, first_line
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

    from lens.sampling.memory_ladder import Rung, RungName
    from lens.sampling.pipeline import LensPipeline
    from lens.sampling.resolved_model import ResolvedModel

logger = logging.getLogger(__name__)

MAX_FLOAT32_BYTES = 4_000_000_000
"""Size of the weights up to which float32 is the default on a CPU."""

OFFLOAD_RUNGS: "dict[str, RungName]" = {"model": "parts", "group": "streamed"}
"""The rung of each kind of --offload."""

ProgressCallback = Callable[[int, int], None]


class GenerationSession:
    """A model in the course of one command: first its text encoder, then everything else."""

    def __init__(
        self,
        model: "ResolvedModel",
        arguments: GenerateArguments,
        size: tuple[int, int],
        lora_files: Sequence[Path] = (),
    ):
        """Decide device, dtype and rung for images of a (height, width) that use some of these LoRAs.

        Raises: SettingError for options that do not fit; MemoryNeedError if no rung fits.
        """
        prepare_libraries(needed=_required_packages(model, arguments, lora_files))
        import torch

        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        self.model, self.arguments, self.lora_files = model, arguments, lora_files
        self.device = pick_device(arguments.device)
        if arguments.offload != "none" and not self.device.startswith("cuda"):
            raise SettingError(
                "--offload", arguments.offload, "a CUDA device", f"Omit it on {self.device}; see --memory."
            )
        self.dtype = pick_dtype(arguments.dtype, self.device, model)
        self._torch_dtype = getattr(torch, self.dtype)
        self._adapter_names: dict[Path, list[str]] = {}
        """Names of the adapters of each file, one for each time that an image can use it."""
        self._text_encoder: Any = None
        self._check_loras()
        self.rung = self._choose_rung(size)

    def _check_loras(self) -> None:
        """Raise a CheckpointError for a LoRA that does not fit, before anything is loaded or encoded."""
        if not self.lora_files:
            return
        from lens.models.checkpoints.adapters.keys import adapter_layers_of
        from lens.models.checkpoints.adapters.lora_formats import read_adapter
        from lens.models.shapes import denoiser_shapes

        layers = adapter_layers_of(denoiser_shapes(self.model.configs["transformer"]))
        for path in dict.fromkeys(self.lora_files):
            read_adapter(path, layers)

    def _choose_rung(self, size: tuple[int, int]) -> "Rung":
        from lens.sampling.memory_ladder import STREAMED_RUNGS, resolve_rung

        rung = resolve_rung(
            self.model,
            self._torch_dtype,
            self.arguments.memory or "auto",
            size=size,
            device=self.device,
            is_one_shot=True,
        )
        if rung.name in STREAMED_RUNGS and self.arguments.quantization is not None:
            needs = f"more memory than {self.arguments.memory or 'is free'}, as it makes its weights there"
            raise SettingError("--quantize", self.arguments.quantization, needs, "Omit it.")
        if self.arguments.quantization is not None:
            self._log_quantized_memory(self.arguments.quantization)
        return rung

    def _log_quantized_memory(self, quantization: str) -> None:
        from lens.models.memory import GB, expected_memory

        plain, quantized = (
            sum(expected_memory(self.model.configs, self.dtype, kind).values()) / GB
            for kind in (None, quantization)
        )
        logger.info("Loading takes about %.1f GB in %s.", plain, self.dtype)
        logger.info("Quantized to %s the weights take %.1f GB.", quantization, quantized)

    def encode(self, texts: Sequence[str], on_progress: ProgressCallback) -> "dict[str, list[Tensor]]":
        """Return the text features of each text, one (T, E) a layer; the encoder is dropped at the end."""
        from lens.models.prompt_template import PromptTemplate, encode_rows
        from lens.sampling.loader import check_vocabulary, load_tokenizer_of
        from lens.sampling.memory_ladder import component_sizes
        from lens.sampling.text_cache import (
            TextFeatureSource,
            computation_name,
            encode_with_cache,
            open_text_cache,
        )

        tokenizer, layers = load_tokenizer_of(self.model), self._layers
        encoder_bytes = component_sizes(self.model, self._torch_dtype)["text_encoder"].loaded
        cache = open_text_cache(self.arguments.text_cache or "auto", encoder_bytes)

        def encode_missing(missing: list[str]) -> "list[list[Tensor]]":
            encoder = self.text_encoder
            check_vocabulary(tokenizer, encoder)
            date = self.model.prompt_date
            return encode_rows(encoder, tokenizer, missing, layers, date=date, on_progress=on_progress)

        if cache is None:
            rows = encode_missing(list(texts))
        else:
            source = TextFeatureSource(
                self.model.part_hash("text_encoder"),
                layers,
                computation_name(self._encoder_device, self.dtype, self.arguments.quantization),
                PromptTemplate(tokenizer, self.model.prompt_date),
            )
            rows = encode_with_cache(texts, cache, source.key, encode_missing)
        self.drop_text_encoder()
        return dict(zip(texts, rows, strict=True))

    @property
    def text_encoder(self) -> Any:
        """The text encoder, which is loaded when it is first needed."""
        if self._text_encoder is None:
            self._text_encoder = self._load_text_encoder()
        return self._text_encoder

    def drop_text_encoder(self) -> None:
        """Free the text encoder; it is loaded again if it is needed again."""
        self._text_encoder = None

    @property
    def _layers(self) -> tuple[int, ...]:
        return tuple(self.model.configs["transformer"]["selected_layer_index"])

    @property
    def _encoder_device(self) -> str:
        """The device of encoding: main memory where the encoder goes block by block."""
        return "cpu" if self._is_streamed or self.arguments.offload == "group" else self.device

    @property
    def _is_streamed(self) -> bool:
        from lens.sampling.memory_ladder import STREAMED_RUNGS

        return self.rung.name in STREAMED_RUNGS

    def _load_text_encoder(self) -> Any:
        from lens.models.hidden_states import HiddenStateExtractor
        from lens.sampling.loader import load_text_encoder_of

        is_streamed = self._encoder_device == "cpu" and self.rung.name != "resident"
        device = self._encoder_device if self.arguments.quantization is None else "cpu"
        encoder = load_text_encoder_of(self.model, self._torch_dtype, device=device, keep_stored=is_streamed)
        if self.arguments.quantization is not None:
            self._quantize(encoder)
            encoder.to(self._encoder_device)
        if is_streamed and isinstance(encoder, HiddenStateExtractor):
            encoder.releases_blocks = True
        return encoder

    def load_pipeline(self) -> "LensPipeline":
        """Return the pipeline on its device with LoRAs, without its text encoder."""
        from lens.sampling.loader import load_denoiser_of
        from lens.sampling.memory_ladder import apply_rung
        from lens.sampling.pipeline import LensPipeline
        from lens.sampling.placement import place

        denoiser = load_denoiser_of(
            self.model, self._torch_dtype, keep_stored=self.device == "cpu" and self._is_streamed
        )
        if self.arguments.quantization is not None:
            self._quantize(denoiser)
        if self.lora_files:
            from lens.models.checkpoints.adapters.lora import load_loras

            names = load_loras(denoiser, [(path, 1.0) for path in self.lora_files])
            for path, name in zip(self.lora_files, names, strict=True):
                self._adapter_names.setdefault(path, []).append(name)
        pipeline = LensPipeline.from_pretrained(
            self.model,
            torch_dtype=self._torch_dtype,
            transformer=denoiser,
            text_encoder=None,
            tokenizer=None,
        )
        pipeline.set_progress_bar_config(disable=True)
        if self.device == "cpu":
            apply_rung(pipeline, self.rung.name)
        else:
            place(pipeline, self.device, self._placement)
        if self.arguments.tile_px is not None:
            pipeline.enable_vae_tiling(self.arguments.tile_px)
        return pipeline

    def activate_loras(self, pipeline: "LensPipeline", loras: Sequence[LoraArgument]) -> None:
        """Activate exactly these of the session's LoRAs; a file may be used several times."""
        if not self.lora_files:
            return
        from lens.models.checkpoints.adapters.lora import set_lora_weights

        names = {path: iter(names) for path, names in self._adapter_names.items()}
        set_lora_weights(pipeline.transformer, {next(names[path]): weight for path, weight in loras})

    @property
    def _placement(self) -> "RungName":
        """How the denoiser and the VAE are placed on a GPU; without the encoder, both fit where one does."""
        if self.arguments.offload != "none":
            return OFFLOAD_RUNGS[self.arguments.offload]
        return self.rung.name if self._is_streamed else "resident"

    def _quantize(self, part: Any) -> None:
        from lens.models.quantized.torchao import quantize_weights

        quantize_weights(part, self.arguments.quantization or "")


def pick_device(requested: str | None) -> str:
    """Return the requested device, or the fastest available one.

    Raises: SettingError for a device that torch does not know or that this machine lacks.
    """
    import torch

    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if requested is None:
        return available[0]
    kind, _, index = requested.partition(":")
    is_available = kind in available and (
        not index or (index.isdigit() and int(index) < max(1, torch.cuda.device_count()))
    )
    if not is_available:
        raise SettingError(
            "--device", requested, f"one of {', '.join(available)}", "This machine has no other."
        )
    return requested


def pick_dtype(requested: str | None, device: str, model: "ResolvedModel") -> str:
    """Return the requested dtype; "auto" is bfloat16, and float32 for small models on a CPU."""
    from lens.models.memory import expected_memory

    if requested not in (None, "auto"):
        return requested
    is_small = sum(expected_memory(model.configs, "float32").values()) <= MAX_FLOAT32_BYTES
    return "float32" if device == "cpu" and is_small else "bfloat16"


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error into a MemoryNeedError with a remedy."""
    remedy = "Try a lower --memory, such as 8GB, --dtype bfloat16, or a smaller --size."
    try:
        yield
    except MemoryNeedError:
        raise
    except MemoryError as error:
        raise MemoryNeedError(f"The main memory is exhausted. {remedy}") from error
    except RuntimeError as error:
        from lens.models.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise MemoryNeedError(f"Out of memory during generation ({first_line(error)}). {remedy}") from error


def _required_packages(
    model: "ResolvedModel", arguments: GenerateArguments, lora_files: Sequence[Path]
) -> set[str]:
    has_gguf = any(path.suffix.lower() == GGUF_SUFFIX for path in model.parts.values())
    reasons = {"peft": lora_files, "torchao": arguments.quantization, "gguf": has_gguf}
    return {package for package, reason in reasons.items() if reason}
