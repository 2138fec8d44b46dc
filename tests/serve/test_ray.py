"""Engines on Ray Serve: the same pictures, also of a replica that is killed while it draws."""

import base64
import io
import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from running import serving, until

from lens.errors import CheckpointError, GenerationCancelledError, LensError, QueueFullError, SettingError
from lens.models.checkpoints.adapters.lora_formats import LoraWeights, write_adapter
from lens.sampling.pipeline import LensPipeline
from lens.serve.engine.engine import Engine
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.engine.request import (
    EngineState,
    Failed,
    Finished,
    GenerationRequest,
    LoraRequest,
    Preview,
    StepProgress,
)
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.ray.router import START_RETRY_S, InFlightRequest, RayEngineClient, connect_ray
from lens.serve.retry_after import RetryPlaces
from lens.serve.settings.ray import RaySettings, num_replicas_for_load
from lens.serve.settings.server import ServerSettings

MODEL = "lens-nano-turbo"
LAYER = "transformer_blocks.1.attn.img_qkv"
WAIT_S = 120.0
APPLE = GenerationRequest(MODEL, "a red apple", seed=3, height=128, width=128, steps=20, guidance=1.0)


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """A LoRA, and a file that is none."""
    folder = tmp_path_factory.mktemp("loras")
    denoiser = LensPipeline.from_pretrained(MODEL).transformer
    num_out, num_in = denoiser.get_submodule(LAYER).weight.shape
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, num_in, generator=generator), torch.randn(num_out, 2, generator=generator)
    write_adapter({LAYER: LoraWeights(down, up, 2.0)}, folder / "bold.safetensors")
    (folder / "poisoned.safetensors").write_bytes(b"no LoRA" * 50)
    return {name: folder / f"{name}.safetensors" for name in ("bold", "poisoned")}


@pytest.fixture(scope="module")
def client(tmp_path_factory, loras):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.serve")
    values = {
        "state": tmp_path_factory.mktemp("ray"),
        "models": [MODEL],
        "loras": loras,
        "drain_s": 1,
        "engine": {"threads": 1},
        "ray": {"replicas": 2, "max_replicas": 3, "queue_s": 1000, "cpus": 0.1},
    }
    was_there = ray.is_initialized()  # other tests of this process may use one
    client = RayEngineClient(ServerSettings.of(values))
    try:
        client.wait_until_ready(WAIT_S)
        yield client
    finally:
        client.drain(0)
    assert ray.is_initialized() == was_there, "its own Ray ends with it, another's does not"


@pytest.fixture(scope="module")
def engine(loras):
    with Engine(ModelRegistry.from_names([MODEL], loras)) as engine:
        engine.wait_until_ready(WAIT_S)
        yield engine


def events_of(handle):
    events = [handle.next_event(WAIT_S)]
    while not isinstance(events[-1], Finished | Failed):
        events.append(handle.next_event(WAIT_S))
    return events


def assert_same_picture(one, other):
    """As the contract of the engine has it: equal, or 1 of 255 apart in at most 0.1% of values."""
    apart = np.abs(np.asarray(one, int) - np.asarray(other, int))
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.001


def replica_pids(client):
    """Process ids of the replicas that this test's own Ray runs."""
    import psutil

    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::ServeReplica:lens"):
            found.add(process.pid)
    return found


def killed_while_it_draws(client):
    """Kill a replica that draws now; return its process id."""
    busy = until(lambda: [one.replica for one in list(client._in_flight.values()) if one.is_running], WAIT_S)
    pid = int(busy[0].split("/")[1])
    os.kill(pid, signal.SIGKILL)
    return pid


def test_pictures_of_a_replica_that_is_killed_are_drawn_by_another_and_are_the_same(client, engine):
    requests = [replace(APPLE, seed=seed, previews=2) for seed in range(6)]
    before = replica_pids(client)
    assert len(before) == 2
    handles = [client.submit(request) for request in requests]
    pid = killed_while_it_draws(client)
    assert pid in before
    told = [events_of(handle) for handle in handles]
    assert client.state().finished == 6 and client.state().num_waiting == client.state().num_running == 0
    assert pid not in replica_pids(client)
    assert client.num_retries > 0
    for request, events in zip(requests, told, strict=True):
        previews = [event.number for event in events if isinstance(event, Preview)]
        assert previews == [0, 1]
        assert isinstance(events[-1], Finished), events[-1]
        assert_same_picture(events[-1].image, engine.submit(request).result(WAIT_S).image)


def test_a_picture_to_start_from_travels_and_its_settings_name_the_file_here(client, engine, tmp_path):
    path = tmp_path / "start.png"
    drawn = engine.submit(APPLE).result(WAIT_S)
    drawn.image.save(path)
    request = replace(APPLE, prompt="a green apple", steps=4, image=path, strength=0.5)
    there, here = client.submit(request).result(WAIT_S), engine.submit(request).result(WAIT_S)
    assert_same_picture(there.image, here.image)
    assert there.metadata.init_image == here.metadata.init_image


def test_loras_are_loaded_where_they_are_asked_for_and_a_poisoned_one_fails_its_picture_alone(client, engine):
    request = replace(APPLE, steps=4, loras=(LoraRequest("bold", 0.7),))
    plain = engine.submit(replace(APPLE, steps=4)).result(WAIT_S).image
    for _ in range(2):
        there = client.submit(request).result(WAIT_S)
        assert_same_picture(there.image, engine.submit(request).result(WAIT_S).image)
        assert [lora.path for lora in there.metadata.loras] == ["bold"]
    assert np.abs(np.asarray(plain, int) - np.asarray(there.image, int)).max() > 8
    with pytest.raises(CheckpointError, match="poisoned"):
        client.submit(replace(request, loras=(LoraRequest("poisoned"),))).result(WAIT_S)


def test_what_is_cancelled_ends_and_what_cannot_be_drawn_is_refused_at_once(client):
    handle = client.submit(replace(APPLE, steps=200))
    handle.cancel()
    with pytest.raises(GenerationCancelledError):
        handle.result(WAIT_S)
    with pytest.raises(SettingError, match="model"):
        client.submit(replace(APPLE, model="nobody"))
    assert client.state().cancelled == 1


def test_clients_notice_nothing_of_a_replica_that_is_killed(client, engine, tmp_path):
    """The last of those that share the client: a server that ends drains it."""
    until(lambda: len(replica_pids(client)) == 2, WAIT_S)  # another test may have killed one
    before = client.num_retries
    with serving(tmp_path, client) as served, ThreadPoolExecutor(6) as pool:

        def picture(seed):
            asked = {"model": MODEL, "prompt": APPLE.prompt, "size": "128x128"}
            openai_client = served.client.with_options(timeout=WAIT_S)
            answer = openai_client.images.generate(**asked, extra_body={"seed": seed, "steps": APPLE.steps})
            return Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))

        waiting = [pool.submit(picture, seed) for seed in range(6)]
        killed_while_it_draws(client)
        pictures = [one.result(WAIT_S) for one in waiting]
    assert client.num_retries > before
    for seed, image in enumerate(pictures):
        assert_same_picture(image, engine.submit(replace(APPLE, seed=seed)).result(WAIT_S).image)


def test_replicas_follow_the_work_that_waits_and_never_leave_what_they_draw():
    assert num_replicas_for_load([0.0, 0.0], [0.0, 0.0], queue_s=10) == 0
    assert num_replicas_for_load([0.0, 0.0], [1.0, 0.4], queue_s=10) == 2
    assert num_replicas_for_load([12.0, 19.0], [1.0, 1.0], queue_s=10) == 4
    with pytest.raises(SettingError, match=r"ray\.max_replicas"):
        RaySettings.of({"replicas": 3, "max_replicas": 2})


def test_where_ray_is_missing_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LensError, match=r"\.\[cluster\]"):
        connect_ray(RaySettings.of({}))


def test_a_cluster_that_does_not_answer_is_told_at_once(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(SettingError, match=r"ray\.address"):
        connect_ray(RaySettings.of({"address": "127.0.0.1:1"}))


def test_errors_are_whole_in_another_process():
    full = pickle.loads(pickle.dumps(QueueFullError("full", retry_after_s=7.0)))
    assert (str(full), full.retry_after_s) == ("full", 7.0)
    setting = pickle.loads(pickle.dumps(SettingError("steps", 0, "a whole number")))
    assert setting.setting == "steps" and "steps is 0" in str(setting)


def test_a_request_beyond_the_bound_is_told_when_the_first_image_in_flight_is_finished():
    client = RayEngineClient.__new__(RayEngineClient)
    client._in_flight, client._states, client._retry_places = {}, {}, RetryPlaces()
    assert client._retry_after_s() == START_RETRY_S
    for number, remaining_s in enumerate((40.0, 20.0, None, None)):
        one = InFlightRequest(RequestHandle(APPLE, lambda handle: None))
        client._in_flight[one.handle] = one
        if remaining_s is not None:
            client._handle_event(one, StepProgress(number, 9, remaining_s))
    counts = {"num_waiting": 1, "num_running": 1, "num_tokens": 0, "stage_seconds": {}} | dict.fromkeys(
        ("rejected", "finished", "failed", "cancelled", "prompt_cache_hits", "prompt_cache_misses"), 0
    )
    client._states = {name: EngineState(queue_s=work_s, **counts) for name, work_s in (("a", 60), ("b", 30))}
    told = [client._retry_after_s() for _ in range(6)]
    assert told == pytest.approx([20, 45, 70, 95, 120, 120], abs=5)  # four images in 100 s
