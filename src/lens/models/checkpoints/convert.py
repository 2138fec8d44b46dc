"""Conversion of denoisers, adapters and VAEs from one published layout to another.

The layout of a source is detected; the target's is given by the name of a format.
"""

from pathlib import Path

from lens.errors import CheckpointError, SettingError

FORMATS = {
    "folder": "denoiser as a diffusers folder, in its stored dtype (bfloat16 if quantized)",
    "single-bf16": "denoiser as one .safetensors file in bfloat16",
    "single-f32": "denoiser as one .safetensors file in float32",
    "lora-peft": "adapter under PEFT names without a prefix",
    "lora-diffusion-model": "adapter under `diffusion_model.` names with alphas",
    "lora-kohya": "adapter under kohya names with alphas",
    "vae-diffusers": "VAE as a diffusers folder",
    "vae-flux2": "VAE as one .safetensors file under FLUX.2 names",
}


def convert(source: str | Path, target: str | Path, format: str) -> Path:
    """Write `source` to `target` in a format of FORMATS and return the target's path.

    Where the source does not fit, nothing is written.
    Raises: SettingError for an unknown format or a target that exists; CheckpointError for the source.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if format not in FORMATS:
        raise SettingError("format", format, f"one of {', '.join(FORMATS)}")
    if target.exists():
        raise SettingError("target", str(target), "a path that does not exist yet", "Choose another.")
    if not source.exists():
        raise CheckpointError(f"{source} does not exist. Check the path.")
    is_folder = format in ("folder", "vae-diffusers")
    if not is_folder and target.suffix != ".safetensors":
        raise SettingError(
            "target", str(target), "a name that ends in .safetensors", f"{format} is one file."
        )
    if format.startswith("lora-"):
        return _convert_adapter(source, target, format.removeprefix("lora-").replace("-", "_"))
    if format.startswith("vae-"):
        return _convert_vae(source, target, format)
    return _convert_denoiser(source, target, format)


def _convert_denoiser(source: Path, target: Path, format: str) -> Path:
    import torch

    from lens.models.checkpoints.single_file import load_denoiser, save_denoiser
    from lens.models.checkpoints.writer import clear_name_or_path

    dtypes = {"single-bf16": torch.bfloat16, "single-f32": torch.float32}
    dtype = dtypes.get(format) or _stored_dtype(source)
    denoiser = load_denoiser(source, dtype)
    clear_name_or_path(denoiser)
    return save_denoiser(denoiser, target)


def _stored_dtype(source: Path):
    """Return the dtype of a plain denoiser's weights; bfloat16 for a quantized one."""
    import torch

    from lens.models.checkpoints.diffusers_folder import open_component, resolve_component_folder
    from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
    from lens.models.checkpoints.reader import open_safetensors

    if source.is_dir():
        tensors = open_component(resolve_component_folder(source, "transformer"), "transformer").tensors
    elif source.suffix.lower() == GGUF_SUFFIX:
        return torch.bfloat16
    else:
        tensors = open_safetensors(source).tensors
    dtypes = {tensor.dtype for tensor in tensors.values()}
    return torch.float32 if dtypes == {"F32"} else torch.bfloat16


def _convert_adapter(source: Path, target: Path, style: str) -> Path:
    from lens.models.checkpoints.adapters.keys import adapter_layers_of
    from lens.models.checkpoints.adapters.lora_formats import read_adapter, write_adapter
    from lens.models.checkpoints.registry import LENS_DENOISER
    from lens.models.shapes import denoiser_shapes

    # Only names matter here, and those of a smaller Lens are a part of the released model's.
    layers = adapter_layers_of(denoiser_shapes(LENS_DENOISER))
    return write_adapter(read_adapter(source, layers, check_shapes=False), target, style)


def _convert_vae(source: Path, target: Path, format: str) -> Path:
    from lens.models.checkpoints.vae import load_vae, save_vae_single_file
    from lens.models.checkpoints.writer import clear_name_or_path

    vae = load_vae(source)
    if format == "vae-flux2":
        return save_vae_single_file(vae, target)
    clear_name_or_path(vae)
    vae.save_pretrained(target, safe_serialization=True)
    return target
