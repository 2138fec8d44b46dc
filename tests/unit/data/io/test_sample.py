"""What the files of a sample say: text never hides JSON, and JSON never hides text."""

import json

import pytest

from lens.data.io.sample import Sidecar, merge_sidecars, parse_sample, parse_sidecar


@pytest.mark.parametrize(
    ("text", "is_json", "found"),
    [
        (" a fox \n", False, ("a fox", "")),
        ('{"title": "a fox", "caption": "the fox"}', True, ("the fox", "")),
        ('{"caption": "", "description": "a fox", "licence": "CC0"}', True, ("a fox", "CC0")),
        ("[1]", True, ("", "")),
    ],
)
def test_captions_are_read_from_text_and_from_json(text, is_json, found):
    read = parse_sidecar(text.encode(), is_json)
    assert (read.caption, read.licence, read.fault) == (*found, "")


BRIEF, FULL = "a fox", "a red fox on green grass"
LICENCE = json.dumps({"licence": "CC0"})
BOTH = json.dumps({"caption": "a fox of JSON", "license": "CC0"})


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"brief.txt": BRIEF, "json": LICENCE, "txt": FULL}, (FULL, "CC0")),
        ({"txt": FULL, "json": BOTH}, (FULL, "CC0")),
        ({"json": BOTH, "txt": FULL}, (FULL, "CC0")),
        ({"brief.txt": BRIEF, "json": BOTH}, ("a fox of JSON", "CC0")),
        ({"brief.txt": BRIEF, "json": LICENCE}, (BRIEF, "CC0")),
        ({"txt": " \n", "json": BOTH}, ("a fox of JSON", "CC0")),
        ({"meta.json": LICENCE, "txt": FULL}, (FULL, "CC0")),
        ({}, ("", "")),
    ],
)
def test_the_full_caption_comes_before_others_and_the_licence_from_json_whatever_the_order(texts, found):
    files = {extension: text.encode() for extension, text in texts.items()}
    read = merge_sidecars(files)
    assert (read.caption, read.licence, read.fault) == (*found, "")
    assert merge_sidecars(dict(reversed(files.items()))) == read


def test_a_sample_has_the_image_whatever_its_format_and_the_facts_of_its_json():
    files = {"json": b'{"id": "x"}', "jpeg": b"image", "txt": FULL.encode()}
    sample = parse_sample(files)
    assert (sample.image, sample.sidecar.caption, sample.facts) == (b"image", FULL, {"id": "x"})
    assert parse_sample({"json": b"[1]"}) == (b"", Sidecar(), {})
