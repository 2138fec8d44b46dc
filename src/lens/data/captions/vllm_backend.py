"""The vLLM backend: captions on the GPUs of a cluster, through Ray Data's stage for language models.

Ray reads and encodes the images on its CPUs, keeps the engines busy, and restarts an engine that died. The
caller keeps each response as soon as it is yielded.
"""

import base64
import pickle
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from lens.data.captions.prompts import CAPTION_PROMPTS
from lens.data.captions.requests import CaptionRequest, encode_for_model
from lens.data.captions.settings import VllmCaptionerSettings
from lens.errors import MissingExtraError
from lens.llm.client import ChatError, ChatResponse

Row = dict[str, Any]
ERROR_COLUMN = "__inference_error__"
"""Column in which Ray puts the error of a row."""


def vllm_responses(
    settings: VllmCaptionerSettings,
    requests: Collection[CaptionRequest],
    processor: Callable[..., Any] | None = None,
) -> Iterator[tuple[str, ChatResponse | ChatError]]:
    """Yield the response, or the error, of each request by key; `processor` overrides vLLM's.

    Raises: MissingExtraError.
    """
    import ray

    # As bytes: Ray's tables would take the tuples apart.
    rows = [{"request": pickle.dumps(request)} for request in requests]
    process = (processor or create_vllm_processor)(
        settings, partial(preprocess_row, settings), postprocess_row
    )
    for row in process(ray.data.from_items(rows)).iter_rows():
        if failure := row.get(ERROR_COLUMN, ""):
            yield row["key"], ChatError(f"vLLM: {failure}", is_final=False)
        else:
            yield row["key"], ChatResponse(*(row[name] for name in ChatResponse._fields))


def preprocess_row(settings: VllmCaptionerSettings, row: Row) -> Row:
    """Return the engine's input for a request: messages and sampling parameters."""
    request: CaptionRequest = pickle.loads(row["request"])
    prompt = CAPTION_PROMPTS[request.kind]
    jpeg_base64 = base64.b64encode(encode_for_model(request.sample.read(), settings.side_px)).decode()
    content = [
        {"type": "text", "text": prompt.user},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg_base64}"}},
    ]
    sampling = {
        "temperature": settings.temperature,
        "max_tokens": prompt.max_tokens,
        "seed": request.attempt,
    }
    return {
        "key": request.key,
        "max_tokens": prompt.max_tokens,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}],
        "sampling_params": sampling,
    }


def postprocess_row(row: Row) -> Row:
    """Return the key and the response of an engine's output."""
    num_generated = int(row["num_generated_tokens"])
    response = ChatResponse(
        text=row["generated_text"].strip(),
        is_refused=False,
        is_cut=num_generated >= row["max_tokens"],
        prompt_tokens=int(row["num_input_tokens"]),
        completion_tokens=num_generated,
    )
    return {"key": row["key"], **response._asdict()}


def create_vllm_processor(
    settings: VllmCaptionerSettings, preprocess: Callable[[Row], Row], postprocess: Callable[[Row], Row]
) -> Callable[[Any], Any]:
    """Return vLLM as a function from a Ray dataset to a Ray dataset."""
    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise MissingExtraError("The captioner vllm", "ray[llm]", "data,vllm", is_pinned=False) from error
    config = vLLMEngineProcessorConfig(
        model_source=settings.model,
        engine_kwargs={"limit_mm_per_prompt": {"image": 1}, **settings.engine},
        concurrency=settings.replicas,
        batch_size=settings.batch_size,
        # One image that the model cannot process must not stop the others.
        should_continue_on_error=True,
        prepare_multimodal_stage={"enabled": True, "chat_template_content_format": "openai"},
    )
    return build_processor(config, preprocess=preprocess, postprocess=postprocess)
