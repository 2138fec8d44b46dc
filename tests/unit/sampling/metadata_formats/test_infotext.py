"""Texts of AUTOMATIC1111's format: what Lens writes comes back, and what others write is understood."""

import re

import pytest

from lens.core.noise import MAX_SEED
from lens.sampling.metadata_formats.infotext import format_infotext, parse_fields, parse_infotext

CLASSIC = """a girl in a desert, <lora:ink:0.8>, ((eyeshadow)), by <lora:oil paint:1> Mucha
her hat is red: bright red
Negative prompt: ugly, blur: yes
bad anatomy
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 45dee52b, Model: "odd, name: 2", Denoising strength: 0.55, Clip skip: 2, \
Lora hashes: "ink: aabbccddeeff, oil paint: 001122334455", Hires upscale: 2, Version: v1.10.1"""
# The web UI's own way to find fields.
PEERS_FIELDS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def test_a_text_of_the_web_ui_is_taken_over_and_the_rest_is_named():
    found = parse_infotext(CLASSIC)
    assert found is not None and found.tool == "AUTOMATIC1111"
    assert found.prompt == "a girl in a desert, ((eyeshadow)), by Mucha\nher hat is red: bright red"
    assert found.negative_prompt == "ugly, blur: yes\nbad anatomy"
    assert (found.seed, found.size, found.steps, found.guidance) == (965400086, "512x768", 20, 7.0)
    assert found.left_out == (
        "<lora:ink:0.8>", "<lora:oil paint:1>", "Sampler DPM++ 2M", "Schedule type Karras",
        "Model odd, name: 2", "Denoising strength 0.55", "Clip skip 2", "Hires upscale 2",
    )  # fmt: skip
    taken = "Taken over from AUTOMATIC1111: prompt, negative prompt, seed, size, steps, guidance. "
    assert found.summary.startswith(f"{taken}Not taken over: <lora:ink:0.8>, ")


def test_values_are_quoted_where_readers_would_take_them_apart():
    fields = {"Steps": 4, "Sampler": "Euler", "Seed": 5, "Init image": 'a, "b": c.png', "Mask": "two\nlines"}
    text = format_infotext("a fox", "", fields, [("my: ink two", -0.5, "ab" * 6)], {"model": "0" * 10})
    first, line = text.split("\n")
    assert first == "a fox <lora:my_ink two:-0.5>"
    assert parse_fields(line) == {
        **{name: str(value) if isinstance(value, int) else value for name, value in fields.items()},
        "Lora hashes": f"my_ink two: {'ab' * 6}",
        "Hashes": {"model": "0" * 10},
    }
    peers = dict(PEERS_FIELDS.findall(line))
    assert peers["Lora hashes"] == f'"my_ink two: {"ab" * 6}"' and peers["Mask"] == '"two\\nlines"'
    assert set(peers) == set(parse_fields(line))


@pytest.mark.parametrize(
    ("line", "tool"),
    [
        ("Steps: 4, Seed: 1, Version: f2.0.1v1.10.1", "AUTOMATIC1111"),
        ("Steps: 4, Seed: 1, Version: Fooocus v2.5.0", "Fooocus"),
        ("Steps: 4, Seed: 1, Version: ComfyUI", "ComfyUI"),
        ("Steps: 4, Seed: 1, Version: lens 0.1.0", "Lens"),
    ],
)
def test_a_tool_that_names_itself_is_named(line, tool):
    found = parse_infotext(f"a fox\n{line}")
    assert found is not None and found.tool == tool and found.prompt == "a fox"


def test_lines_of_extensions_below_the_fields_do_not_hide_them():
    found = parse_infotext("a fox\nSteps: 4, Seed: 1, CFG scale: 2\nTemplate: a {fox|bear}, x: 1, y: 2")
    assert found is not None and (found.prompt, found.seed, found.guidance) == ("a fox", 1, 2.0)


@pytest.mark.parametrize("text", ["", "a fox", "a fox, red: yes, size: big, x: y", "Steps: three\nSeed: 5"])
def test_other_texts_are_no_settings(text):
    assert parse_infotext(text) is None


def test_values_out_of_range_are_left_out_by_name():
    seed = MAX_SEED + 1
    found = parse_infotext(f"a fox\nSteps: 0, Seed: {seed}, CFG scale: nan, Size: 1000x510, Sampler: x")
    assert found is not None
    assert (found.seed, found.steps, found.guidance, found.size) == (None, None, None, "1008x512")
    assert [re.split(r" \(| (?=x$)", one)[0] for one in found.left_out] == [
        f"seed {seed}", "size 1000x510", "steps 0", "guidance nan", "Sampler"
    ]  # fmt: skip


def test_a_whole_number_may_have_a_point():
    found = parse_infotext("a fox\nSteps: 20.0, Seed: 9007199254740991, CFG scale: 7")
    assert found is not None and (found.steps, found.seed, found.left_out) == (20, 2**53 - 1, ())
    found = parse_infotext("a fox\nSteps: 20.5, Seed: 3")
    assert found is not None and found.steps is None and "steps 20.5" in found.left_out[0]


def test_hostile_texts_are_read_in_no_time():
    prompt = f"{'a, ' * 100_000}{'<lora:' * 10_000}{' ' * 100_000}x"
    text = f"{prompt}\nSteps: 1, Seed: {{,{'a: {, ' * 10_000}{'[' * 10_000}"
    found = parse_infotext(text)
    assert found is not None and found.steps == 1 and found.seed is None
    assert all(len(one) < 200 for one in found.left_out)
