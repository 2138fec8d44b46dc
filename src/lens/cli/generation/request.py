"""Options of `lens generate` as one dataclass, their checks, and the values that --like restores.

None means that an option is not given: the value in the image of --like applies, then the model's default.
Loads no torch until files are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from lens.cli.arguments import (
    DEFAULT_MODEL,
    AsJson,
    CacheName,
    DtypeName,
    ImageFormat,
    LoraArgument,
    OffloadMode,
    QuantizeFormat,
    SolverName,
    TextCacheOption,
    check_device,
    check_number,
    check_strength,
    check_upscale,
    parse_lora,
    parse_size,
)
from lens.cli.generation.reasoner_options import (
    MODEL_HELP,
    POLICY_HELP,
    REASONER_HELP,
    SYSTEM_PROMPT_HELP,
    ReasonerOptions,
)
from lens.cli.generation.recorded_files import read_like, recorded_arguments
from lens.core.noise import RANDOM_SEED, parse_seed, random_seed
from lens.core.prompt_text import check_prompt_text
from lens.core.resolution import SizeWords
from lens.errors import LensError, SettingError
from lens.files import config_folder
from lens.models.checkpoints.registry import KNOWN_MODELS
from lens.models.prompt_date import parse_prompt_date
from lens.sampling.defaults import UPSCALE_STRENGTH, default_strength
from lens.sampling.memory_ladder import parse_memory
from lens.sampling.solvers import DEFAULT_SOLVER

if TYPE_CHECKING:
    from lens.prompts.reading import PromptReader
    from lens.prompts.syntax import InlineLora
    from lens.sampling.image_metadata import ImageMetadata

STRENGTHS = f"{default_strength(has_mask=False):g}; with --mask {default_strength(has_mask=True):g}"
SIZE_WORDS = SizeWords(
    "--height", "--width", "--size", "--base-resolution", "--aspect-ratio", "give --size WIDTHxHEIGHT",
    "add --allow-extreme",
)  # fmt: skip
PROMPT, REASONER, SAMPLING, MODEL, OUTPUT = "Prompts and seeds", "Reasoner", "Sampling", "Model", "Output"


def _option(panel: str, help_text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, **settings)


@dataclass(frozen=True)
class GenerateArguments:
    """Options of `lens generate`, as they are given."""

    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Prompts, one image each; - reads prompts or settings from stdin, one per line.",
            show_default=False,
        ),
    ] = None
    from_file: Annotated[
        Path | None, _option(PROMPT, "File of prompts, or of settings as JSON or CSV, one per line.")
    ] = None
    like: Annotated[
        Path | None,
        _option(PROMPT, "Reproduce this image from its metadata; other options replace what is recorded."),
    ] = None
    negative_prompt: Annotated[str | None, _option(PROMPT, "Negative prompt.", "--negative")] = None
    style: Annotated[
        list[str] | None, _option(PROMPT, "Put the prompt into a style; repeat for more.", metavar="NAME")
    ] = None
    style_file: Annotated[
        Path | None, _option(PROMPT, "YAML file of styles (styles.yaml in ~/.config/lens, or built in).")
    ] = None
    wildcards: Annotated[
        Path | None,
        _option(PROMPT, "Folder of NAME.txt, whose lines __NAME__ stands for (~/.config/lens/wildcards)."),
    ] = None
    num_images_per_prompt: Annotated[
        int, _option(PROMPT, "Images per prompt, with consecutive seeds.", "--count", "-n", min=1)
    ] = 1
    seed: Annotated[
        str | None,
        _option(PROMPT, "Seed of the first image of each prompt, or random (random).", metavar="SEED"),
    ] = None

    reason: Annotated[
        bool,
        _option(REASONER, "Have a reasoner make each prompt drawable, or refuse it, first.", "--reason"),
    ] = False
    reasoner: Annotated[str | None, _option(REASONER, REASONER_HELP, metavar="WHAT")] = None
    reasoner_model: Annotated[str | None, _option(REASONER, MODEL_HELP)] = None
    system_prompt: Annotated[str | None, _option(REASONER, SYSTEM_PROMPT_HELP)] = None
    policy: Annotated[Path | None, _option(REASONER, POLICY_HELP)] = None

    aspect_ratio: Annotated[
        str | None,
        _option(SAMPLING, "One of nine, from 1:2 to 2:1 (1:1).", "--aspect-ratio", "--ar", metavar="W:H"),
    ] = None
    base_resolution: Annotated[
        int | None,
        _option(SAMPLING, "Side of the square of equal area (the model's default).", metavar="PX"),
    ] = None
    size: Annotated[
        str | None, _option(SAMPLING, "Exact size in pixels, multiples of 16.", metavar="WxH")
    ] = None
    width: Annotated[int | None, _option(SAMPLING, "Width in pixels, with --height.", metavar="PX")] = None
    height: Annotated[int | None, _option(SAMPLING, "Height in pixels, with --width.", metavar="PX")] = None
    allow_extreme: Annotated[
        bool, _option(SAMPLING, "Accept sizes outside the supported range.", "--allow-extreme")
    ] = False
    steps: Annotated[int | None, _option(SAMPLING, "Denoising steps (the model's default).")] = None
    guidance: Annotated[
        float | None, _option(SAMPLING, "Guidance scale; 1 turns it off (the model's default).", "--cfg")
    ] = None
    solver: Annotated[SolverName | None, _option(SAMPLING, f"ODE solver ({DEFAULT_SOLVER}).")] = None
    cache: Annotated[
        CacheName | None,
        _option(SAMPLING, "Use parts of a step again in the next: faster, less exact (none)."),
    ] = None
    upscale: Annotated[
        float | None, _option(SAMPLING, "Draw the image again at this multiple of its size.", metavar="TIMES")
    ] = None
    upscale_strength: Annotated[
        float | None, _option(SAMPLING, f"Noise added before it is drawn again ({UPSCALE_STRENGTH:g}).")
    ] = None
    init_image: Annotated[Path | None, _option(SAMPLING, "Source image for image-to-image.")] = None
    strength: Annotated[
        float | None, _option(SAMPLING, f"Noise added to the source image, above 0 up to 1 ({STRENGTHS}).")
    ] = None
    mask: Annotated[
        Path | None, _option(SAMPLING, "Inpainting mask: white areas are redrawn; needs --init-image.")
    ] = None

    model: Annotated[
        str | None,
        _option(
            MODEL,
            f"One of {', '.join(KNOWN_MODELS)}, a folder, a hub id, a denoiser's file or a ComfyUI folder "
            f"({DEFAULT_MODEL}).",
        ),
    ] = None
    text_encoder: Annotated[
        Path | None,
        _option(MODEL, "File or folder of the text encoder (the model's own, or found around its file)."),
    ] = None
    vae: Annotated[Path | None, _option(MODEL, "File or folder of the VAE (likewise).")] = None
    tokenizer: Annotated[
        Path | None,
        _option(MODEL, "Folder, tokenizer.json, or text encoder's file with a tokenizer (likewise)."),
    ] = None
    prompt_date: Annotated[
        str | None,
        _option(
            MODEL,
            "Date that the text encoder reads before the prompt, or today (the model's).",
            metavar="YYYY-MM-DD",
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        _option(MODEL, "Apply a LoRA; repeat for more.", metavar="PATH[:WEIGHT]"),
    ] = None
    lora_folder: Annotated[
        Path | None,
        _option(MODEL, "Folder of the LoRAs that prompts name, as <lora:NAME:0.8> (~/.config/lens/loras)."),
    ] = None
    dtype: Annotated[DtypeName | None, _option(MODEL, "Dtype of weights and computation (auto).")] = None
    device: Annotated[
        str | None, _option(MODEL, "cpu, cuda, cuda:1 or mps (the fastest available).", metavar="NAME")
    ] = None
    memory: Annotated[
        str | None,
        _option(MODEL, "Memory to run in, such as 8GB; auto is what is free (auto).", metavar="SIZE"),
    ] = None
    text_cache: Annotated[
        TextCacheOption | None,
        _option(MODEL, "Keep text features on disk; auto does for large text encoders (auto)."),
    ] = None
    offload: Annotated[
        OffloadMode, _option(MODEL, "Keep unused components, or blocks of the denoiser, in main memory.")
    ] = "none"
    quantize: Annotated[
        QuantizeFormat | None, _option(MODEL, "Quantise weights when they are loaded (none).")
    ] = None

    out: Annotated[
        Path | None,
        _option(OUTPUT, "Output folder, or the file of a single image, which is replaced.", "--out", "-o"),
    ] = None
    image_format: Annotated[ImageFormat | None, _option(OUTPUT, "File format (png).", "--format")] = None
    as_json: AsJson = False

    recorded_seed: int | None = None
    """Only from --like: the seed where --seed is not given."""
    model_hash: str | None = None
    """Only from --like: the content hash that the model must have."""
    tile_px: int | None = None
    """Only from --like: the side of tiles to decode in."""
    threads: int | None = None
    """Only from --like: CPU threads to compute with."""
    original_prompt: str | None = None
    """Only from --like or a line of settings: the request that became this prompt."""
    reasoner_record: Any = None
    """Likewise: the `ReasonerRecord` of the reasoner that was asked then, and is not asked again."""

    @cached_property
    def image_size(self) -> tuple[int | None, int | None] | None:
        """(width, height) of --size."""
        if self.size is None:
            return None if self.width is None and self.height is None else (self.width, self.height)
        return parse_size(self.size)

    @property
    def size_words(self) -> SizeWords:
        """What errors call the size: as it was given."""
        return SIZE_WORDS if self.size is None else SIZE_WORDS._replace(height="", width="")

    @cached_property
    def loras(self) -> tuple[LoraArgument, ...]:
        return tuple(parse_lora(text) for text in self.lora or ())

    @cached_property
    def prompt_reader(self) -> "PromptReader":
        """What reads the prompts, with the folders of these options."""
        from lens.prompts.reading import PromptReader

        return PromptReader(
            self.wildcards or config_folder() / "wildcards",
            self.style_file or config_folder() / "styles.yaml",
            wildcard_setting="--wildcards",
            style_setting="--style",
        )

    def find_lora(self, lora: "InlineLora") -> LoraArgument:
        """Return the file of a LoRA that a prompt names. Raises: SettingError."""
        from lens.prompts.loras import find_lora

        folder = self.lora_folder or config_folder() / "loras"
        return LoraArgument(find_lora(lora.name, folder, "--lora-folder"), lora.weight)

    @cached_property
    def first_seed(self) -> int:
        """The seed of the first image of each prompt; a random one is drawn once."""
        if self.seed is None and self.recorded_seed is not None:
            return self.recorded_seed
        return random_seed() if self.is_seed_random else parse_seed(self.seed or RANDOM_SEED, "--seed")

    @property
    def is_seed_random(self) -> bool:
        """Whether nobody chose the seed."""
        if self.seed is None:
            return self.recorded_seed is None
        return parse_seed(self.seed, "--seed") == RANDOM_SEED

    @property
    def reasoner_options(self) -> ReasonerOptions:
        return ReasonerOptions(self.reasoner, self.reasoner_model, self.system_prompt, self.policy)

    @property
    def asks_reasoner(self) -> bool:
        return self.reason and self.reasoner_record is None

    @property
    def has_size(self) -> bool:
        given = (self.size, self.width, self.height, self.aspect_ratio, self.base_resolution)
        return any(value is not None for value in given)

    @property
    def quantization(self) -> str | None:
        return None if self.quantize == "none" else self.quantize

    @property
    def step_cache(self) -> str | None:
        return None if self.cache == "none" else self.cache

    @property
    def num_images(self) -> int:
        return len(self.prompts or ()) * self.num_images_per_prompt

    def complete(self) -> list[Self]:
        """Return the arguments of each prompt or line of settings, with the values of --like, checked.

        Raises: LensError for values that contradict each other and for files that cannot be used.
        """
        _ = self.image_size, self.loras  # a malformed value is reported before files are read
        for path, setting, kind in (
            (self.wildcards, "--wildcards", "folder"),
            (self.lora_folder, "--lora-folder", "folder"),
            (self.style_file, "--style-file", "file"),
        ):
            if path is not None and not (path.is_dir() if kind == "folder" else path.is_file()):
                raise SettingError(setting, str(path), f"a {kind} that exists", "Check the path.")
        self.reasoner_options.check(is_used=self.reason)
        from lens.cli.generation.batch import batch_lines

        lines = batch_lines(self.prompts or [], self.from_file, read_stdin=self.like is None)
        own = replace(self, prompts=None, from_file=None)
        if not lines:
            return [own._complete_one()]
        requests = []
        for line, place in lines:
            try:
                requests.append(replace(own, **line.changes())._complete_one())
            except LensError as error:
                if not place:
                    raise
                raise LensError(f"In {place}: {error}") from error
        return requests

    def _complete_one(self) -> Self:
        """Return these arguments, of one prompt, with the values of --like, checked."""
        if self.like is None:
            return self.check()
        has_size = self.has_size or self.init_image is not None
        recorded = read_like(self.like, has_prompt=bool(self.prompts), has_size=has_size)
        if isinstance(recorded, dict):
            return self._fill(recorded).check()
        return self.fill_from_image(self.like, recorded).check()

    def _fill(self, recorded: Mapping[str, Any]) -> Self:
        missing = [field.name for field in fields(self) if getattr(self, field.name) in (None, [])]
        return replace(self, **{name: recorded[name] for name in missing if name in recorded})

    def check(self) -> Self:
        """Return these arguments if their values are in range and fit each other."""
        ways = {"--size": self.size, "--width": self.width, "--height": self.height}
        named = next((name for name, value in ways.items() if value is not None), None)
        others = {"--aspect-ratio": self.aspect_ratio, "--base-resolution": self.base_resolution}
        others |= {} if self.size is None else {"--width": self.width, "--height": self.height}
        other = next((name for name, value in others.items() if value is not None), None)
        if named and other:
            raise SettingError(named, ways[named], f"to be given without {other}", "Give one.")
        if self.memory is not None:
            if self.offload != "none":
                raise SettingError("--memory", self.memory, "to be given without --offload", "Give one.")
            parse_memory(self.memory)
        check_device(self.device, self.offload, self.quantization)
        if self.steps is not None:
            check_number("--steps", self.steps, 1, 1000)
        if self.guidance is not None:
            check_number("--cfg", self.guidance, 0, 100, "1 turns guidance off.")
        if self.seed is not None:
            parse_seed(self.seed, "--seed")
        for text in self.prompts or ():
            check_prompt_text(text, "the prompt")
        check_prompt_text(self.negative_prompt or "", "--negative")
        if self.init_image is None and self.mask is not None:
            raise SettingError("--mask", str(self.mask), "a source image", "Add --init-image IMAGE.")
        check_strength("--strength", self.strength)
        check_upscale(self.upscale, self.upscale_strength, has_mask=self.mask is not None)
        if self.prompt_date is not None:
            return replace(self, prompt_date=parse_prompt_date(self.prompt_date, "--prompt-date"))
        return self

    def fill_from_image(self, path: Path, metadata: "ImageMetadata") -> Self:
        """Return these arguments with missing ones filled from the metadata of an image.

        A model, LoRA or source image that comes from the metadata must have the content recorded there.
        Raises: LensError naming a file that has changed or is missing, and the option that replaces it.
        """
        recorded = recorded_arguments(path, metadata, vars(self), self.has_size)
        # An image of an extreme size was accepted once; reproducing it needs no second confirmation.
        return replace(self._fill(recorded), allow_extreme=True)
