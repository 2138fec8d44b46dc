"""Graphs of ComfyUI: the sampler that starts from an empty latent, followed to its values."""

import pytest

from lens.sampling.metadata_formats.comfyui import comfyui_settings, graph_of


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


PLAIN = {
    "3": node("KSampler", seed=156680208700286, steps=20, cfg=8, sampler_name="euler", scheduler="normal",
              denoise=1, model=["10", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
    "4": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", text="a glass bottle", clip=["10", 1]),
    "7": node("CLIPTextEncode", text="text, watermark", clip=["10", 1]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node("LoraLoader", lora_name="ink.safetensors", strength_model=0.8, strength_clip=1,
               model=["4", 0], clip=["4", 1]),
}  # fmt: skip
ADVANCED = {
    "1": node("SamplerCustomAdvanced", noise=["2", 0], guider=["3", 0], sampler=["4", 0], sigmas=["5", 0],
              latent_image=["6", 0]),
    "2": node("RandomNoise", noise_seed=["12", 0]),
    "3": node("BasicGuider", model=["9", 0], conditioning=["7", 0]),
    "4": node("KSamplerSelect", sampler_name="euler"),
    "5": node("BasicScheduler", scheduler="simple", steps=28, denoise=1, model=["9", 0]),
    "6": node("EmptySD3LatentImage", width=["10", 0], height=1024, batch_size=1),
    "7": node("FluxGuidance", guidance=3.5, conditioning=["8", 0]),
    "8": node("CLIPTextEncode", text=["11", 0], clip=["13", 0]),
    "9": node("UNETLoader", unet_name="flux.safetensors"),
    "10": node("PrimitiveInt", value=832),
    "11": node("StringConcatenate", string_a="a fox", string_b=["14", 0], delimiter=", "),
    "12": node("Seed (rgthree)", seed=77),
    "14": node("PrimitiveStringMultiline", value="snow"),
}  # fmt: skip
TWO_PASSES = PLAIN | {
    "20": node("KSampler", seed=5, steps=9, cfg=2, sampler_name="dpmpp_2m", scheduler="karras", denoise=0.5,
               model=["4", 0], positive=["22", 0], negative=["22", 1], latent_image=["21", 0]),
    "21": node("LatentUpscale", upscale_method="nearest", width=1024, height=1536, samples=["3", 0]),
    "22": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=0.5),
}  # fmt: skip


def test_the_plain_graph_is_taken_over_and_the_rest_is_named():
    found = comfyui_settings(PLAIN)
    assert found.tool == "ComfyUI"
    assert (found.prompt, found.negative_prompt) == ("a glass bottle", "text, watermark")
    assert (found.seed, found.size, found.steps, found.guidance) == (156680208700286, "512x768", 20, 8.0)
    assert found.left_out == (
        "sampler_name euler", "scheduler normal", "ckpt_name v1-5.safetensors", "LoRA ink.safetensors (0.8)"
    )  # fmt: skip


def test_values_are_followed_through_guiders_primitives_and_joined_texts():
    found = comfyui_settings(ADVANCED)
    assert (found.prompt, found.negative_prompt) == ("a fox, snow", "")
    assert (found.seed, found.size, found.steps, found.guidance) == (77, "832x1024", 28, 3.5)
    assert "unet_name flux.safetensors" in found.left_out


def test_the_first_pass_counts_and_the_second_is_named():
    found = comfyui_settings(dict(reversed(TWO_PASSES.items())))
    assert (found.seed, found.size, found.steps, found.guidance) == (156680208700286, "512x768", 20, 8.0)
    assert {"further samplers 1", "denoise 0.5", "node LatentUpscale", "node ControlNetApplyAdvanced"} <= set(
        found.left_out
    )


def test_each_side_of_a_node_that_both_pass_through_keeps_its_text():
    through = PLAIN | {
        "3": node("KSampler", **PLAIN["3"]["inputs"] | {"positive": ["22", 0], "negative": ["22", 1]}),
        "22": TWO_PASSES["22"],
    }
    found = comfyui_settings(through)
    assert (found.prompt, found.negative_prompt) == ("a glass bottle", "text, watermark")


def test_a_zeroed_negative_side_has_no_text():
    zeroed = PLAIN | {"7": node("ConditioningZeroOut", conditioning=["6", 0])}
    assert comfyui_settings(zeroed).negative_prompt == ""


def test_a_seed_beyond_the_largest_is_left_out_by_name():
    large = PLAIN | {"3": node("KSampler", **PLAIN["3"]["inputs"] | {"seed": 2**64 - 1})}
    found = comfyui_settings(large)
    assert found.seed is None and any(one.startswith(f"seed {2**64 - 1} ") for one in found.left_out)


def test_circles_and_damaged_nodes_end():
    circle = {
        "3": node("KSampler", **PLAIN["3"]["inputs"] | {"seed": ["a", 0], "positive": ["b", 0]}),
        "a": node("PrimitiveInt", value=["a", 0]),
        "b": node("ConditioningCombine", one=["b", 0], two=["c", 0]),
        "c": node("ConditioningCombine", one=["b", 0], two=["missing", 0], three=[{}, 0], four=[[1], 0]),
        "5": {"class_type": None, "inputs": None},
        "7": {},
    }
    found = comfyui_settings(circle)
    assert (found.prompt, found.seed, found.size, found.steps) == ("", None, None, 20)


@pytest.mark.parametrize("document", [None, [], {}, {"a": 1}, {"nodes": []}, {"prompt": "a fox"}])
def test_other_documents_are_no_graphs(document):
    assert graph_of(document) is None
