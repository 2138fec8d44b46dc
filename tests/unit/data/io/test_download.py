"""URLs are downloaded once, opt-outs are respected, and the reason of every failure is remembered."""

import io
import json
from collections import Counter

import pytest
from local_server import Answering, started_server
from PIL import Image

from lens.data.build.inventory import take_inventory
from lens.data.build.reader import EntryReader
from lens.data.build.rounds import (
    begin_round,
    latest_round,
    parts_to_retry,
    retry_downloads,
    round_number,
)
from lens.data.build.scoring import PIXEL_SCORES_FOLDER, score_part, unscored_parts
from lens.data.build.settings import BuildSettings
from lens.data.io.download import DownloadSettings, cache_path, download_all
from lens.data.io.image_decoding import sample_id
from lens.data.io.parquet import read_parts


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(buffer, "PNG")
    return buffer.getvalue()


ANSWERS = {
    "/fox": (200, {}, b"fox"),
    "/picture": (200, {}, png()),
    "/picture?2": (200, {}, png()),
    "/moved": (302, {"location": "/fox"}, b""),
    "/loop": (302, {"location": "/loop"}, b""),
    "/inside": (302, {"location": "http://denied.example/a"}, b""),
    "/ftp": (302, {"location": "ftp://example.org/a"}, b""),
    "/gone": (404, {}, b""),
    "/closed": (403, {}, b""),
    "/large": (200, {}, b"x" * 3000),
    "/noai": (200, {"x-robots-tag": "otherbot: noarchive, noai"}, b"bee"),
    "/archive": (200, {"x-robots-tag": "noarchive"}, b"key"),
    "/broken": (500, {}, b""),
}


@pytest.fixture
def site():
    """A server on this machine: its address and how often each path was asked for."""
    asked: Counter[str] = Counter()

    class Handler(Answering):
        def do_GET(self):
            asked[self.path] += 1
            status, headers, content = ANSWERS[self.path]
            if self.path == "/broken" and asked[self.path] > 2:
                status, content = 200, b"mended"
            self.send(status, headers, content)

    server = started_server(Handler)
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


SETTINGS = DownloadSettings(
    allows_private_hosts=True, max_bytes=2000, denied_hosts=("denied.example",), timeout_s=5
)


def fetched(urls, folder, settings=SETTINGS):
    return download_all(urls, folder, settings, sleep=lambda _: None)


def test_bytes_are_kept_under_the_address_also_behind_a_redirect(site, tmp_path):
    root, _ = site
    urls = [f"{root}/fox", f"{root}/moved", f"{root}/archive"]
    found = fetched(urls, tmp_path)
    assert [one.path.read_bytes() for one in found] == [b"fox", b"fox", b"key"]
    assert [one.path for one in found] == [cache_path(url, tmp_path) for url in urls]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", "gone"), ("/closed", "forbidden"), ("/large", "too_large"), ("/noai", "opted_out"),
        ("/loop", "too_many_redirects"), ("/inside", "denied"), ("/ftp", "bad_address"),
    ],
)  # fmt: skip
def test_what_gives_nothing_has_its_reason(path, reason, site, tmp_path):
    root, _ = site
    assert fetched([root + path], tmp_path) == [(None, reason)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/a", "bad_address"), ("nothing", "bad_address"), ("http://[broken", "bad_address"),
        ("http://sub.denied.example/a", "denied"),
    ],
)  # fmt: skip
def test_forbidden_urls_are_not_asked(url, reason, tmp_path):
    assert fetched([url], tmp_path) == [(None, reason)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]"])
def test_private_addresses_are_refused_unless_allowed(host, tmp_path):
    assert fetched([f"http://{host}/a"], tmp_path, DownloadSettings()) == [(None, "private_address")]


def test_nothing_is_requested_twice_neither_successes_nor_failures(site, tmp_path):
    root, asked = site
    urls = [f"{root}/fox", f"{root}/gone"]
    first = fetched(urls, tmp_path)
    assert fetched(urls, tmp_path) == first
    assert asked == {"/fox": 1, "/gone": 1}


def test_a_failing_server_is_asked_again(site, tmp_path):
    root, asked = site
    assert fetched([f"{root}/broken"], tmp_path)[0].path.read_bytes() == b"mended"
    assert asked["/broken"] == 3


def test_an_owner_of_the_images_can_ignore_an_opt_out(site, tmp_path):
    root, _ = site
    own = SETTINGS.model_copy(update={"honours_opt_out": False})
    assert fetched([f"{root}/noai"], tmp_path, own)[0].path.read_bytes() == b"bee"


def test_a_part_of_a_list_is_fetched_and_measured_and_failures_keep_their_reason(site, tmp_path):
    root, asked = site
    (tmp_path / "list.jsonl").write_text(
        "".join(json.dumps({"url": root + path}) + "\n" for path in ("/gone", "/picture", "/fox"))
    )
    source = {"kind": "manifest", "path": str(tmp_path), "fetching": SETTINGS.model_dump()}
    settings = BuildSettings.of({"out": str(tmp_path / "out"), "source": source})
    inventory = take_inventory(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    for _ in range(2):
        assert score_part(inventory, 0, tmp_path / "scores", reader) == 3
    rows = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 1).to_pylist()
    assert [row["unreadable"] for row in rows] == ["gone", "", "unknown_type"]
    assert (rows[1]["height_px"], rows[1]["width_px"]) == (5, 7)
    assert rows[1]["id"] == sample_id(ANSWERS["/picture"][2])
    assert len({row["id"] for row in rows}) == 3
    assert asked["/picture"] == 1


def test_an_unreachable_url_is_tried_again_by_the_next_run_until_its_days_are_over(site, tmp_path):
    root, asked = site
    url = [f"{root}/broken"]
    once = SETTINGS.model_copy(update={"max_attempts": 1})
    assert fetched(url, tmp_path, once) == [(None, "unreachable")]
    never = once.model_copy(update={"retry_days": 0})
    assert fetched(url, tmp_path, never) == [(None, "unreachable")] and asked["/broken"] == 1
    assert fetched(url, tmp_path, once) == [(None, "unreachable")] and asked["/broken"] == 2
    assert fetched(url, tmp_path, once)[0].path.read_bytes() == b"mended"


def test_a_failure_of_the_settings_is_forgotten_with_the_settings(site, tmp_path):
    root, asked = site
    urls = [f"{root}/noai", f"{root}/large", f"{root}/gone"]
    assert [one.reason for one in fetched(urls, tmp_path)] == ["opted_out", "too_large", "gone"]
    other = SETTINGS.model_copy(update={"honours_opt_out": False, "max_bytes": 5000})
    assert [one.reason for one in fetched(urls, tmp_path, other)] == ["", "", "gone"]
    assert asked == {"/noai": 2, "/large": 2, "/gone": 1}


def test_after_an_outage_only_the_parts_that_changed_are_scored_again(site, tmp_path):
    root, asked = site
    rows = [{"url": root + path} for path in ("/picture", "/gone", "/broken", "/picture?2")]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fetching = SETTINGS.model_dump() | {"max_attempts": 1}
    source = {"kind": "manifest", "path": str(tmp_path), "fetching": fetching}
    settings = BuildSettings.of({"out": str(tmp_path / "out"), "source": source, "part_size": 2})
    inventory = take_inventory(settings)
    reader, folder = EntryReader(settings.all_sources, tmp_path / "downloads"), tmp_path / "scores"
    scores = latest_round(folder, inventory.folder.name)
    for part in range(2):
        score_part(inventory, part, scores, reader)
    assert parts_to_retry(scores, 2) == [1]
    assert not retry_downloads(inventory, 1, scores, reader), "still down"
    assert retry_downloads(inventory, 1, scores, reader)
    following = begin_round(scores, {1})
    assert latest_round(folder, inventory.folder.name) == following and round_number(following) == 1
    assert unscored_parts(following, 2, ()) == [1]
    score_part(inventory, 1, following, reader)
    for path, third in ((scores, "unreachable"), (following, "unknown_type")):
        reasons = read_parts(path / PIXEL_SCORES_FOLDER, 2).column("unreadable").to_pylist()
        assert reasons == ["", "gone", third, ""]
    assert parts_to_retry(following, 2) == [] and asked["/gone"] == 1
