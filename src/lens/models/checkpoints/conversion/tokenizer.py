"""The tokenizer that a converted text encoder takes along: the JSON of the `tokenizers` library."""

from pathlib import Path

from lens.errors import CheckpointError
from lens.models.checkpoints.components.tokenizer import load_tokenizer_backend
from lens.models.checkpoints.detect import TOKENIZER_KEY
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX, read_gguf_header
from lens.models.checkpoints.reader import open_safetensors, validate_file

FILE_NAME = "tokenizer.json"


def find_tokenizer_json(text_encoder: Path, given: Path | None = None) -> bytes | None:
    """Return the JSON of the tokenizer that is given, or else of that with a text encoder; None without one.

    With it is: inside its file, in its folder, or in the folder `tokenizer` beside its folder.
    Raises: CheckpointError for a given path without a tokenizer.
    """
    if given is not None:
        found = _read(given)
        if found is None:
            raise CheckpointError(f"{given} has no tokenizer: it needs a {FILE_NAME}, inside or by name.")
        return found
    beside = text_encoder.parent / "tokenizer"
    places = (text_encoder, beside) if text_encoder.is_dir() else (text_encoder,)
    return next((found for place in places if (found := _read(place)) is not None), None)


def _read(path: Path) -> bytes | None:
    if path.is_dir():
        inside = (path / FILE_NAME, path / "tokenizer" / FILE_NAME)
        return next((file.read_bytes() for file in inside if file.is_file()), None)
    if path.suffix.lower() == GGUF_SUFFIX:
        has_one = "tokenizer.ggml.model" in read_gguf_header(path).settings
        return load_tokenizer_backend(path).to_str().encode() if has_one else None
    if path.suffix.lower() == ".safetensors":
        tensors = open_safetensors(path).tensors
        return tensors[TOKENIZER_KEY].read().numpy().tobytes() if TOKENIZER_KEY in tensors else None
    if not path.exists():
        return None
    validate_file(path)
    return path.read_bytes()
