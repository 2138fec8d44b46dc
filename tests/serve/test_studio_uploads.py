"""What pages of the studio upload: into a folder of the server, within bounds, not from other sites."""

import gc
import io
import os
import time
from types import SimpleNamespace

import gradio as gr
import httpx2
import pytest
from fake_engine import FakeEngine
from PIL import Image
from running import answering, until
from test_uploads import bomb, encoded

from lens.errors import SettingError
from lens.serve.api.generation import NO_HOOKS
from lens.serve.server import create_server_app
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import open_server_state
from lens.serve.studio.handlers import image_and_mask
from lens.serve.studio.uploads import MAX_EDITED_IMAGES, MAX_LAYERS, EditedImage, UploadFolder, bound_editor

UPLOAD = "/gradio_api/upload"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    limits = {"body_bytes": 3 * 2**20, "studio_bytes": 2**20}
    settings = ServerSettings.of({"state": folder, "limits": limits})
    store = open_server_state(settings)
    uploads = folder / "studio-uploads"
    uploads.mkdir()
    (uploads / "of the last run").write_bytes(b"x")
    try:
        engine = FakeEngine()
        app = create_server_app(engine, settings, store, NO_HOOKS, has_studio=True)
        with answering(app, settings.limits) as base, httpx2.Client(base_url=base) as http:
            yield SimpleNamespace(base=base, http=http, uploads=uploads, engine=engine)
    finally:
        store.close()


def upload(server, *sizes, **headers):
    names = (f"{number}-{time.monotonic_ns()}.bin" for number in range(len(sizes)))
    files = [("files", (name, os.urandom(size))) for name, size in zip(names, sizes, strict=True)]
    return server.http.post(UPLOAD, files=files, headers=headers)


def num_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_uploads_are_in_a_folder_of_the_server_that_starts_empty(server):
    assert not (server.uploads / "of the last run").exists()
    assert server.uploads.stat().st_mode & 0o777 == 0o700
    (path,) = upload(server, 1000).json()
    assert path.startswith(f"{server.uploads}/")


def falls_to(folder, bound: int) -> bool:
    """Return whether a folder is within its bound soon: it is trimmed after an upload has its answer."""
    deadline = time.monotonic() + 20
    while num_bytes(folder) > bound and time.monotonic() < deadline:
        time.sleep(0.02)
    return num_bytes(folder) <= bound


def test_uploads_have_a_bound_together_and_one_by_one(server):
    for _ in range(3):
        assert upload(server, 500_000).status_code == 200
        assert falls_to(server.uploads, 2**20)
    (last,) = upload(server, 500_000).json()
    assert os.path.isfile(last), "the newest stay"
    before = num_bytes(server.uploads)
    assert upload(server, 1_200_000, 1_200_000, 1_200_000).status_code == 413
    assert falls_to(server.uploads, max(before, 2**20))


def test_pages_of_other_sites_upload_nothing(server):
    before = num_bytes(server.uploads)
    for origin in ("https://evil.example", "null"):
        assert upload(server, 1000, Origin=origin).status_code == 403
        answer = server.http.post("/gradio_api/queue/join", json={}, headers={"Origin": origin})
        assert answer.status_code == 403
    assert num_bytes(server.uploads) == before


def test_routes_that_the_studio_does_not_use_are_closed(server):
    assert server.http.get("/gradio_api/dev/reload").status_code == 404
    assert server.http.post("/gradio_api/process_recording", files={"a": b"x"}).status_code == 404


def test_json_of_pages_has_a_bound(server):
    assert server.http.post("/gradio_api/queue/join", content=b"[" * 1_500_000).status_code == 413


def test_an_image_that_a_page_edits_is_drawn_from(server):
    """As the page does it: the image is sent in parts under a name, then Draw is clicked with that name."""
    config = server.http.get("/config").json()
    click = next(one for one in config["dependencies"] if one["api_name"] == "on_draw")
    controls = {one["id"]: one["props"] for one in config["components"]}
    names = [controls[number].get("elem_id") for number in click["inputs"]]
    values = [controls[number].get("value") for number in click["inputs"]]
    editor = click["inputs"][names.index("start")]
    form = {"component_id": editor, "session_hash": "any", "fn_name": "accept_blobs", "id": "edited"}
    form |= {"index": "null"}
    for part in ("background", "composite"):
        files = {"file": ("in.png", encoded(Image.new("RGBA", (64, 48), "red")))}
        sent = server.http.post("/gradio_api/component_server", data=form | {"type": part}, files=files)
        assert sent.status_code == 200, sent.text
    values[names.index("prompt")] = "a fox"
    values[names.index("start")] = {"background": None, "layers": [], "composite": None, "id": "edited"}
    body = {"data": values, "fn_index": click["id"], "session_hash": "any"}
    assert server.http.post("/gradio_api/queue/join", json=body).status_code == 200
    request = until(lambda: server.engine.requests and server.engine.requests[-1], 20)
    assert Image.open(request.image).getpixel((0, 0)) == (255, 0, 0)


def test_the_editor_reads_images_as_the_api_does(tmp_path):
    from gradio.components.image_editor import EditorData
    from gradio.data_classes import FileData

    editor = bound_editor(gr.ImageEditor(type="pil"), 10**6)

    def background(image):
        image.save(tmp_path / "a.png")
        sent = EditorData(background=FileData(path=str(tmp_path / "a.png")))
        return editor.preprocess(sent).decode()["background"]

    assert background(Image.new("I;16", (4, 3), 32768)).getpixel((0, 0)) == (128, 128, 128)
    assert background(Image.new("RGBA", (4, 3), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)
    assert background(Image.new("RGBA", (4, 3), (0, 0, 0, 0))) is None, "an editor without an image"


def test_old_uploads_are_deleted(tmp_path, monkeypatch):
    folder = UploadFolder(tmp_path / "uploads", 10)
    folder.clear()
    (folder.path / "old").write_bytes(b"12345")
    folder.trim()
    assert (folder.path / "old").exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    folder.trim()
    assert not (folder.path / "old").exists()


def test_an_edited_image_is_bounded_before_it_is_decoded(tmp_path):
    with gr.Blocks():
        editor = bound_editor(gr.ImageEditor(type="pil", layers=False), max_px=10_000)
    path = tmp_path / "in.png"

    def preprocess(content):
        path.write_bytes(content)
        return editor.preprocess(editor.data_model(background={"path": str(path)}, layers=[], composite=None))

    assert preprocess(encoded(Image.new("RGB", (64, 64)))).decode()["background"].size == (64, 64)
    assert editor.preprocess(None) is None
    for content, says in ((bomb(8000), "8000x8000"), (b"no image", "can be read"), (b"", "can be read")):
        refused = preprocess(content)  # an error of Gradio would name no field and stand in the log
        assert isinstance(refused, SettingError) and says in str(refused) and refused.setting == "image"


def test_a_page_that_draws_for_minutes_keeps_its_edited_image_as_it_was_sent():
    """Decoded, a source image of 16 megapixels and its layer take 112 MB for each page that draws."""
    with gr.Blocks():
        editor = bound_editor(gr.ImageEditor(type="pil", layers=False), max_px=16_000_000)
    stroke = Image.new("RGBA", (1000, 500), (255, 255, 255, 0))
    stroke.paste((255, 255, 255, 255), (10, 20, 30, 40))
    for kind, part in (("background", Image.new("RGBA", (1000, 500), "red")), ("layer", stroke)):
        sent = {"id": "edited", "type": kind, "index": "0"}
        editor.accept_blobs(SimpleNamespace(data=sent, files=[("file", encoded(part))]))
    before = {id(one) for one in gc.get_objects() if isinstance(one, Image.Image)}
    value = editor.preprocess(editor.data_model(id="edited"))
    assert not [one for one in gc.get_objects() if isinstance(one, Image.Image) and id(one) not in before]
    assert isinstance(value, EditedImage) and len(value.background) + len(value.layers[0]) < 10_000
    image, mask = image_and_mask(value)
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 0, 0)
    assert mask.getbbox() == (10, 20, 30, 40)
    assert not editor.blob_storage


def test_a_cut_off_image_is_told_where_it_is_decoded():
    content = encoded(Image.effect_noise((64, 64), 50))
    with pytest.raises(SettingError, match="can be read") as caught:
        image_and_mask(EditedImage(content[: len(content) // 2]))
    assert caught.value.setting == "image"


def test_pages_cannot_choose_how_much_memory_an_edited_image_takes():
    with gr.Blocks():
        editor = bound_editor(gr.ImageEditor(type="pil", layers=False), max_px=10_000)

    def send(name, index):
        sent = {"id": name, "type": "layer", "index": index}
        editor.accept_blobs(SimpleNamespace(data=sent, files=[("file", io.BytesIO(b"x").read())]))

    for index in (str(10**9), "-1", str(MAX_LAYERS)):
        with pytest.raises(gr.Error, match="layers"):
            send("a", index)
    for number in range(3 * MAX_EDITED_IMAGES):
        send(f"page {number}", "0")
    assert len(editor.blob_storage) == MAX_EDITED_IMAGES
