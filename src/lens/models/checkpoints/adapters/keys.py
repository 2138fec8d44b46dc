"""Keys of adapter files in every style: which layer and which part of its weights a key names.

Free of torch. QKV is fused in Lens, so nothing is split. Spec: section 6.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lens.models.checkpoints.detect import DENOISER_PREFIXES

DOTTED_PREFIXES = ("base_model.model.", *DENOISER_PREFIXES)
UNDERSCORE_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_", "oft_unet_")
TEXT_ENCODER_PREFIXES = (
    "lora_te", "lora_prior_te_", "lycoris_te", "oft_te", "text_encoder", "base_model.model.text_encoder",
    "text_model.", "cond_stage_model.", "conditioner.", "clip_",
)  # fmt: skip

_LOW_RANK = re.compile(
    r"^(?P<module>.+?)(?:\.(?P<part>lora_A|lora_B|lora_down|lora_up|lora_mid|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)\w+))?(?:\.(?P<kind>weight|bias))?"
    r"|\.lora_linear_layer\.(?P<linear>up|down)\.weight|[._]lora\.(?P<old>up|down)\.weight)$"
)
_OTHER = re.compile(
    r"^(?P<module>.+)\.(?P<part>alpha|dora_scale|lokr_w[12](?:_[ab])?|lokr_t2|hada_w[12]_[ab]|hada_t[12]"
    r"|diff|diff_b|set_weight|w_norm|b_norm|oft_blocks|rescale)(?:\.weight)?$"
)
_GLORA = re.compile(r"^(?P<module>.+)\.(?P<part>[ab][12])\.weight$")
_PEFT_ROTATION = re.compile(
    r"^(?P<module>.+)\.(?P<part>oft_R|boft_R|boft_s)(?:\.(?P<adapter>(?!weight$)\w+))?(?:\.weight)?$"
)
_PART_OF_NAME = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up", "lora_mid": "mid",
                 "lora_magnitude_vector": "magnitude", "dora_scale": "magnitude", "w_norm": "diff",
                 "b_norm": "diff_b"}  # fmt: skip

KIND_OF_PART = {
    "down": "LoRA", "up": "LoRA", "mid": "LoRA",
    **{f"lokr_{name}": "LoKr" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    **{f"hada_{name}": "LoHa" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **dict.fromkeys(("a1", "a2", "b1", "b2"), "GLoRA"),
    "oft_blocks": "OFT", "rescale": "OFT", "oft_R": "OFT of PEFT",
    "boft_R": "BOFT of PEFT", "boft_s": "BOFT of PEFT",
    "diff": "full difference", "set_weight": "replaced weight",
}  # fmt: skip
"""The kind of adapter of each part that only one kind has."""

_UNSUPPORTED = (
    ("OFT of an embedding", r"oft_embedding_R"), ("OFT of its own names", r"oft_diag"),
    ("GLoRA of a kernel", r"bm\.weight"), ("GLoRA of PEFT", r"glora_\w+"),
    ("IA3", r"ia3_l|on_input"), ("VeRA", r"p?vera_\w+"), ("AdaLoRA", r"lora_E|ranknum"), ("HRA", r"hra_u"),
    ("VB-LoRA", r"vblora_\w+"), ("FourierFT", r"fourierft_\w+"), ("WaveFT", r"waveft_\w+"),
    ("MiSS", r"(?:miss|bone)_\w+"), ("RandLoRA", r"randlora_\w+"), ("C3A", r"c3a_\w+"),
    ("SHiRA", r"shira_\w+"), ("RoAd", r"road_\w+"), ("DeLoRA", r"delora_\w+"), ("GraLoRA", r"gralora_\w+"),
    ("HiRA", r"hira_\w+"), ("LoRA that changes a layer's shape", r"reshape_weight"),
    ("LoRA of an embedding", r"lora_embedding_[AB]"), ("LyCORIS with a scalar", r"scalar"),
    ("LyCORIS with a sparse bias", r"bias_(?:indices|values|size)"),
)  # fmt: skip


class AdapterKey(NamedTuple):
    """What a key names: the layer's text in the file, the part, and the adapter if the key names one."""

    module: str
    part: str
    """`down`, `up`, `mid`, `up_bias`, `magnitude`, `diff`, `diff_b`, or a name as in the file."""
    adapter: str | None = None


def parse_key(key: str) -> AdapterKey | None:
    """Return what a key of an adapter file names; None for a key of no supported kind."""
    match = _LOW_RANK.match(key)
    if match:
        side = match["linear"] or match["old"]
        part = side or _PART_OF_NAME[match["part"]]
        if match["kind"] == "bias":
            part = f"{part}_bias"
        return AdapterKey(match["module"], part, match["adapter"])
    match = _PEFT_ROTATION.match(key)
    if match:
        return AdapterKey(match["module"], match["part"], match["adapter"])
    match = _OTHER.match(key) or _GLORA.match(key)
    if match:
        return AdapterKey(match["module"], _PART_OF_NAME.get(match["part"], match["part"]))
    return None


def is_of_text_encoder(key: str) -> bool:
    """Return whether a key is for a text encoder, which Lens uses as it is."""
    return key.startswith(TEXT_ENCODER_PREFIXES)


def unsupported_kind(key: str) -> str | None:
    """Return the kind of adapter that a key belongs to, if it is a known one that is not supported."""
    for kind, part in _UNSUPPORTED:
        if re.search(rf"\.(?:{part})(?=\.|$)", key):
            return kind
    return None


class LayerNames:
    """The layers of a denoiser by their names in files."""

    def __init__(self, layers: Iterable[str]):
        self._names = {name for name in layers if not name.endswith(".bias")}
        self._joined: dict[str, str] = {name.replace(".", "_"): name for name in self._names}

    def find(self, text: str) -> str | None:
        """Return the layer of a key's module part; names with kohya's underscores are compared joined."""
        if text in self._names:
            return text
        for prefix in UNDERSCORE_PREFIXES:
            if text.startswith(prefix):
                return self._joined.get(text.removeprefix(prefix))
        for prefix in DOTTED_PREFIXES:
            if text.startswith(prefix):
                return self.find(text.removeprefix(prefix))
        return None


def diffusers_key(key: str, names: LayerNames) -> str:
    """Return a key under diffusers' name of its layer and part; one without a layer as it is."""
    parsed = parse_key(key)
    layer = names.find(parsed.module) if parsed else None
    if parsed is None or layer is None:
        return key
    is_vector = "magnitude_vector" in key
    name = {"down": "lora_A.weight", "up": "lora_B.weight", "up_bias": "lora_B.bias",
            "magnitude": "lora_magnitude_vector" if is_vector else "dora_scale"}.get(parsed.part)  # fmt: skip
    return f"transformer.{layer}.{name or key.removeprefix(parsed.module).strip('._')}"


def released_layers() -> LayerNames:
    """Return the layers of the released denoiser."""
    from lens.models.checkpoints.registry import LENS_DENOISER
    from lens.models.shapes import denoiser_shapes

    return LayerNames(adapter_layers_of(denoiser_shapes(LENS_DENOISER)))


def adapter_layers_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a denoiser's weights by layer; biases keep the names of their parameters."""
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items()}
