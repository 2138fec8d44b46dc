"""The transformers backend: captions by a vision-language model on this machine."""

import io
from typing import Any

import torch
from PIL import Image

from lens.data.captions.prompts import CaptionPrompt
from lens.llm.client import ChatResponse


class TransformersBackend:
    """Asks one loaded model, one image at a time. Weights are read from safetensors only."""

    def __init__(self, model: str, device: str = "auto"):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.name = model
        has_gpu = torch.cuda.is_available()
        self._device = torch.device(("cuda" if has_gpu else "cpu") if device == "auto" else device)
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._processor: Any = AutoProcessor.from_pretrained(model, use_fast=False)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, use_safetensors=True)
        self._model = loaded.eval().to(self._device)

    @torch.no_grad()
    def ask(self, image_bytes: bytes, prompt: CaptionPrompt, temperature: float, seed: int) -> ChatResponse:
        """Return the response to a prompt about a JPEG; the same seed gives the same response."""
        image = Image.open(io.BytesIO(image_bytes)).convert("RGB")
        content = [{"type": "image", "image": image}, {"type": "text", "text": prompt.user}]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
            {"role": "user", "content": content},
        ]
        inputs = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self._device)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.random.fork_rng(enabled=bool(temperature)):
            torch.manual_seed(seed)
            generated = self._model.generate(**inputs, max_new_tokens=prompt.max_tokens, **sampling)
        num_prompt = inputs["input_ids"].shape[1]
        completion = generated[0, num_prompt:]
        text = self._processor.batch_decode(completion[None], skip_special_tokens=True)[0]
        is_cut = len(completion) == prompt.max_tokens and int(completion[-1]) not in self._eos_token_ids()
        return ChatResponse(text.strip(), False, is_cut, num_prompt, len(completion))

    def _eos_token_ids(self) -> list[int]:
        end = self._model.generation_config.eos_token_id
        return end if isinstance(end, list) else [end]
