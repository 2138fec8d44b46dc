"""A run of a benchmark: images once, observations kept, scores with intervals, a page of what was seen."""

import json

import numpy as np
import pytest
from PIL import Image

from lens.benchmarks.base import BenchmarkPrompt
from lens.benchmarks.registry import BENCHMARKS
from lens.errors import SettingError
from lens.evals.observers.base import DetectedBox, ObserverInfo
from lens.evals.observers.colours import PixelColours
from lens.evals.suite.generation import generate_missing
from lens.evals.suite.observation import Observers, observe_run
from lens.evals.suite.report import write_report
from lens.evals.suite.rewriting import rewrite_prompts
from lens.evals.suite.run_folder import EvalRunSettings, Rewriting, RunFolder
from lens.evals.suite.scoring import MissingImagesError, compare, score_run
from lens.llm.client import ChatResponse
from lens.reasoner.outcome import Reasoned
from lens.reasoner.rewriter import RewritingReasoner
from lens.reasoner.settings import ReasonerSettings

GENEVAL, LONGTEXT = BENCHMARKS["geneval"], BENCHMARKS["longtext"]
COLOURS = {"cup": (200, 30, 30), "dog": (30, 60, 190)}


def quiet(*_):
    pass


def prompt(number, name, count=1, tag="single_object", colour=None):
    clause = {"class": name, "count": count} | ({"color": colour} if colour else {})
    facts = {"prompt_id": number, "tag": tag, "include": [clause], "exclude": []}
    return BenchmarkPrompt(f"{number:05d}", f"a photo of a {name}", tag, facts)


PROMPTS = [
    prompt(0, "cup"), prompt(1, "dog"), prompt(2, "cup", tag="colors", colour="red"),
    prompt(3, "dog", tag="colors", colour="red"),
]  # fmt: skip


def settings(**changes):
    values = {
        "benchmark": "geneval", "data_hash": "d", "has_official_data": False, "model": "test",
        "model_hash": "m", "steps": 2, "guidance": 1.0, "solver": "euler", "width": 64,
        "height": 48, "seed": 0, "num_images": 2, "limit": None,
    }  # fmt: skip
    return EvalRunSettings(**(values | changes))


def draw(requests):
    """Paint the thing of each prompt as a block of its colour, at a place by its seed."""
    for request in requests:
        pixels = np.full((48, 64, 3), 245, np.uint8)
        left = request.seed % 30
        pixels[10:30, left : left + 20] = COLOURS[request.prompt.facts["include"][0]["class"]]
        yield Image.fromarray(pixels)


class BlockDetector:
    """Sees the block, and says what it is by its colour."""

    info = ObserverInfo("blocks", "1", "a test")

    def __init__(self):
        self.num_seen = 0

    def detect(self, image):
        self.num_seen += 1
        pixels = np.asarray(image).astype(int)
        rows, columns = np.nonzero(pixels.min(axis=2) < 100)
        if not len(rows):
            return []
        red, _, blue = pixels[rows[0], columns[0]]
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        return [DetectedBox("cup" if red > blue else "dog", 0.8, box), DetectedBox("tie", 0.1, box)]


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(settings(), PROMPTS)
    return folder


def observe(run, detector=None):
    observers = Observers(detector=detector or BlockDetector(), colours=PixelColours())
    return observe_run(run, GENEVAL, "geneval", observers, quiet)


def test_images_are_laid_out_as_the_official_script_reads_them(run):
    assert generate_missing(run, GENEVAL, draw, 3, quiet) == 8
    names = sorted(path.name for path in (run.images / "00002" / "samples").iterdir())
    assert names == ["0000.png", "0001.png"]
    row = json.loads((run.images / "00002" / "metadata.jsonl").read_text())
    assert row == {
        "tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a photo of a cup",
    }  # fmt: skip


def test_a_run_that_was_stopped_draws_only_what_is_missing_and_the_same(run, tmp_path):
    def stopping(requests):
        yield from list(draw(requests))[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_missing(run, GENEVAL, stopping, 3, quiet)
    assert generate_missing(run, GENEVAL, draw, 2, quiet) == 7
    other = RunFolder(tmp_path / "other")
    other.start(settings(), PROMPTS)
    generate_missing(other, GENEVAL, draw, 8, quiet)
    for image in run.planned(GENEVAL):
        assert (run.images / image.name).read_bytes() == (other.images / image.name).read_bytes()


def test_a_folder_keeps_one_run(run):
    run.start(settings(), PROMPTS)
    with pytest.raises(SettingError, match=r"steps 2, not 4"):
        run.start(settings(steps=4), PROMPTS)


def test_seeds_depend_on_the_prompt_alone_so_that_a_part_is_paired_with_the_whole(run, tmp_path):
    part = RunFolder(tmp_path / "part")
    part.start(settings(limit=2), PROMPTS[::2])
    seeds = {(one.prompt.key, one.repeat): one.seed for one in run.planned(GENEVAL)}
    assert len(set(seeds.values())) == 8
    assert all(seeds[one.prompt.key, one.repeat] == one.seed for one in part.planned(GENEVAL))


def test_observations_are_scored_with_an_interval_and_what_they_do_not_mean(run):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    assert observe(run)[:2] == (8, 0)
    (found,) = score_run(run, GENEVAL)
    assert found.score.parts["single_object"] == 1 and found.score.parts["colors"] == 0.5
    assert found.score.headline == 0.75
    assert found.interval is not None
    assert found.interval.low <= 0.75 <= found.interval.high and found.interval.num_prompts == 4
    assert found.interval.low == 0.5, "both prompts of colours may be the one that fails"
    assert "a test" in found.notes and any("published files" in note for note in found.notes)


def test_a_second_look_keeps_what_the_same_observers_saw(run):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    observe(run)
    detector = BlockDetector()
    Image.new("RGB", (64, 48), "white").save(run.images / "00001/samples/0001.png")
    assert observe(run, detector)[:2] == (1, 7) and detector.num_seen == 1
    other = BlockDetector()
    other.info = ObserverInfo("blocks", "2")
    assert observe(run, other)[:2] == (8, 0), "other weights see all images again"


def test_a_look_that_was_killed_goes_on_and_ends_in_the_same_file(run):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    observe(run)
    path = run.observations_path("geneval")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.with_suffix(".partial").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed within a line
    path.unlink()
    detector = BlockDetector()
    assert observe(run, detector)[:2] == (5, 3) and detector.num_seen == 5
    assert path.read_bytes() == whole and not path.with_suffix(".partial").exists()


def test_images_that_are_missing_black_or_doubled_are_told_and_hold_the_headline_back(run):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    samples = run.images / "00000/samples"
    Image.new("RGB", (64, 48)).save(samples / "0000.png")
    (samples / "0001.png").write_bytes((samples / "0001.png").read_bytes()[:60])
    (run.images / "00001/samples/0001.png").write_bytes((run.images / "00001/samples/0000.png").read_bytes())
    count = observe(run)
    assert (count.missing, count.black, count.doubled) == (
        ["00000/samples/0001.png"], ["00000/samples/0000.png"], ["00001/samples/0001.png"],
    )  # fmt: skip
    with pytest.raises(MissingImagesError, match=r"1 of the 8 images.*--allow-missing"):
        score_run(run, GENEVAL)
    (found,) = score_run(run, GENEVAL, allow_missing=True)
    assert {"1 of 8 images are missing", "1 images are black"} <= set(found.notes)


def test_two_runs_are_compared_on_their_common_prompts(run, tmp_path):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    observe(run)
    worse = RunFolder(tmp_path / "worse")
    worse.start(settings(model="worse"), PROMPTS[:3])
    generate_missing(worse, GENEVAL, draw, 8, quiet)
    for repeat in range(2):
        Image.new("RGB", (64, 48), "white").save(worse.images / f"00000/samples/{repeat:04d}.png")
    observe(worse)
    better, less = score_run(run, GENEVAL)[0], score_run(worse, GENEVAL)[0]
    found = compare(better, less)
    assert found is not None
    assert (found.value, found.num_prompts) == (0.25, 3)  # single_object 1 less 0.5; colors are equal
    assert compare(better, better)[:3] == (0, 0, 0)


def test_the_page_shows_scores_differences_and_boxes_and_keeps_columns_apart(run, tmp_path):
    generate_missing(run, GENEVAL, draw, 8, quiet)
    observe(run)
    rewriting = Rewriting(model="gpt-x", system_prompt="general", system_prompt_hash="ab" * 32)
    rewritten = RunFolder(tmp_path / "rewritten")
    rewritten.start(settings(rewriting=rewriting), PROMPTS)
    generate_missing(rewritten, GENEVAL, draw, 8, quiet)
    observe(rewritten)
    scored = [(one, score_run(one, GENEVAL)) for one in (run, rewritten)]
    text = write_report(scored, tmp_path / "page" / "report.html").read_text()
    assert "prompts as published" in text
    assert "prompts rewritten by gpt-x, system prompt general ababababab" in text
    assert "0.7500 (0.5000 to 1.0000)" in text and "Differences" not in text
    assert "cup 0.80" in text and text.count("data:image/jpeg") == 2 * 8
    assert "0.930" in text, "the published row of Lens"


def test_a_scorer_without_its_observer_is_told(run):
    with pytest.raises(SettingError, match="a detector for geneval"):
        observe_run(run, GENEVAL, "geneval", Observers(), quiet)
    with pytest.raises(SettingError, match="a reader of text"):
        observe_run(run, LONGTEXT, "longtext", Observers(), quiet)


@pytest.mark.parametrize(
    ("colour", "pixel"),
    [
        ("red", (215, 40, 50)),
        ("blue", (60, 110, 220)),
        ("black", (5, 5, 5)),
        ("white", (250, 250, 250)),
        ("brown", (120, 80, 50)),
    ],
)
def test_colours_are_told_by_the_pixels_in_the_middle_of_a_box(colour, pixel):
    pixels = np.full((40, 40, 3), (60, 200, 60), np.uint8)
    pixels[10:30, 10:30] = pixel
    found = DetectedBox("cup", 0.9, (8, 8, 32, 32))
    names = ["red", "green", "blue", "brown", "black", "white"]
    scores = PixelColours().scores(Image.fromarray(pixels), found, names)
    assert max(scores, key=scores.get) == colour and sum(scores.values()) == pytest.approx(1)


class Rewriter:
    """A reasoner that adds words to prompts about cups and fails at others."""

    def __call__(self, prompt, *, seed=0, should_stop=None):
        if "cup" in prompt:
            return Reasoned("refined", f"{prompt}, in soft light", prompt, model="gpt-x")
        return Reasoned("failed", prompt, prompt, reason="It did not answer.", model="gpt-x")


def test_rewritten_prompts_are_drawn_and_scored_by_the_published_facts(tmp_path):
    prompts, rewriting = rewrite_prompts(PROMPTS, Rewriter(), quiet)
    assert [one.prompt for one in prompts[:2]] == ["a photo of a cup, in soft light", "a photo of a dog"]
    assert prompts[0].facts["include"] == PROMPTS[0].facts["include"]
    run = RunFolder(tmp_path / "run")
    run.start(settings(rewriting=rewriting), prompts)
    generate_missing(run, GENEVAL, draw, 8, quiet)
    observe(run)
    (found,) = score_run(run, GENEVAL)
    assert found.score.headline == 0.75 and "4 of 8 images have their published prompt" in found.notes
    assert found.settings.column == "prompts rewritten by gpt-x, system prompt rules"


def test_a_system_prompt_that_sees_metadata_gets_it_and_has_a_column_of_its_own(tmp_path):
    asked = []

    class Model:
        name = "scribe"

        def complete(self, messages, **_):
            asked.append(messages[-1]["content"])
            return ChatResponse("a photo of a cup on a table", False, False, 1, 1)

    values = {"backend": "endpoint", "endpoint": {"url": "http://127.0.0.1:9", "model": "scribe"}}
    told = ReasonerSettings.of(values | {"system_prompt": "geneval-metadata"})
    reasoner = RewritingReasoner(Model(), told, categories=(), count_tokens=len)
    (written,), rewriting = rewrite_prompts(PROMPTS[:1], reasoner, quiet)
    assert written.prompt == "a photo of a cup on a table"
    assert '"class": "cup"' in asked[-1] and rewriting.sees_metadata
    assert "which saw the scorer's metadata" in settings(rewriting=rewriting).column
