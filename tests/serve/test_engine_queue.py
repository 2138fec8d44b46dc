"""The engine's queue, on the nano model: who goes first, who is told no, and an answer to every request."""

import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from lens.errors import (
    CheckpointError,
    DeadlineError,
    DrainingError,
    GenerationCancelledError,
    LensError,
    MemoryNeedError,
    QueueFullError,
    SettingError,
)
from lens.serve.engine import batching
from lens.serve.engine.cost_model import request_cost
from lens.serve.engine.engine import Engine
from lens.serve.engine.model_registry import ModelRegistry
from lens.serve.engine.request import Failed, Finished, GenerationRequest, LoraRequest, Queued, StepProgress
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.settings.engine import EngineSettings

WAIT_S = 60.0
DOT = GenerationRequest("lens-nano-turbo", "a star", seed=0, height=64, width=64, steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def registry():
    return ModelRegistry.from_names(["lens-nano-turbo"])


@pytest.fixture(scope="module")
def engine(registry):
    with Engine(registry) as engine:
        yield engine


@contextmanager
def held(engine, **values):
    """Let no step of the denoiser pass until the block ends."""
    worker, step, may_pass, stands = engine._worker, engine._worker.step, threading.Event(), threading.Event()

    def waiting_step(*args):
        stands.set()
        may_pass.wait(WAIT_S)
        return step(*args)

    worker.step = waiting_step
    blocker = engine.submit(replace(DOT, prompt="what everybody waits for", caller="blocker", **values))
    assert stands.wait(WAIT_S)
    try:
        yield blocker
    finally:
        worker.step = step
        may_pass.set()
        blocker.cancel()


def one_at_a_time(registry, **settings):
    return Engine(registry, EngineSettings(max_running=1, **settings))


def events_of(handle):
    events = []
    while not events or not isinstance(events[-1], Finished | Failed):
        events.append(handle.next_event(WAIT_S))
    return events


def test_a_handle_tells_of_waiting_then_of_each_step_then_of_the_picture(engine):
    handle = engine.submit(replace(DOT, steps=3))
    events = events_of(handle)
    assert isinstance(events[0], Queued) and events[0].position == 0
    drawing = [event for event in events if isinstance(event, StepProgress)]
    assert [(event.step, event.num_steps) for event in drawing] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert all(0 < event.remaining_s < 30 for event in drawing)
    assert events[-1] == handle.next_event(0) and isinstance(events[-1], Finished)
    assert events[-1].image.size == (64, 64)


def test_nothing_in_time_is_a_timeout(engine):
    with held(engine) as blocker:
        while not isinstance(blocker.next_event(WAIT_S), StepProgress):
            pass
        with pytest.raises(TimeoutError):
            blocker.next_event(0.01)
        with pytest.raises(TimeoutError):
            blocker.result(0.01)


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("model", {"model": "lens-giant"}),
        ("prompt", {"prompt": "  "}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**63}),
        ("size", {"height": 100}),
        ("size", {"width": 0}),
        ("size", {"height": 64, "width": 160}),
        ("size", {"height": 2048, "width": 2048}),
        ("steps", {"steps": 0}),
        ("steps", {"steps": 201}),
        ("steps", {"steps": 2.5}),
        ("guidance", {"guidance": float("nan")}),
        ("guidance", {"guidance": -1.0}),
        ("solver", {"solver": "magic"}),
        ("loras", {"loras": (LoraRequest("none"),)}),
        ("mask", {"mask": "mask.png"}),
        ("image", {"image": "missing.png"}),
        ("strength", {"image": "missing.png", "strength": 0.0}),
        ("previews", {"previews": 4}),
        ("deadline_s", {"deadline_s": 0.0}),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused_by_the_name_of_its_parameter(engine, setting, change):
    with pytest.raises(SettingError) as caught:
        engine.submit(replace(DOT, **change))
    assert caught.value.setting == setting


def test_a_full_queue_says_when_to_come_back(registry):
    with one_at_a_time(registry, max_waiting=2) as engine, held(engine):
        handles = [engine.submit(DOT) for _ in range(2)]
        with pytest.raises(QueueFullError) as caught:
            engine.submit(DOT)
        assert caught.value.retry_after_s >= 1
        state = engine.state()
        assert (state.num_waiting, state.num_running, state.rejected) == (2, 1, 1)
        assert state.queue_s == pytest.approx(2 * engine.cost_model.estimate_seconds(DOT))
        handles[0].cancel()
        assert engine.state().num_waiting == 1
        engine.submit(DOT)  # there is room again


def test_a_full_queue_counts_the_rest_of_the_picture_that_is_drawn(registry):
    with one_at_a_time(registry, max_waiting=1) as engine:
        engine.wait_until_ready(WAIT_S)
        engine.cost_model.record(DOT.model, "denoise", 1, 0.05)  # a slow machine
        with held(engine, steps=200):
            engine.submit(DOT)
            with pytest.raises(QueueFullError) as caught:
                engine.submit(DOT)
            blocker_s = engine.cost_model.estimate_seconds(replace(DOT, steps=200))
    assert caught.value.retry_after_s == pytest.approx(blocker_s, rel=0.2) and blocker_s > 10


def test_callers_take_turns_and_the_higher_priority_of_each_goes_first(registry):
    with one_at_a_time(registry) as engine:
        order, start = [], engine._worker.start
        with held(engine):

            def recorded(request):
                order.append(f"{request.caller}{request.seed}")
                return start(request)

            engine._worker.start = recorded
            submitted = [("a", 0), ("a", 0), ("a", 1), ("a", 0), ("b", 0), ("b", 5)]
            handles = [
                engine.submit(replace(DOT, seed=number, caller=caller, priority=priority))
                for number, (caller, priority) in enumerate(submitted)
            ]
            # Each as it found the queue: a2 overtakes those of its caller, b's turn comes after one of a's.
            assert [last_position(handle) for handle in handles] == [0, 1, 0, 3, 1, 1]
        for handle in handles:
            handle.result(WAIT_S)
    assert order == ["a2", "b5", "a0", "b4", "a1", "a3"]


def last_position(handle):
    event = handle.next_event(WAIT_S)
    assert isinstance(event, Queued)
    return event.position


def test_a_place_that_changes_is_told(registry):
    with one_at_a_time(registry) as engine:
        with held(engine):
            first, second = engine.submit(DOT), engine.submit(replace(DOT, steps=30))
            third = engine.submit(DOT)
            assert [last_position(handle) for handle in (first, second, third)] == [0, 1, 2]
        events = events_of(third)
    positions = [event.position for event in events if isinstance(event, Queued)]
    assert positions == sorted(positions, reverse=True) and positions[-1] in (0, 1)


def test_a_cancelled_picture_frees_its_place_at_the_next_step(registry):
    with one_at_a_time(registry) as engine:
        with held(engine) as blocker:
            waits, next_one = engine.submit(DOT), engine.submit(DOT)
            waits.cancel()
            with pytest.raises(GenerationCancelledError):  # at once: it had not begun
                waits.result(0)
            blocker.cancel()
        next_one.result(WAIT_S)
        with pytest.raises(GenerationCancelledError):
            blocker.result(0)
        assert engine.state().cancelled == 2
        next_one.cancel()  # does nothing to what is over
        assert next_one.result(0).image.size == (64, 64)


def test_a_picture_that_would_be_late_fails_and_the_next_one_does_not(registry):
    with one_at_a_time(registry) as engine:
        engine.wait_until_ready(WAIT_S)
        with held(engine):
            late, patient = engine.submit(replace(DOT, deadline_s=0.05)), engine.submit(DOT)
            time.sleep(0.1)
        with pytest.raises(DeadlineError):
            late.result(WAIT_S)
        patient.result(WAIT_S)
        # It begins in time, at an estimate of next to nothing, and is late on its way.
        engine.cost_model.estimate_seconds = lambda request: 0.0
        with pytest.raises(DeadlineError, match="not finished"):
            engine.submit(replace(DOT, height=256, width=256, steps=200, deadline_s=0.2)).result(WAIT_S)
        assert engine.state().failed == 2


def test_a_picture_whose_time_passes_far_back_in_the_queue_is_told_at_once(registry):
    with one_at_a_time(registry) as engine:
        engine.wait_until_ready(WAIT_S)
        long_one = engine.submit(replace(DOT, height=128, width=128, steps=200))
        behind = engine.submit(replace(DOT, steps=50))
        late = engine.submit(replace(DOT, deadline_s=0.1))
        with pytest.raises(DeadlineError, match="could not begin"):
            late.result(WAIT_S)
        for handle in (long_one, behind):
            with pytest.raises(TimeoutError):
                handle.result(0)


def test_an_error_of_one_picture_is_no_other_pictures(engine, tmp_path):
    path = tmp_path / "start.png"
    with held(engine):
        from PIL import Image

        Image.new("RGB", (64, 64)).save(path)
        good, bad = engine.submit(DOT), engine.submit(replace(DOT, image=path))
        path.write_bytes(b"no picture any more")
    with pytest.raises(LensError):
        bad.result(WAIT_S)
    good.result(WAIT_S)


def test_a_pack_that_does_not_fit_into_memory_is_drawn_in_halves(registry, monkeypatch):
    whole, sizes = batching.predict_packed_velocities, []

    def small_memory(denoiser, pack):
        sizes.append(len(pack))
        if len(pack) > 2:
            raise torch.OutOfMemoryError("Tried to allocate a picture too many")
        return whole(denoiser, pack)

    with Engine(registry) as engine:
        engine.wait_until_ready(WAIT_S)
        monkeypatch.setattr(batching, "predict_packed_velocities", small_memory)
        with held(engine):
            handles = [engine.submit(replace(DOT, seed=seed)) for seed in range(5)]
        for handle in handles:
            handle.result(WAIT_S)
        assert max(sizes) > 2
        sizes.clear()
        handles = [engine.submit(replace(DOT, seed=seed)) for seed in range(4)]
        for handle in handles:
            handle.result(WAIT_S)
        assert max(sizes) <= 2  # what memory holds is remembered

        monkeypatch.setattr(
            batching, "predict_packed_velocities", lambda *_: (_ for _ in ()).throw(MemoryError())
        )
        with pytest.raises(MemoryNeedError):
            engine.submit(DOT).result(WAIT_S)
        monkeypatch.setattr(batching, "predict_packed_velocities", whole)
        engine.submit(DOT).result(WAIT_S)


def test_no_more_tokens_are_in_flight_than_are_allowed_but_a_large_picture_is_drawn_alone(registry):
    of_one = request_cost(DOT).tokens_per_evaluation
    with Engine(registry, EngineSettings(max_tokens=2 * of_one, loads_at_start=False)) as engine:
        engine.wait_until_ready(0.5)  # there is nothing to wait for: the model loads with the first request
        together, step = [], engine._worker.step

        def recorded(model, loras, states):
            together.append([state.latent_size for state in states])
            return step(model, loras, states)

        engine._worker.step = recorded
        requests = [replace(DOT, seed=seed, caller="a") for seed in range(5)]
        requests.insert(2, replace(DOT, height=128, width=128))
        handles = [engine.submit(request) for request in requests]
        for handle in handles:
            handle.result(WAIT_S)
    assert max(map(len, together)) == 2
    assert all(len(cells) == 1 for cells in together if (8, 8) in cells)


def test_an_error_of_the_engine_itself_answers_those_it_hits_and_the_next_are_drawn(registry, monkeypatch):
    with Engine(registry) as engine:
        with held(engine):
            handles = [engine.submit(replace(DOT, seed=seed)) for seed in range(2)]
            monkeypatch.setattr(engine._worker, "image_metadata", lambda request: 1 / 0)
        for handle in handles:
            with pytest.raises(ZeroDivisionError):
                handle.result(WAIT_S)
        monkeypatch.undo()
        engine.submit(DOT).result(WAIT_S)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_drop_cancelled_or_expired", lambda: 1 / 0)
            engine._to_start.append(lost := RequestHandle(DOT, lambda _: None))
            engine.submit(replace(DOT, deadline_s=0.5))
            with pytest.raises(ZeroDivisionError):
                lost.result(WAIT_S)
        engine.submit(DOT).result(WAIT_S)


def test_draining_finishes_what_was_taken_on_and_takes_nothing_more(registry):
    engine = one_at_a_time(registry)
    with held(engine):
        handles = [engine.submit(DOT) for _ in range(3)]
        thread = threading.Thread(target=engine.drain)
        thread.start()
        while engine.is_ready:
            time.sleep(0.01)
        with pytest.raises(DrainingError):
            engine.submit(DOT)
    thread.join(WAIT_S)
    assert [handle.result(0).image.size for handle in handles] == [(64, 64)] * 3
    assert engine.state().finished == 3


def test_what_draining_has_no_time_for_is_told_so(registry):
    engine = one_at_a_time(registry)
    running = engine.submit(replace(DOT, height=256, width=256, steps=200))
    waiting = engine.submit(DOT)
    while not isinstance(running.next_event(WAIT_S), StepProgress):
        pass
    engine.drain(timeout_s=0.05)
    for handle in (running, waiting):
        with pytest.raises(DrainingError):
            handle.result(0)


@pytest.fixture
def broken_model(registry, tmp_path):
    """A folder that is whole, but for its denoiser's weights, which are cut short."""
    turbo = registry.models["lens-nano-turbo"].folder
    folder = shutil.copytree(turbo, tmp_path / "broken")
    for part in ("scheduler", "text_encoder", "tokenizer", "vae"):
        (folder / part).symlink_to(turbo.parent / "lens-nano" / part)
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


def test_a_model_that_does_not_load_fails_the_start_and_its_own_requests_alone(broken_model):
    with Engine(ModelRegistry({"broken": broken_model, "lens-nano-turbo": "lens-nano-turbo"})) as engine:
        with pytest.raises(CheckpointError):
            engine.wait_until_ready(WAIT_S)
        assert not engine.is_ready
        with pytest.raises(CheckpointError):
            engine.submit(replace(DOT, model="broken")).result(WAIT_S)
        engine.submit(DOT).result(WAIT_S)


def test_a_folder_without_weights_is_not_registry(broken_model):
    next((broken_model / "transformer").glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="transformer"):
        ModelRegistry({"broken": broken_model})


def test_the_numbers_for_metrics_add_up(engine):
    before = engine.state()
    engine.submit(DOT).result(WAIT_S)
    after = engine.state()
    assert after.finished == before.finished + 1
    assert after.num_tokens > before.num_tokens + 2 * 4 * 4
    assert all(after.stage_seconds[stage] > before.stage_seconds[stage] for stage in ("denoise", "decode"))
