"""Images of other tools in PNG, JPEG and WebP, written the way that each tool writes them."""

import json

import pytest
from PIL import Image, PngImagePlugin

from lens.errors import LensError
from lens.sampling.image_metadata import read_image_metadata, read_image_settings
from lens.sampling.metadata_formats.foreign_settings import ForeignSettings
from lens.sampling.metadata_formats.image_texts import decode_user_comment

MAKE, MODEL, DESCRIPTION, SOFTWARE, EXIF_FOLDER, COMMENT = 0x010F, 0x0110, 0x010E, 0x0131, 0x8769, 0x9286
TEXT = """a f\u00f6x <lora:ink:0.8>
Negative prompt: blur
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: dream"""
GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0], "model": ["4", 0]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a f\u00f6x"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blur"}},
}  # fmt: skip
WORKFLOW = {"nodes": [{"id": 3, "type": "KSampler", "widgets_values": [5, "fixed", 20]}], "links": []}
INVOKE = {
    "app_version": "5.4.0", "generation_mode": "sdxl_txt2img", "positive_prompt": "a f\u00f6x",
    "negative_prompt": "blur", "width": 512, "height": 768, "seed": 5, "rand_device": "cpu", "cfg_scale": 7.0,
    "steps": 20, "scheduler": "euler", "model": {"name": "dream", "type": "main"},
    "loras": [{"model": {"name": "ink"}, "weight": 0.8}],
}  # fmt: skip
INVOKE_2 = {
    "app_id": "invoke-ai/InvokeAI", "model_weights": "dream",
    "image": {"prompt": [{"prompt": "a f\u00f6x [blur]", "weight": 1.0}], "steps": 20, "cfg_scale": 7.0,
              "width": 512, "height": 768, "seed": 5, "sampler": "k_euler"},
}  # fmt: skip
DREAM = '"a f\u00f6x [blur]" -s 20 -S 5 -W 512 -H 768 -C 7.0 -A k_euler'
FOOOCUS = {
    "prompt": "a f\u00f6x", "negative_prompt": "blur", "seed": "5", "steps": 20, "guidance_scale": 7,
    "resolution": "(512, 768)", "sampler": "euler", "metadata_scheme": "fooocus",
}  # fmt: skip
SWARM = {"sui_image_params": {
    "prompt": "a f\u00f6x", "negativeprompt": "blur", "seed": 5, "steps": 20, "cfgscale": 7.0, "width": 512,
    "height": 768, "model": "dream"}}  # fmt: skip
NOVEL = {
    "prompt": "a f\u00f6x", "uc": "blur", "seed": 5, "steps": 20, "scale": 7.0, "width": 512, "height": 768,
    "sampler": "k_euler",
}  # fmt: skip
PNG_TEXTS = {
    "AUTOMATIC1111": {"parameters": TEXT},
    "ComfyUI": {"prompt": json.dumps(GRAPH), "workflow": json.dumps(WORKFLOW)},
    "InvokeAI": {"invokeai_metadata": json.dumps(INVOKE), "invokeai_graph": "{}"},
    "InvokeAI 2": {"Dream": DREAM, "sd-metadata": json.dumps(INVOKE_2)},
    "InvokeAI 1": {"Dream": DREAM},
    "Fooocus": {"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"},
    "SwarmUI": {"parameters": json.dumps(SWARM)},
    "NovelAI": {"Software": "NovelAI", "Description": "a f\u00f6x", "Comment": json.dumps(NOVEL)},
}
EXIF_TAGS = {
    "AUTOMATIC1111": {COMMENT: b"UNICODE\0" + TEXT.encode("utf-16-be")},
    "AUTOMATIC1111, the other order": {COMMENT: b"UNICODE\0" + TEXT.encode("utf-16-le")},
    "ComfyUI": {MODEL: f"prompt:{json.dumps(GRAPH)}", MAKE: f"workflow:{json.dumps(WORKFLOW)}"},
    "ComfyUI, an extension": {
        DESCRIPTION: f"Workflow:{json.dumps(WORKFLOW)}", MAKE: f"Prompt:{json.dumps(GRAPH)}"
    },
    "ComfyUI, both in the comment": {
        COMMENT: b"UNICODE\0" + json.dumps({"prompt": GRAPH, "workflow": WORKFLOW}).encode("utf-16-be")
    },
    "InvokeAI": {COMMENT: b"UNICODE\0" + json.dumps(INVOKE).encode("utf-16-be")},
    "InvokeAI, converted": {DESCRIPTION: json.dumps(INVOKE)},
    "Fooocus": {COMMENT: b"UNICODE\0" + json.dumps(FOOOCUS).encode("utf-16-be")},
}  # fmt: skip


def image() -> Image.Image:
    return Image.linear_gradient("L").resize((48, 32)).convert("RGB")


def exif_of(tags: dict) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        (exif.get_ifd(EXIF_FOLDER) if tag == COMMENT else exif)[tag] = value
    return exif.tobytes()


def read(path) -> ForeignSettings:
    found = read_image_settings(path)
    assert isinstance(found, ForeignSettings)
    return found


def check(found: ForeignSettings, tool: str) -> None:
    assert found.tool == tool.replace(",", "").split()[0]
    assert (found.prompt, found.negative_prompt) == ("a f\u00f6x", "blur")
    assert (found.seed, found.size, found.steps, found.guidance) == (5, "512x768", 20, 7.0)
    other = "dream" if tool == "SwarmUI" else "euler"
    assert other in found.summary.partition(" Not taken over: ")[2].lower()


@pytest.mark.parametrize("tool", PNG_TEXTS)
@pytest.mark.parametrize("kind", ["add_text", "add_itxt"])
def test_a_png_of_another_tool_is_read(tmp_path, tool, kind):
    chunks = PngImagePlugin.PngInfo()
    for name, text in PNG_TEXTS[tool].items():
        getattr(chunks, kind)(name, text)
    image().save(tmp_path / "a.png", pnginfo=chunks)
    check(read(tmp_path / "a.png"), tool)


@pytest.mark.parametrize("tool", EXIF_TAGS)
@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_exif_of_another_tool_is_read(tmp_path, tool, suffix):
    image().save(tmp_path / f"a.{suffix}", exif=exif_of(EXIF_TAGS[tool]))
    check(read(tmp_path / f"a.{suffix}"), tool)


def test_an_image_of_draw_things_is_read(tmp_path):
    document = {
        "c": "a f\u00f6x", "uc": "blur", "seed": 5, "steps": 20, "scale": 7, "size": "512x768",
        "sampler": "Euler A", "v2": {},
    }  # fmt: skip
    image().save(tmp_path / "a.jpg", exif=exif_of({COMMENT: b"ASCII\0\0\0" + json.dumps(document).encode()}))
    found = read(tmp_path / "a.jpg")
    assert (found.tool, found.prompt, found.negative_prompt) == ("Draw Things", "a f\u00f6x", "blur")
    assert (found.size, found.steps, found.left_out) == ("512x768", 20, ("sampler Euler A",))


def test_a_workflow_without_the_values_of_a_run_is_named(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("workflow", json.dumps(WORKFLOW))
    image().save(tmp_path / "a.png", pnginfo=chunks)
    told = "Taken over from ComfyUI: nothing. Not taken over: all settings: it has the workflow"
    assert read(tmp_path / "a.png").summary.startswith(told)


def test_the_text_file_beside_an_image_is_read_where_the_image_has_no_settings(tmp_path):
    image().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    found = read(tmp_path / "a.png")
    assert (found.tool, found.prompt, found.seed) == ("AUTOMATIC1111 (a.txt)", "a f\u00f6x", 5)
    for caption in (b"a fox in the snow", b"\xff\xfe\xff", bytes(300_000)):
        (tmp_path / "a.txt").write_bytes(caption)
        with pytest.raises(LensError, match=r"a\.png has no metadata"):
            read_image_settings(tmp_path / "a.png")


def test_an_image_of_another_tool_is_no_image_of_the_gallery(tmp_path):
    image().save(tmp_path / "a.jpg", exif=exif_of(EXIF_TAGS["AUTOMATIC1111"]))
    with pytest.raises(LensError, match=r"a\.jpg has no metadata of Lens, only settings of AUTOMATIC1111"):
        read_image_metadata(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("suffix", "options", "words"),
    [
        ("png", {}, "It is a PNG image of 48 x 32 pixels. Many"),
        ("jpg", {"exif": exif_of({MAKE: "Canon", MODEL: "EOS 5D"})}, "JPEG .*, taken with Canon EOS 5D"),
        ("webp", {"exif": exif_of({SOFTWARE: "GIMP 2.10"})}, "WEBP .*, saved by GIMP 2.10"),
        ("jpg", {"xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="trainedAlgorithmicMedia"/></x:xmpmeta>'},
         "marked as generated by a trained model"),
    ],
)  # fmt: skip
def test_an_image_without_settings_says_what_it_is(tmp_path, suffix, options, words):
    image().save(tmp_path / f"a.{suffix}", **options)
    claim = rf"a\.{suffix} has no metadata of Lens, AUTOMATIC1111, ComfyUI or InvokeAI\. .*{words}"
    with pytest.raises(LensError, match=claim):
        read_image_settings(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\0\xff\xfea\0b\0", "ab"), (b"UNICODE\0\xfe\xff\0a\0b", "ab"),
        (b"UNICODE\0\0a\0b\0\0", "ab"),
        (b"UNICODE\0a\0b\0", "ab"), (b"ASCII\0\0\0ab", "ab"), (bytes(8) + b"ab\0", "ab"), (b"plain", "plain"),
        (b"JIS\0\0\0\0\0\x1b$B$\"\x1b(B", "\u3042"), (b"UNICODE\0\xd8", "\ufffd"), (7, ""),
    ],
)  # fmt: skip
def test_comments_of_every_character_set_are_read(comment, text):
    assert decode_user_comment(comment) == text
