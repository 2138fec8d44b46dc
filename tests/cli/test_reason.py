"""`lens generate --reason`: what is asked, what is drawn and recorded, and that off means off."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from chat_server import ChatServer, completion
from PIL import Image

from lens.reasoner.system_prompts import read_system_prompt
from lens.sampling.image_metadata import read_image_metadata
from lens.sampling.metadata_formats.infotext import parse_infotext

SUM = "the answer to 2+2 on a blackboard"


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Keep a person's own settings and answers out."""
    monkeypatch.setenv("LENS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LENS_REASONER", raising=False)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start a scripted endpoint that LENS_REASONER leads to."""
    servers = []

    def start(*answers, **settings) -> ChatServer:
        server = ChatServer(*answers)
        servers.append(server)
        file = server.write_settings(tmp_path / "reasoner.yaml", **settings)
        monkeypatch.setenv("LENS_REASONER", str(file))
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def draw(lens, tiny_model):
    """Generate with the tiny model in one step; return what the command left, with its rows."""

    def run(*arguments, stdin=""):
        common = ["--model", tiny_model, "--steps", 1, "--cfg", 1, "--json", "--out", "drawn"]
        ran = lens("generate", *arguments, *common, stdin=stdin)
        return ran, [json.loads(line) for line in ran.out.splitlines()]

    return run


def refuse_bombs(request: str) -> str | None:
    return "crime" if "bomb" in request else None


def test_both_prompts_and_the_outcome_are_printed_and_recorded(serve, lens, tmp_path):
    server = serve(lambda request: 'The equation "2+2=4" in white chalk on a blackboard')
    ran = lens("generate", SUM, "--reason", "--json", "--steps", 1, "--seed", 1)
    assert ran.status == 0, ran.err
    row = json.loads(ran.out)
    assert row["prompt"] == 'The equation "2+2=4" in white chalk on a blackboard'
    assert row["original_prompt"] == SUM
    general = read_system_prompt("general")
    reasoner = row["reasoner"]
    assert (reasoner["outcome"], reasoner["model"]) == ("refined", "scripted")
    assert (reasoner["system_prompt"], reasoner["system_prompt_hash"]) == ("general", general.hash)
    assert reasoner["checks"] and all(check["is_kept"] for check in reasoner["checks"])
    assert reasoner["usage"]["num_requests"] == 2 == len(server.asked)
    metadata = read_image_metadata(tmp_path / row["path"])
    assert (metadata.prompt, metadata.original_prompt) == (row["prompt"], SUM)
    assert metadata.reasoner is not None and metadata.reasoner.system_prompt_hash == general.hash
    read_by_others = parse_infotext(metadata.parameters())
    assert read_by_others is not None and read_by_others.prompt == row["prompt"]
    assert row["path"].startswith("the-answer-to-2-2")
    told = lens("info", row["path"]).out
    assert row["prompt"] in told and SUM in told and "refined by scripted" in told


def test_without_an_endpoint_a_nano_model_has_its_rule_engine(lens):
    ran = lens("generate", "a picture of two kitties please", "--reason", "--json", "--steps", 1)
    row = json.loads(ran.out)
    assert row["reasoner"]["model"].startswith("nano-rules") and row["reasoner"]["outcome"] == "refined"
    assert (row["prompt"], row["original_prompt"]) == ("two cats", "a picture of two kitties please")
    assert row["reasoner"]["usage"]["num_requests"] == 0 and "drawn as" not in ran.err
    ran = lens("generate", "a picture of two kitties please", "--reason", "--steps", 1)
    assert "lens: It is drawn as: two cats\n" in ran.err and ran.out.endswith(".png\n")


def test_a_refusal_names_its_category_and_nothing_is_drawn_or_rewritten(serve, draw, tmp_path):
    server = serve(lambda request: request, refuse_bombs)
    ran, _ = draw("how to build a bomb", "--reason")
    assert "(category crime)" in ran.error_line and "Nothing is drawn" in ran.err
    assert len(server.asked) == 1 and not (tmp_path / "drawn").exists()


def test_off_means_off_whatever_is_set(serve, draw, monkeypatch, tmp_path):
    server = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    (tmp_path / "config").mkdir()
    server.write_settings(tmp_path / "config" / "reasoner.yaml")
    ran, [row] = draw("a fox")
    assert (ran.status, ran.err.count("random seed"), server.asked) == (0, 1, [])
    assert (row["prompt"], "reasoner" in row, "original_prompt" in row) == ("a fox", False, False)


@pytest.mark.parametrize(
    "option",
    [["--reasoner", "nano"], ["--reasoner-model", "m"], ["--system-prompt", "text"], ["--policy", "p"]],
)
def test_an_option_of_the_reasoner_without_reason_is_an_error(lens, option):
    assert f"{option[0]} is '{option[1]}', but it needs to be given with --reason" in lens(
        "generate", "a fox", *option
    ).error_line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reasoner", "gpt5"], "--reasoner is 'gpt5', but it needs the URL of an endpoint"),
        (["--reasoner", "localhost:8000/v1"], "--reasoner is 'localhost:8000/v1'"),
        (["--reasoner", "http://127.0.0.1:1/v1"], "--reasoner-model is None"),
        (["--reasoner", "gone.yaml"], "--reasoner is 'gone.yaml'"),
        (["--reasoner", "nano", "--system-prompt", "text"], "The rule engine of nano has none"),
        (["--reasoner", "nano", "--reasoner-model", "m"], "--reasoner-model is 'm', but it needs an"),
        (["--system-prompt", "gone"], "--system-prompt is 'gone'"),
        (["--policy", "gone.yaml"], "--policy is 'gone.yaml'"),
    ],
)
def test_a_reasoner_that_cannot_be_is_an_error_before_a_model_is_loaded(lens, options, message):
    assert message in lens("generate", "a fox", "--reason", *options).error_line


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"), (401, b"{}"), (200, b"no json"), (200, b"{}"), 1.0,
        completion(None), completion("a fox in the", "length"), completion("<think>a fox"),
        completion("a fox, " * 300 + "in the rain"),
    ],
    ids=["500", "401", "text", "object", "silence", "empty", "cut", "thoughts", "long"],
)  # fmt: skip
def test_a_failed_request_is_told_and_draws_the_prompt_as_it_was(serve, draw, answer):
    serve(lambda request: answer, timeout_s=0.3 if isinstance(answer, float) else 20)
    ran, [row] = draw("a fox", "--reason", "--seed", 3)
    assert ran.status == 0 and "The prompt is drawn as it was written" in ran.err
    assert (row["reasoner"]["outcome"], row["prompt"], row["original_prompt"]) == ("failed", "a fox", "a fox")
    assert row["reasoner"]["reason"]
    _, [plain] = draw("a fox", "--seed", 3)
    assert (pixels(row["path"]) == pixels(plain["path"])).all()


def test_a_policy_of_ones_own_decides_what_happens_while_the_model_is_down(serve, draw, tmp_path):
    serve(lambda request: request, lambda request: (500, b"{}"))
    policy = {"reasoner": {"when_down": "refuse", "categories": [{"name": "cats", "description": "Cats."}]}}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    ran, _ = draw("a fox", "--reason", "--policy", "policy.yaml")
    assert ran.status == 2 and ran.out == "" and "could not be checked" in ran.err
    ran, [row] = draw("a fox", "--reason")  # whoever runs the command can leave the reasoner out
    assert (ran.status, row["reasoner"]["outcome"]) == (0, "failed")


def test_a_policy_of_ones_own_has_its_own_categories(serve, draw, tmp_path):
    serve(lambda request: request, lambda request: "cats" if "cat" in request else None)
    policy = {"reasoner": {"categories": [{"name": "cats", "description": "Cats."}]}}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    ran, _ = draw("a cat", "--reason", "--policy", "policy.yaml")
    assert "(category cats)" in ran.error_line


def test_a_recorded_prompt_is_drawn_again_without_a_request(serve, draw, lens, tmp_path):
    server = serve(lambda request: f"{request} (red:1.3) {{a|b}}")
    ran, [row] = draw("a fox", "--reason", "--seed", 4)
    assert ran.status == 0 and row["prompt"] == "a fox (red:1.3) {a|b}"
    num_asked = len(server.asked)
    like = lens("generate", "--like", row["path"], "--reason", "--json", "--out", "like.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    _, [again] = draw("--from-file", "rows.jsonl", "--reason")
    for other in (json.loads(like.out), again):
        assert (pixels(other["path"]) == pixels(row["path"])).all()
        assert (other["prompt"], other["original_prompt"]) == (row["prompt"], "a fox")
        assert other["reasoner"]["system_prompt_hash"] == row["reasoner"]["system_prompt_hash"]
        record = read_image_metadata(tmp_path / other["path"]).reasoner
        assert record is not None and record.outcome == "refined"
    assert len(server.asked) == num_asked
    other = lens("generate", "a cat", "--like", row["path"], "--json", "--out", "other.png")
    assert "reasoner" not in json.loads(other.out)  # another prompt is not that of the reasoner


def test_each_distinct_prompt_is_asked_about_once_as_it_would_be_drawn(serve, draw, tmp_path):
    server = serve()
    (tmp_path / "styles.yaml").write_text('night: "{prompt}, at night"\n')
    style = ["--style", "night", "--style-file", "styles.yaml"]
    ran, rows = draw("a {red|blue} fox", "a cat", "a cat", "--count", 3, "--seed", 7, "--reason", *style)
    assert ran.status == 0 and len(rows) == 9
    assert sorted(server.rewritten) == ["a blue fox, at night", "a cat, at night", "a red fox, at night"]
    assert {row["prompt"] for row in rows} == {f"{text}, in bright light" for text in server.rewritten}
    template = read_image_metadata(tmp_path / rows[0]["path"]).prompt_template
    assert template == "a {red|blue} fox, at night"


def test_an_answer_is_kept_for_the_next_call_and_for_its_owner_alone(serve, draw, tmp_path):
    server = serve()
    _, [first] = draw("a fox", "--reason", "--seed", 1)
    num_asked = len(server.asked)
    _, [second] = draw("a fox", "--reason", "--seed", 2)
    assert len(server.asked) == num_asked and second["prompt"] == first["prompt"] == "a fox, in bright light"
    assert second["reasoner"]["usage"]["is_cached"] and not first["reasoner"]["usage"]["is_cached"]
    assert (tmp_path / "cache" / "reasoner.jsonl").stat().st_mode & 0o077 == 0


def test_of_a_batch_the_others_are_drawn_and_the_status_tells_of_the_refused(serve, draw, tmp_path):
    serve(lambda request: f"{request}, in bright light", refuse_bombs)
    (tmp_path / "prompts.txt").write_text("a fox\na time bomb\na cat\n")
    ran, rows = draw("--from-file", "prompts.txt", "--reason")
    assert [row["original_prompt"] for row in rows] == ["a fox", "a cat"]
    assert ran.status == 2
    assert "'a time bomb' is refused (category crime)" in ran.err
    assert "refuses 1 of 3 prompts (crime)" in ran.err


def test_a_grid_is_drawn_whole_or_not_at_all(serve, lens, tiny_model, tmp_path):
    serve(lambda request: f"{request}, in bright light", refuse_bombs)
    common = ["--reason", "--model", tiny_model, "--steps", 1, "--cfg", 1, "--out", "drawn"]
    ran = lens("grid", "a fox", "--x", "prompt=a fox\\na bomb", *common)
    assert ran.status == 2 and ran.out == "" and "crime" in ran.err and not (tmp_path / "drawn").exists()
    ran = lens("grid", "a fox", "--x", "prompt=a fox\\na cat", *common, "--json")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["prompt"] for row in rows[:2]] == ["a fox, in bright light", "a cat, in bright light"]


def test_gpt_oss_is_the_text_encoder_loaded_once_and_its_cost_is_told_before(draw, monkeypatch, tmp_path):
    from scripted_head import say
    from tiny_models import tiny_tokenizer

    from lens.sampling import loader

    loaded, load = [], loader.load_text_encoder_of

    def load_scripted(*arguments, **options):
        encoder = load(*arguments, **options)
        loaded.append(encoder)
        say(encoder, tiny_tokenizer(), "<|channel|>final<|message|>two red apples<|return|>")
        return encoder

    monkeypatch.setattr(loader, "load_text_encoder_of", load_scripted)
    (tmp_path / "policy.yaml").write_text("reasoner: {categories: []}\n")
    options = ["--reason", "--reasoner", "gpt-oss", "--policy", "policy.yaml", "--text-cache", "off"]
    ran, [row] = draw("apples", "--seed", 3, *options)
    assert (row["prompt"], row["reasoner"]["outcome"]) == ("two red apples", "refined"), ran.err
    assert row["reasoner"]["model"].startswith("gpt-oss") and len(loaded) == 1
    assert "tokens" in ran.err.splitlines()[0]
    _, [plain] = draw("two red apples", "--seed", 3)
    assert (pixels(row["path"]) == pixels(plain["path"])).all()


def test_nothing_of_the_denoiser_is_loaded_before_the_last_answer(serve, draw, monkeypatch):
    from lens.cli.generation.loading import GenerationSession

    events = []
    load = GenerationSession.load_pipeline
    monkeypatch.setattr(
        GenerationSession, "load_pipeline", lambda self: (events.append("denoiser"), load(self))[1]
    )
    serve(lambda request: (events.append(request), request)[1])
    draw("a fox", "a cat", "--reason")
    assert events == ["a fox", "a cat", "denoiser"]


def test_ctrl_c_stops_at_once_while_the_reasoner_is_asked(serve, tiny_model, tmp_path):
    server = serve(lambda request: request, lambda request: 60.0)
    command = [sys.executable, "-m", "lens", "generate", "a fox", "--model", tiny_model, "--reason"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not server.asked:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        asked_to_stop = time.monotonic()
        _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked_to_stop < 5
    assert process.returncode == 130 and told.endswith("lens: stopped by Ctrl-C.\n")
    assert not list(tmp_path.glob("*.png"))
