"""Syntax inside prompts means the same in the API, in jobs and in the studio: it is read, or told."""

import base64
import io
import re

import openai
import pytest
from PIL import Image
from running import serving, until

from lens.errors import ModerationError
from lens.sampling.image_metadata import read_image_metadata
from lens.serve.api.generation import GenerationHooks
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.handlers import FORM_FIELDS, StudioHandlers

CHOICES = {"a red fox", "a blue fox"}


def refuse_green(prompt, caller):
    if "green" in prompt:
        raise ModerationError("prompt", "no green", "test", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    state = tmp_path_factory.mktemp("syntax")
    (state / "wildcards").mkdir()
    (state / "wildcards" / "colour.txt").write_text("red\nblue\n")
    (state / "styles.yaml").write_text(
        'night: {prompt: "{prompt}, at night", negative_prompt: "sun"}\nwarm: "{a warm|a hot} {prompt}"\n'
    )
    with serving(state, hooks=GenerationHooks(check_prompt=refuse_green)) as running:
        yield running


@pytest.fixture
def studio(server, tmp_path):
    return StudioHandlers(server.app.state.context.service, Gallery(tmp_path / "gallery"))


def draw(server, prompt, n=1, seed=5, **own):
    answer = server.client.images.generate(prompt=prompt, n=n, extra_body={"seed": seed} | own)
    return answer, server.engine.requests[-n:]


@pytest.mark.parametrize("prompt", ["a {red|blue} fox", "a __colour__ fox"])
def test_each_image_has_choices_of_its_own_seed_and_records_them(server, tmp_path, prompt):
    answer, asked = draw(server, prompt, n=8)
    prompts = [one.prompt for one in asked]
    assert set(prompts) == CHOICES and {one.prompt_template for one in asked} == {prompt}
    assert [one.revised_prompt for one in answer.data] == prompts
    assert [one.prompt for one in draw(server, prompt, n=8)[1]] == prompts
    assert draw(server, prompt, seed=7)[1][0].prompt == prompts[2]
    (tmp_path / "x.png").write_bytes(base64.b64decode(answer.data[1].b64_json))
    metadata = read_image_metadata(tmp_path / "x.png")
    assert (metadata.prompt, metadata.prompt_template, metadata.seed) == (prompts[1], prompt, 6)


def test_a_lora_in_the_prompt_is_one_of_the_server(server):
    _, [asked] = draw(server, "a fox <lora:ink:0.5>")
    assert (asked.prompt, [(one.name, one.weight) for one in asked.loras]) == ("a fox", [("ink", 0.5)])
    for prompt, own in (("a fox <lora:gone:1>", {}), ("<lora:ink:1> fox", {"loras": [{"name": "ink"}]})):
        with pytest.raises(openai.BadRequestError, match="loras"):
            draw(server, prompt, **own)


def test_weights_and_other_syntax_are_told_and_not_drawn_in_silence(server):
    answer, [asked] = draw(server, "a (red:1.3) fox [cat]")
    assert asked.prompt == "a red fox [cat]"
    warnings = " ".join(answer.model_extra["warnings"])
    assert "(red:1.3) is read as red" in warnings and "[cat]" in warnings
    assert draw(server, "a red fox (left) and a blue cat")[0].model_extra["warnings"] == []


def test_styles_are_put_around_the_prompt_and_their_negatives_act_with_guidance_alone(server):
    _, [asked] = draw(server, "a {red|blue} fox", styles=["night"], guidance=2, negative_prompt="fog")
    assert re.fullmatch("a (red|blue) fox, at night", asked.prompt) and asked.negative_prompt == "fog, sun"
    answer, [asked] = draw(server, "a red fox", styles=["night", "warm"])
    assert re.fullmatch("a (warm|hot) a red fox, at night", asked.prompt) and asked.negative_prompt == ""
    assert "negative" not in str(answer.model_extra["warnings"])
    with pytest.raises(openai.BadRequestError, match=r"styles is 'gone'.*night, warm"):
        draw(server, "a fox", styles=["gone"])


def test_upscaling_is_asked_for_by_its_factor_and_the_size_is_that_before(server):
    answer, [asked] = draw(server, "a red fox", size="96x64", upscale=2)
    assert (asked.width, asked.height, asked.first_size, asked.upscale_strength) == (192, 128, (64, 96), 0.5)
    assert answer.size == "192x128"
    for own in ({"upscale": 1}, {"upscale": 9}, {"upscale_strength": 2}, {"upscale": 4, "size": "720x720"}):
        with pytest.raises(openai.BadRequestError):
            draw(server, "a red fox", **own)


def test_every_choice_passes_the_operators_policy(server):
    with pytest.raises(openai.BadRequestError, match="no green"):
        draw(server, "a {red|blue|green} fox", n=10)
    assert draw(server, "a {red|blue} fox", n=10)


@pytest.mark.parametrize("prompt", ["a __gone__ fox", "{<lora:a:1>|<lora:b:1>}", "<lora:ink:much> fox"])
def test_what_cannot_be_read_is_refused(server, prompt):
    with pytest.raises(openai.BadRequestError):
        draw(server, prompt)


def test_a_job_draws_the_choices_that_were_made_when_it_was_accepted(server):
    body = {"prompt": "a __colour__ fox <lora:ink:0.3>", "n": 6, "seed": 5}
    first = server.http.post("/v1/jobs", json=body).json()["id"]
    until(lambda: server.http.get(f"/v1/jobs/{first}").json()["status"] == "done")
    asked = server.engine.requests[-6:]
    assert {one.prompt for one in asked} == CHOICES and {one.loras[0].weight for one in asked} == {0.3}
    _, same = draw(server, body["prompt"], n=6)
    assert sorted(one.prompt for one in same) == sorted(one.prompt for one in asked)


def test_the_studio_reads_prompts_alike_and_restores_what_was_drawn(server, studio, tmp_path):
    values = {
        "prompt": "a {red|blue} fox (at 1.2x)", "model": "lens-nano-turbo", "aspect_ratio": "1:1",
        "base_resolution": 128, "seed": 5, "is_seed_locked": True, "count": 6, "steps": 4, "guidance": 1.0,
        "solver": "euler", "size": "", "loras": [], "start": None, "strength": 0.6,
        "upscale": 1, "upscale_strength": 0.5,
    }  # fmt: skip
    controls = [values.get(name) for name in FORM_FIELDS]
    last = list(studio.draw(controls, "me"))[-1]
    assert last.is_finished
    items = studio.gallery.items()
    assert {item.metadata.prompt for item in items} == {f"{one} (at 1.2x)" for one in CHOICES}
    changes, _ = studio.restore(items[0].path, controls)
    assert changes["prompt"] == items[0].metadata.prompt
    literal = controls[:]
    literal[FORM_FIELDS.index("prompt")] = r"a \{red|blue\} fox"
    list(studio.draw(literal, "me"))
    newest = studio.gallery.items()[0]
    assert newest.metadata.prompt == "a {red|blue} fox"
    changes, _ = studio.restore(newest.path, controls)
    assert changes["prompt"] == r"a \{red\|blue\} fox"
    Image.open(io.BytesIO(newest.path.read_bytes())).load()
