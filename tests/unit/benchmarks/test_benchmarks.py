"""Prompts of benchmarks are read from their published files, wherever these lie, and fetched whole."""

import dataclasses
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from local_server import Answering, started_server

from lens.benchmarks.base import BenchmarkPrompt, DataFile, read_data, spread
from lens.benchmarks.fetch import FetchError, fetch
from lens.benchmarks.registry import BENCHMARKS, data_folder, find_benchmark
from lens.errors import SettingError

EVALDATA = Path(os.environ.get("LENS_EVALDATA", Path(__file__).parents[4] / "shared/evaldata"))
PUBLISHED = {"geneval": ("geneval", 553), "longtext": ("longtext", 320), "cvtg": ("cvtg-2k", 2000)}


@pytest.mark.skipif(
    not EVALDATA.is_dir(), reason=f"NOT RUN: the published prompts are not in {EVALDATA}; set LENS_EVALDATA"
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_give_all_prompts_each_with_a_file_name_of_its_own(name):
    folder, count = PUBLISHED[name]
    benchmark = find_benchmark(name)
    data = read_data(benchmark, EVALDATA / folder)
    assert (len(data.prompts), data.has_official_files) == (count, True)
    names = {benchmark.image_name(prompt, repeat) for prompt in data.prompts for repeat in range(4)}
    assert len(names) == 4 * count
    assert len({prompt.key for prompt in data.prompts}) == count


def write_geneval(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluation_metadata.jsonl").write_text(text)


CUP = {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a cup"}


def test_a_repository_may_hold_the_file_anywhere_and_other_prompts_are_told_from_the_official(tmp_path):
    write_geneval(tmp_path / "clone" / "prompts", CUP, CUP | {"tag": "colors"})
    data = read_data(BENCHMARKS["geneval"], tmp_path)
    assert [prompt.key for prompt in data.prompts] == ["00000", "00001"]
    assert data.prompts[1].facts == {
        "prompt_id": 1, "tag": "colors", "include": CUP["include"], "exclude": [],
    }  # fmt: skip
    assert not data.has_official_files


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "at least one prompt"),
        ([{"prompt": "a cup"}], "published form"),
        ([["a cup"]], "a JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_folder(tmp_path, rows, told):
    write_geneval(tmp_path, *rows)
    with pytest.raises(SettingError, match=told):
        read_data(BENCHMARKS["geneval"], tmp_path)


def test_a_missing_file_is_told_with_the_way_to_get_it(tmp_path):
    with pytest.raises(SettingError, match=r"lens eval fetch geneval"):
        read_data(BENCHMARKS["geneval"], tmp_path)
    with pytest.raises(SettingError, match=r"dpg_bench.csv.*TencentQQGYLab/ELLA"):
        read_data(BENCHMARKS["dpg"], tmp_path)


def test_questions_of_dpg_come_from_its_table(tmp_path):
    (tmp_path / "dpg_bench.csv").write_text(
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
        "question_natural_language\n"
        'a1,"a red cup, full",,1,0,entity,whole,x,Is there a cup?\n'
        'a1,"a red cup, full",,2,"1, 3",attribute,color,x,Is it red?\n'
        "b2,a road,,1,0,global,,x,Is it a road?\n"
    )
    first, second = read_data(BENCHMARKS["dpg"], tmp_path).prompts
    assert first.prompt == "a red cup, full" and first.facts["dependency"] == {"1": [0], "2": [1, 3]}
    assert first.facts["category"] == {"1": "entity - whole", "2": "attribute - color"}
    assert second.facts["category"] == {"1": "global"}


def test_fewer_prompts_are_spread_over_all_tasks():
    prompts = [BenchmarkPrompt(str(n), "p", "ab"[n >= 30], {}) for n in range(90)]
    chosen = spread(prompts, 9)
    assert Counter(prompt.group for prompt in chosen) == {"a": 3, "b": 6}
    assert spread(prompts, 200) == spread(prompts, None) == prompts


@pytest.fixture
def host():
    """A server that gives the content of its class for any path."""

    class Handler(Answering):
        status, content = 200, b"prompts"

        def do_GET(self):
            self.send(self.status, {}, self.content)

    server = started_server(Handler)
    yield Handler, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def at(url, content):
    file = DataFile("prompts/all.jsonl", hashlib.sha256(content).hexdigest(), f"{url}/all.jsonl")
    return dataclasses.replace(BENCHMARKS["geneval"], files=(file,))


def test_a_file_is_saved_once_and_only_if_it_is_the_published_one(host, tmp_path):
    handler, url = host
    (path,) = fetch(at(url, b"prompts"), tmp_path)
    assert path.read_bytes() == b"prompts"
    handler.status = 500
    assert fetch(at(url, b"prompts"), tmp_path) == [path], "a file that is there is not asked for again"
    with pytest.raises(FetchError, match="answers 500"):
        fetch(at(url, b"others"), tmp_path)
    handler.status = 200
    with pytest.raises(FetchError, match="Nothing was saved"):
        fetch(at(url, b"others"), tmp_path / "new")
    assert not list((tmp_path / "new").rglob("*.jsonl"))


def test_a_benchmark_whose_licence_forbids_it_is_not_fetched(tmp_path):
    with pytest.raises(SettingError, match=r"--data PATH"):
        fetch(BENCHMARKS["dpg"], tmp_path)


def test_downloads_lie_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LENS_CACHE", str(tmp_path))
    assert data_folder("geneval") == tmp_path / "benchmarks" / "geneval"
