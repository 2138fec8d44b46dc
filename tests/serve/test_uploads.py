"""Uploaded images: what is small as a file and large in memory costs little, and keeps its meaning."""

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from PIL import Image
from running import serving

from lens.errors import SettingError
from lens.serve.api import context
from lens.serve.api.uploads import MAX_STORED_PX, store_source_images
from lens.serve.engine.validation import validate_request
from lens.serve.settings.server import RequestLimits

EDITS = "/v1/images/edits"
MAX_PX = RequestLimits().upload_px
TEAL, WHITE = (0, 128, 128), (255, 255, 255)


class Uploads:
    """Keeps what is stored."""

    def __init__(self):
        self.images = []

    def put(self, content):
        self.images.append(Image.open(io.BytesIO(content)))
        return len(self.images) - 1


def stored(image, mask=None, max_px=MAX_PX):
    uploads = Uploads()
    return store_source_images(uploads, image, mask, max_px, 1024), uploads.images


def encoded(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def bomb(side):
    """Return a PNG of nothing, a thousandth as large as its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor, row = zlib.compressobj(9), b"\0" * (1 + (side + 7) // 8)
    pixels = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("uploads")) as running:
        yield running


def test_two_uploads_are_decoded_at_a_time_while_others_are_answered(server, monkeypatch):
    store, gate, lock = context.store_source_images, threading.Event(), threading.Lock()
    now, most = [0], [0]

    def counted(*values):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        assert gate.wait(10)
        try:
            return store(*values)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(context, "store_source_images", counted)
    image = encoded(Image.new("RGB", (64, 64), TEAL))
    with ThreadPoolExecutor(80) as pool:  # more than the server has threads
        sent = {"files": {"image": ("a.png", image)}, "data": {"prompt": "a", "size": "64x64", "steps": "1"}}
        answers = [pool.submit(server.http.post, EDITS, timeout=60, **sent) for _ in range(80)]
        while now[0] < 2:
            time.sleep(0.01)
        assert httpx2.get(f"{server.base}/readyz", timeout=5).status_code == 200
        drawn = httpx2.post(f"{server.base}/v1/images/generations", json={"prompt": "a"}, timeout=10)
        assert drawn.status_code == 200
        gate.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert most[0] == 2


def test_too_many_pixels_are_refused_unread(server):
    content = bomb(8000)
    assert len(content) < 20_000
    for files in ({"image": ("a.png", content)}, {"image": ("a.png", bomb(64)), "mask": ("m.png", content)}):
        answer = server.http.post(EDITS, files=files, data={"prompt": "a"})
        assert answer.status_code == 400 and "8000x8000" in answer.json()["error"]["message"]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_large_images_are_stored_smaller(file_format):
    image = Image.new("RGB", (3000, 2000), WHITE)
    image.paste(TEAL, (0, 0, 1500, 2000))
    uploads, images = stored(encoded(image, file_format))
    assert images[0].width * images[0].height <= 1.001 * MAX_STORED_PX
    assert images[0].width / images[0].height == pytest.approx(1.5, rel=0.001)
    left, right = (images[0].getpixel((images[0].width * share // 4, 50)) for share in (1, 3))
    assert left == pytest.approx(TEAL, abs=3) and right == pytest.approx(WHITE, abs=3)
    assert uploads.size == (832, 1248)


def test_a_mask_keeps_its_place_on_a_large_turned_photograph():
    photograph = Image.new("RGB", (3000, 2000), TEAL)
    turned = photograph.getexif()
    turned[0x0112] = 6  # the right of the upright image is its top
    mask = Image.new("L", (2000, 3000))
    mask.paste(255, (0, 0, 2000, 1500))
    _, images = stored(encoded(photograph, "JPEG", exif=turned), encoded(mask))
    kept, area = images
    assert kept.size == area.size and kept.height > kept.width
    assert area.getpixel((9, 9)) == 255 and area.getpixel((9, area.height - 9)) == 0
    with pytest.raises(SettingError, match="2000x3000"):
        stored(encoded(photograph, "JPEG", exif=turned), encoded(mask.resize((1000, 1500))))


def test_a_jpeg_of_very_many_scans_is_refused():
    photograph = Image.effect_noise((64, 64), 50)
    content = encoded(photograph, "JPEG", progressive=True)
    assert stored(content)[1][0].size == (64, 64)
    last = content.rindex(b"\xff\xda")
    repeated = content[:last] + content[last:-2] * 200 + content[-2:]
    with pytest.raises(SettingError, match="scans"):
        stored(repeated)
    # Videos at the end of a photograph contain the same two bytes by chance.
    assert stored(content + b"\xff\xda\x00\x02" * 200)[1][0].size == (64, 64)


def test_the_engine_does_not_decode_a_file_to_queue_it(tmp_path, monkeypatch):
    from test_validation import REQUEST

    path = tmp_path / "in.png"
    path.write_bytes(bomb(64))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    request = REQUEST.__class__(**{**vars(REQUEST), "image": path})
    validate_request(request, ["lens-nano"], [], max_steps=200)
    path.write_bytes(b"no image")
    with pytest.raises(SettingError, match="readable image"):
        validate_request(request, ["lens-nano"], [], max_steps=200)
