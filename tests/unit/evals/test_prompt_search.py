"""The search for a system prompt in the nano world: recipe, command, page, and what is told of mistakes."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from local_server import Server

from lens.cli.main import main
from lens.errors import LensError, SettingError
from lens.evals.prompt_search import read_search, score_image, search_prompts, start_of
from lens.evals.prompt_search_page import difference
from lens.nano.tasks import TASKS, task_prompts
from lens.nano.world.scenes import draw_scene
from lens.reasoner.search.prompts import normalized
from lens.rl.rewards.factory import create_reward
from lens.rl.rewards.settings import NanoRewardSettings

ROOT = Path(__file__).parents[3]
NANO = ROOT / "recipes" / "reasoner" / "search_nano.yaml"
GENEVAL = ROOT / "recipes" / "reasoner" / "search.yaml"
SMALL = (
    "splits.feedback=2", "splits.selection=2", "splits.test=2", "minibatch=2", "max_minibatches=1",
    "images_per_prompt=1", "final.images_per_prompt=1", "final.candidates=1", "budget.proposals=2",
    "confidence=0.5", "prompts.kinds=[single]", "rewriter.first_wait_s=0", "concurrency=1",
    "reasoner.endpoint.first_wait_s=0",
)  # fmt: skip
PLAIN = "Keep the words of the request."


class Scripted(Server):
    """A rewriter, and the model of a reasoner that spoils requests unless its system prompt has PLAIN."""

    def __init__(self):
        super().__init__(0.0)
        self.rewrites = 0

    def answer_to(self, body):
        system, user = (message["content"] for message in body["messages"][:2])
        if system.startswith("You improve a system prompt."):
            self.rewrites += 1
            old = user[len("<system_prompt>\n") : user.index("\n</system_prompt>")]
            text = f"<change>Plain words.</change><system_prompt>{old}\n{PLAIN}</system_prompt>"
        elif PLAIN in system:
            text = user
        else:
            text = "an empty field under a wide sky"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 70, "completion_tokens": 7}
        return 200, json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.fixture(scope="module")
def server():
    server = Scripted()
    yield server
    server.close()


def arguments(out: Path, url: str, *more: str) -> list[str]:
    values = (f"out={out}", f"rewriter.url={url}", f"reasoner.endpoint.url={url}", *SMALL, *more)
    return [str(NANO), *(word for value in values for word in ("--set", value))]


@pytest.fixture(scope="module")
def searched(server, tmp_path_factory):
    """The folder of a search by the command, with what the command printed."""
    out = tmp_path_factory.mktemp("search")
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["reasoner", "search", *arguments(out, server.url), "--json"]) == 0
    return out, json.loads(printed.getvalue())


def test_the_command_searches_the_nano_world_and_leaves_page_log_and_best(searched):
    out, told = searched
    assert told["page"] == str(out / "search.html")
    assert (out / "best.txt").read_text() == told["text"]
    lines = [json.loads(line) for line in (out / "candidates.jsonl").read_text().splitlines()]
    assert lines[0]["status"] == "start" and len(lines) == 3
    assert lines[1]["text"].endswith(PLAIN) and lines[1]["change"] == "Plain words."
    assert lines[0]["tokens"] == 2 * 77 and lines[0]["pictures"] == 2
    assert (lines[0]["selection_score"], lines[1]["selection_score"]) == (0, 1)
    assert told["is_better"] is (told["finalists"][-1]["gain"]["low"] > 0)
    assert told["spent"]["pictures"] == sum(line["pictures"] for line in lines) + 2 * len(told["finalists"])


def test_the_page_needs_nothing_else_and_shows_lineage_texts_and_pictures(searched):
    out, _ = searched
    page = (out / "search.html").read_text()
    assert page.startswith("<!doctype html>") and "<script" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for heading in ("Last comparison", "Lineage", "Budget", "Texts", "Pictures"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<circle") == 3 and page.count("data:image/jpeg;base64,") >= 2
    assert f'<span class="added">{PLAIN}</span>' in page


def test_the_same_command_again_asks_and_draws_nothing(searched, server, capsys):
    out, told = searched
    num_asked = len(server.asked)
    assert main(["reasoner", "search", *arguments(out, server.url)]) == 0
    table = capsys.readouterr().out
    assert len(server.asked) == num_asked
    assert table.splitlines()[0].split()[:4] == ["candidate", "parent", "selection", "test"]
    assert f"{told['spent']['pictures']} pictures" in table and "Winner's curse" in table


def test_a_rewriter_that_is_down_stops_the_command_with_one_line(tmp_path, server, capsys):
    url = "rewriter.url=http://127.0.0.1:9/v1"
    assert main(["reasoner", "search", *arguments(tmp_path, server.url, url, "rewriter.max_attempts=1")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "The rewriter does not answer" in line and "run the same command again" in line


def test_new_lines_and_lines_that_are_gone_are_marked_and_escaped():
    lines = list(difference("One.\nTwo <b>.", "One.\nThree & four."))
    assert lines == [
        '<span class="same">One.</span>', '<span class="removed">Two &lt;b&gt;.</span>',
        '<span class="added">Three &amp; four.</span>',
    ]  # fmt: skip


def test_prompts_of_the_nano_search_are_no_test_prompts(tmp_path):
    settings = read_search(NANO, [f"out={tmp_path}", "prompts.kinds=[single, two, counting]"])
    official = {normalized(one.prompt) for task in TASKS for one in task_prompts(task, 100)}
    splits = search_prompts(settings)
    assert [len(split) for split in splits] == [40, 48, 48]
    assert not {normalized(one.prompt) for split in splits for one in split} & official


def test_what_an_image_fails_is_told_in_the_words_of_its_rubric(tmp_path):
    prompt = search_prompts(read_search(NANO, [f"out={tmp_path}", "prompts.kinds=[counting]"])).test[0]
    reward = create_reward(NanoRewardSettings(exact_weight=1.0))
    empty = np.full((128, 128, 3), 255, np.uint8)
    scored = score_image(reward, empty, prompt)
    assert scored.score == 0 and scored.image is not None and scored.image.startswith(b"\xff\xd8")
    assert any(one.startswith("not met: There are exactly ") for one in scored.failures)

    from lens.nano.prompt_scenes import scene_of
    from lens.rl.prompts.dataset import RLPrompt
    from lens.rl.prompts.nano import scene_spec_of

    spec = scene_spec_of(RLPrompt(prompt=prompt.prompt, category="x", item="x", **prompt.facts))
    scene = draw_scene(scene_of(spec, np.random.default_rng(0), 128, 128))
    truth = np.round((scene.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
    assert score_image(reward, truth, prompt)[:2] == (1.0, ())


def test_an_image_without_a_score_is_no_zero(tmp_path):
    class Down:
        def score(self, image, prompt):
            from lens.rl.rewards.base import Score

            return Score(None, {}, "the judge did not answer")

    prompt = search_prompts(read_search(NANO, [f"out={tmp_path}"])).test[0]
    with pytest.raises(LensError, match="has no score: the judge did not answer"):
        score_image(Down(), np.zeros((8, 8, 3), np.uint8), prompt)


@pytest.mark.parametrize(
    "recipe, change, problem",
    [
        (GENEVAL, "rewriter.model=the-judge", "another model than the judge's"),
        (NANO, "reasoner={backend: nano}", "endpoint or transformers"),
        (NANO, "prompts.kinds=[dragons]", "one or more of"),
        (NANO, "budget.pictures=10", "at least"),
        (NANO, "minibatch=41", "at most splits.feedback, 40"),
        (NANO, "gates.max_words=3", "gates.max_words"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_its_setting(recipe, change, problem):
    with pytest.raises(SettingError, match=problem):
        read_search(recipe, [change])


def test_a_start_that_sees_the_scorers_metadata_is_refused():
    with pytest.raises(SettingError, match=r"start is 'geneval-metadata', but it needs a system prompt that"):
        start_of(read_search(NANO, ["start=geneval-metadata"]))


def test_the_official_prompts_have_to_be_there():
    with pytest.raises(SettingError, match=r"prompts\.official is 'nowhere.jsonl'"):
        search_prompts(read_search(GENEVAL, ["prompts.official=nowhere.jsonl"]))
