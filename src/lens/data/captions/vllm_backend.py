"""Captions by vLLM on the GPUs of a cluster, through Ray Data's stage for language models.

Ray reads and reduces the pictures on its CPUs, keeps the engines fed, and starts a dead one again. An answer
is kept by the caller as soon as it comes back.
"""

import base64
import pickle
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from lens.data.captions.captioner import CaptionRequest, encode_for_model
from lens.data.captions.prompts import CAPTION_PROMPTS
from lens.data.captions.settings import VllmCaptionerSettings
from lens.errors import MissingExtraError
from lens.llm.client import ChatError, ChatResponse

Row = dict[str, Any]
ERROR_COLUMN = "__inference_error__"
"""The column in which Ray says what went wrong with a row."""


def vllm_responses(
    settings: VllmCaptionerSettings,
    questions: Collection[CaptionRequest],
    processor: Callable[..., Any] | None = None,
) -> Iterator[tuple[str, ChatResponse | ChatError]]:
    """Yield an answer, or why there is none, for each question; `processor` takes the place of vLLM's.

    Raises: MissingExtraError.
    """
    import ray

    # As bytes: Ray's tables would take the tuples apart.
    rows = [{"question": pickle.dumps(question)} for question in questions]
    process = (processor or create_vllm_processor)(
        settings, partial(preprocess_row, settings), postprocess_row
    )
    for row in process(ray.data.from_items(rows)).iter_rows():
        if failure := row.get(ERROR_COLUMN, ""):
            yield row["key"], ChatError(f"vLLM: {failure}", is_final=False)
        else:
            yield row["key"], ChatResponse(*(row[name] for name in ChatResponse._fields))


def preprocess_row(settings: VllmCaptionerSettings, row: Row) -> Row:
    """Return what the engine is given for a question: messages, and how to sample."""
    question: CaptionRequest = pickle.loads(row["question"])
    prompt = CAPTION_PROMPTS[question.kind]
    jpeg_base64 = base64.b64encode(encode_for_model(question.sample.read(), settings.side_px)).decode()
    content = [
        {"type": "text", "text": prompt.user},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg_base64}"}},
    ]
    sampling = {
        "temperature": settings.temperature,
        "max_tokens": prompt.max_tokens,
        "seed": question.attempt,
    }
    return {
        "key": question.key,
        "max_tokens": prompt.max_tokens,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}],
        "sampling_params": sampling,
    }


def postprocess_row(row: Row) -> Row:
    """Return what is kept of an engine's output."""
    written = int(row["num_generated_tokens"])
    reply = ChatResponse(
        text=row["generated_text"].strip(),
        is_refused=False,
        is_cut=written >= row["max_tokens"],
        prompt_tokens=int(row["num_input_tokens"]),
        completion_tokens=written,
    )
    return {"key": row["key"], **reply._asdict()}


def create_vllm_processor(
    settings: VllmCaptionerSettings, preprocess: Callable[[Row], Row], postprocess: Callable[[Row], Row]
) -> Callable[[Any], Any]:
    """Return vLLM as a step from rows to rows."""
    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise MissingExtraError("The captioner vllm", "ray[llm]", "data,vllm") from error
    config = vLLMEngineProcessorConfig(
        model_source=settings.model,
        engine_kwargs={"limit_mm_per_prompt": {"image": 1}, **settings.engine},
        concurrency=settings.replicas,
        batch_size=settings.batch_size,
        # One picture that a model cannot take must not stop the others.
        should_continue_on_error=True,
        prepare_multimodal_stage={"enabled": True, "chat_template_content_format": "openai"},
    )
    return build_processor(config, preprocess=preprocess, postprocess=postprocess)
