"""The API keeps to its own document: all that can be made of it is sent, and the answers are held to it."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import schemathesis
from PIL import Image
from running import serving

LEFT_OUT = (
    # What a document cannot say is a 400: compression of png, a picture that is none.
    "positive_data_acceptance",
    # A 405 names the methods of one route where two share an address, as Starlette writes it.
    "allow_header_conformance",
)
PROMPT = "a red apple on a blue background"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_url(f"{server.base}/openapi.json", config=schemathesis.Config(seed=1))


def test_nothing_that_can_be_sent_makes_the_server_fail_or_hang_or_answer_what_it_does_not_document(
    server, tmp_path
):
    command = [Path(sys.executable).with_name("st"), "run", f"{server.base}/openapi.json", "--no-color"]
    command += ["--generation-deterministic", "--max-examples", "8", "--exclude-checks", ",".join(LEFT_OUT)]
    # A stream that does not end fails by its time.
    command += ["--request-timeout", "10", "--no-shrink", "--continue-on-failure"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr


def answered(operation, **sent):
    """Return what an operation answers, held to the document."""
    return operation.Case(**sent).call_and_validate(timeout=10)


def test_a_job_that_is_there_and_its_picture_answer_as_the_document_says(document):
    job = answered(document["/v1/jobs"]["POST"], body={"prompt": PROMPT}).json()
    of_job = {"path_parameters": {"job_id": job["id"]}}
    stream = document["/v1/jobs/{job_id}/events"]["GET"]
    for what in ("as it is drawn", "of what is done"):
        assert b"event: job.done" in answered(stream, **of_job).content, what
    job = answered(document["/v1/jobs/{job_id}"]["GET"], **of_job).json()
    picture = {"path_parameters": {"name": job["pictures"][0]["url"].rpartition("/")[2]}}
    content = answered(document["/v1/pictures/{name}"]["GET"], **picture).content
    assert Image.open(io.BytesIO(content)).format == "PNG"
    assert answered(document["/v1/jobs/{job_id}/cancel"]["POST"], **of_job).json()["status"] == "done"
    assert answered(document["/v1/jobs/{job_id}"]["DELETE"], **of_job).json()["deleted"]
    assert answered(stream, **of_job).status_code == 404


@pytest.mark.parametrize("is_stream", [True, False])
def test_pictures_come_in_the_forms_that_the_document_names(document, is_stream):
    file = io.BytesIO()
    Image.new("RGB", (96, 64), "green").save(file, format="PNG")
    kind = ["text/event-stream; charset=utf-8" if is_stream else "application/json"]
    body = {"prompt": PROMPT, "stream": is_stream}
    drawn = answered(document["/v1/images/generations"]["POST"], body=body)
    form = {"body": body | {"image": file.getvalue()}, "media_type": "multipart/form-data"}
    edited = answered(document["/v1/images/edits"]["POST"], **form)
    assert [answer.headers["content-type"] for answer in (drawn, edited)] == [kind, kind]
