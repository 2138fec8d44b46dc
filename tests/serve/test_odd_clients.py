"""Bodies as libraries, web pages and shells make them: each is understood, or refused for what it is."""

import base64
import gzip
import io
import json

import pytest
from PIL import Image
from running import serving

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
BODY = {"prompt": "a fox", "size": "64x64", "model": "lens-nano"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("odd")) as running:
        yield running


def encoded(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (96, 64), "#fb7bef").save(file, format=kind)
    return file.getvalue()


PNG = encoded()


def part(disposition, content):
    return b"--x\r\nContent-Disposition: form-data" + disposition + b"\r\n\r\n" + content + b"\r\n"


IMAGE = part(b'; name="image"; filename="a.png"', PNG)
PROMPT = part(b'; name="prompt"', b"a fox")


def post_form(server, *parts, end=b"--x--\r\n", boundary="; boundary=x"):
    headers = {"Content-Type": f"multipart/form-data{boundary}"}
    return server.http.post(EDITS, content=b"".join(parts) + end, headers=headers)


def refusal(answer):
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize(
    ("given", "drawn"),
    [({"size": "64X96"}, (64, 96)), ({"size": " 64 x 96 "}, (64, 96)), ({"size": "64*96"}, (64, 96)),
     ({"size": "64\u00d796"}, (64, 96)), ({"size": "AUTO"}, (128, 128)),
     ({"aspect_ratio": "1/2", "base_resolution": 128}, (96, 176)),
     ({"aspect_ratio": "1x2", "base_resolution": 128}, (96, 176)),
     ({"aspect_ratio": " 1 : 2", "base_resolution": 128}, (96, 176))],
    ids=str,
)  # fmt: skip
def test_a_size_has_one_meaning_in_each_way_of_writing(server, given, drawn):
    answer = server.http.post(GENERATIONS, json={"prompt": "a fox", "model": "lens-nano"} | given)
    assert answer.status_code == 200, answer.text
    asked = server.engine.requests[-1]
    assert (asked.width, asked.height) == drawn


def test_words_have_one_meaning_in_any_case(server):
    odd = {"quality": "HD", "output_format": "JPG", "background": "Opaque", "moderation": " Low",
           "solver": "AB2", "cache": "None", "response_format": "B64_JSON"}  # fmt: skip
    answer = server.http.post(GENERATIONS, json=BODY | odd)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output_format"] == "jpeg" and server.engine.requests[-1].solver == "ab2"
    form = [part(f'; name="{name}"'.encode(), value.encode()) for name, value in odd.items()]
    assert post_form(server, IMAGE, PROMPT, *form).status_code == 200


@pytest.mark.parametrize(
    "values",
    [{"size": "64"}, {"size": "64x"}, {"size": "64x64x64"}, {"size": "-64x64"}, {"size": "64.0x64"},
     {"size": "square"}, {"aspect_ratio": "1.5"}, {"output_format": "image/png"}, {"quality": "4k"}],
    ids=str,
)  # fmt: skip
def test_what_is_no_size_and_no_known_word_is_refused_by_the_words_there_are(server, values):
    (name,) = values
    status, param, message = refusal(server.http.post(GENERATIONS, json=BODY | {"size": None} | values))
    assert (status, param) == (400, name)
    assert {"size": "WIDTHxHEIGHT", "aspect_ratio": "16:9", "output_format": "webp", "quality": "high"}[
        name
    ] in message  # fmt: skip


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
def test_a_compressed_body_is_refused_as_compressed(server, path):
    content = gzip.compress(json.dumps(BODY).encode())
    answer = server.http.post(path, content=content, headers=JSON | {"Content-Encoding": "gzip"})
    status, _, message = refusal(answer)
    assert status == 415 and "Content-Encoding is 'gzip'" in message
    plain = server.http.post(
        GENERATIONS, content=json.dumps(BODY).encode(), headers=JSON | {"Content-Encoding": "identity"}
    )
    assert plain.status_code == 200


def test_a_body_without_a_type_is_told_that_it_has_none(server):
    status, _, message = refusal(server.http.post(GENERATIONS, content=json.dumps(BODY).encode()))
    assert status == 415 and message.startswith("Content-Type is missing")


def test_null_for_a_name_of_other_servers_is_as_if_it_were_not_sent(server):
    assert server.http.post(GENERATIONS, json=BODY | {"style": None}).status_code == 200
    assert refusal(server.http.post(GENERATIONS, json=BODY | {"stile": None}))[:2] == (400, "stile")


@pytest.mark.parametrize("name", [b"image", b"image[]", b"image[0]"])
def test_a_web_page_in_which_no_mask_was_chosen_sends_none(server, name):
    image = part(b'; name="' + name + b'"; filename="a.png"', PNG)
    empty = part(b'; name="mask"; filename=""', b"")
    assert post_form(server, image, empty, PROMPT).status_code == 200
    assert server.engine.requests[-1].mask is None
    no_image = part(b'; name="image"; filename=""', b"")
    assert refusal(post_form(server, no_image, PROMPT))[:2] == (400, "image")


def test_a_form_that_is_cut_off_draws_nothing(server):
    num_drawn = len(server.engine.requests)
    answer = post_form(server, IMAGE, PROMPT, part(b'; name="seed"', b"3"), end=b"")
    status, _, message = refusal(answer)
    assert status == 400 and "cut off" in message
    assert len(server.engine.requests) == num_drawn
    assert "boundary" in refusal(post_form(server, IMAGE, PROMPT, boundary=""))[2]


def test_texts_of_a_form_are_utf_8_or_refused(server):
    sent = "caf\u00e9, \u5bff\u53f8"
    assert post_form(server, IMAGE, part(b'; name="prompt"', sent.encode())).status_code == 200
    assert server.engine.requests[-1].prompt == sent
    for encoding in ("gbk", "latin-1"):
        content = sent[: 4 if encoding == "latin-1" else None].encode(encoding, "replace")
        status, param, message = refusal(post_form(server, IMAGE, part(b'; name="prompt"', content)))
        assert (status, param) == (400, "prompt") and "UTF-8" in message
    assert refusal(post_form(server, IMAGE, PROMPT, part(b'; name="caf\xe9"', b"1")))[0] == 400


def test_files_for_texts_and_texts_for_files_are_told_from_each_other(server):
    status, param, message = refusal(post_form(server, PROMPT, part(b'; name="image"', PNG)))
    assert (status, param) == (400, "image") and "filename" in message and "PNG" not in message
    prompt = part(b'; name="prompt"; filename="p.txt"', b"a fox")
    status, param, message = refusal(post_form(server, IMAGE, prompt))
    assert (status, param) == (400, "prompt") and "without a filename" in message


@pytest.mark.parametrize(
    ("content", "shown"),
    [(b"", "empty"), (encoded("GIF"), "GIF"), (encoded("TIFF"), "TIFF"), (encoded("BMP"), "BMP"),
     (encoded("AVIF"), "AVIF"), (encoded("ICO"), "ICO"), (b"<html>", "no image")],
    ids=["empty", "GIF", "TIFF", "BMP", "AVIF", "ICO", "HTML"],
)  # fmt: skip
def test_a_file_of_another_type_is_refused_by_the_name_of_its_type(server, content, shown):
    answer = post_form(server, part(b'; name="image"; filename="a.png"', content), PROMPT)
    status, param, message = refusal(answer)
    assert (status, param) == (400, "image")
    assert message == f"image is '{shown}', but it needs a PNG, JPEG or WebP image."


BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"


@pytest.mark.parametrize(
    "images",
    [{"image": base64.urlsafe_b64encode(PNG).decode()}, {"image": base64.encodebytes(PNG).decode()},
     {"image": BASE64.rstrip("=")}, {"image": DATA_URL.replace("data:", "DATA:")}, {"image": [DATA_URL]},
     {"images": [{"type": "input_image", "image_url": DATA_URL}]}, {"images": [{"b64_json": BASE64}]},
     {"images": [{"type": "image_url", "image_url": {"url": DATA_URL}}]}],
    ids=["of URLs", "lines", "no padding", "DATA", "list", "type", "b64_json", "url"],
)  # fmt: skip
def test_an_image_in_json_has_the_forms_that_libraries_write(server, images):
    answer = server.http.post(EDITS, json={"prompt": "a fox"} | images)
    assert answer.status_code == 200, answer.text
    assert Image.open(server.engine.requests[-1].image).getpixel((0, 0)) == (0xFB, 0x7B, 0xEF)


@pytest.mark.parametrize("name", ["n", "seed", "steps", "guidance", "strength", "base_resolution"])
def test_true_and_false_are_no_numbers(server, name):
    for value in (True, False):
        status, param, message = refusal(server.http.post("/v1/jobs", json=BODY | {name: value}))
        assert (status, param) == (400, name) and f"{name} is {value}" in message
    assert server.http.post(GENERATIONS, json=BODY | {"stream": False}).status_code == 200


def test_inputs_of_a_web_page_that_nobody_filled_in_are_not_set(server):
    empty = [part(f'; name="{name}"'.encode(), b" ") for name in ("seed", "size", "model", "loras", "n")]
    assert post_form(server, IMAGE, PROMPT, *empty).status_code == 200
    assert refusal(post_form(server, IMAGE, part(b'; name="prompt"', b"")))[:2] == (400, "prompt")


def test_a_lora_may_be_its_name_alone(server):
    answer = server.http.post(GENERATIONS, json=BODY | {"loras": ["ink"]})
    assert answer.status_code == 200, answer.text
    (lora,) = server.engine.requests[-1].loras
    assert (lora.name, lora.weight) == ("ink", 1.0)


@pytest.mark.parametrize("name", ["input", "text", "positive_prompt"])
def test_other_names_of_the_prompt_are_refused_by_its_own(server, name):
    body = {key: value for key, value in BODY.items() if key != "prompt"} | {name: "a fox"}
    assert "Use 'prompt' instead." in refusal(server.http.post(GENERATIONS, json=body))[2]
