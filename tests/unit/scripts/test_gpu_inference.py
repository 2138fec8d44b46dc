"""The GPU benchmark of inference, in small: parts, resumption, ways of guidance, what a card stores."""

import json

import pytest
import torch
import yaml
from tiny_models import CAPTURED_LAYERS, TEXT_WIDTH, TOKEN_CHANNELS, tiny_denoiser

from lens.models import layers
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.sampling.guided_denoiser import predict_velocity_cfg
from lens.sampling.prompt_embeds import PromptEmbeds


@pytest.fixture
def bench(load):
    return load("gpu_inference")


@pytest.fixture
def parts(load):
    return load("gpu_inference_parts")


@pytest.fixture
def ways(load):
    return load("gpu_inference_ways")


def row(parts, part, s=1.0, card="NVIDIA H200", **more):
    named = {"part": part.name, **part._asdict(), "attention_used": "cudnn", "card": card}
    return named | {"s": s, "peak_memory_gib": 9.0, "date": "2026-01-02", "torch": "2.11"} | more


def test_every_part_has_a_name_of_its_own_and_the_goals_come_before_half_of_the_budget(parts):
    todo = parts.parts_to_measure()
    assert len({part.name for part in todo}) == len(todo)
    spent = 0.0
    reached = {}
    for part in todo:
        spent += part.estimate_s
        if part.mode == "blocks":
            reached.setdefault((part.variant, part.size), spent)
    assert all(reached[goal] < 240 for goal in parts.GOALS_S)
    assert {part.size for part in todo} == {512, 1024, 1440}


def test_operations_of_a_drawing_are_those_of_its_passes(parts):
    # By hand: a token takes 2 (4 d^2 + 3 d h) and 4 N d in each block, d = 1536, h = 4096, N its sequence.
    d, h, image, text = 1536, 4096, 4096, parts.NUM_TEXT_TOKENS
    passes = sum(48 * n * (2 * (4 * d * d + 3 * d * h) + 4 * n * d) for n in (image + text, image))
    assert parts.drawing_flops(LENS_DENOISER, "lens", 1024) == pytest.approx(20 * passes, rel=0.02)
    assert parts.drawing_flops(LENS_DENOISER, "turbo", 1024) == pytest.approx(0.1 * 20 * passes, rel=0.03)
    # The floor that the issue names for 20 steps on an H100.
    assert 20 * passes / parts.MATMUL_FLOPS_PER_S == pytest.approx(0.87, rel=0.05)


def test_a_run_continues_where_the_one_before_it_stopped(bench, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    command = ["--device", "cpu", "--tiny", "--no-compile", "--out", str(out)]
    assert bench.main([*command, "--only", "draw", "turbo", "--budget-s", "1"]) == 0
    assert not out.exists() and "not run" in capsys.readouterr().out
    assert bench.main([*command, "--only", "draw", "turbo"]) == 0
    lines = out.read_text().splitlines()
    assert [json.loads(line)["part"] for line in lines] == [
        "draw turbo 1024 bf16 eager",
        "draw turbo 1440 bf16 eager",
    ]
    assert all(json.loads(line)["s"] > 0 for line in lines)
    out.write_text(lines[1] + "\n" + lines[0][:40])  # a line that was cut off
    capsys.readouterr()
    assert bench.main([*command, "--only", "draw", "turbo"]) == 0
    again = out.read_text().splitlines()
    assert again[0] == lines[1] and again[1] == lines[0][:40]
    assert [json.loads(line)["part"] for line in again[2:]] == ["draw turbo 1024 bf16 eager"]
    assert "1 parts are finished" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [["decode"], ["rung", "resident"], ["rung", "streamed"], ["encode"]])
def test_every_kind_of_part_runs_the_code_of_the_pipeline(bench, tmp_path, kind):
    out = tmp_path / "out.jsonl"
    bench.main(["--device", "cpu", "--tiny", "--no-compile", "--out", str(out), "--only", *kind])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows and all("failed" not in one and one["s"] > 0 for one in rows)


def test_a_part_that_fails_says_why_and_the_next_one_runs(bench, tmp_path):
    out = tmp_path / "out.jsonl"
    bench.main(["--device", "cpu", "--tiny", "--out", str(out), "--only", "attention"])
    rows = {one["attention"]: one for one in map(json.loads, out.read_text().splitlines())}
    assert "failed" in rows["cudnn"] and "failed" in rows["fa3"]
    assert rows["auto"]["s"] > 0 and rows["flash"]["s"] > 0
    assert layers.attention.__module__ == "lens.models.attention"


def test_guidance_in_one_pass_is_that_of_two(ways):
    generator = torch.Generator().manual_seed(0)
    denoiser, size = tiny_denoiser(), (3, 5)
    features = [torch.randn(1, 7, TEXT_WIDTH, generator=generator) for _ in CAPTURED_LAYERS]
    cond = PromptEmbeds(features, torch.ones(1, 7, dtype=torch.bool))
    uncond = cond.rows([None])
    x = torch.randn(1, 15, TOKEN_CHANNELS, generator=generator)
    with torch.no_grad():
        two = predict_velocity_cfg(denoiser, x, 0.7, cond, uncond, 4.0, size)
        padded = ways.padded_velocity(denoiser, x, 0.7, cond, uncond, 4.0, size)
        packed = ways.packed_velocity(denoiser, x, 0.7, cond, 4.0, size)
    torch.testing.assert_close(padded, two, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed, two, rtol=1e-4, atol=1e-5)


def test_the_fastest_attention_that_works_is_used(parts):
    rows = [
        row(parts, parts.Part("attention", attention=kernel), s)
        for kernel, s in (("auto", 0.004), ("cudnn", 0.002), ("flash", 0.003))
    ]
    rows.append({**row(parts, parts.Part("attention", attention="fa3")), "failed": "not there"})
    assert parts.best_attention(rows) == "cudnn"
    assert parts.best_attention(rows[3:]) == "auto"


def test_the_table_compares_with_eager_and_with_the_paper(parts):
    eager = row(parts, parts.Part("draw", "lens"), 3.0, share=0.3)
    fast = row(parts, parts.Part("draw", "lens", mode="blocks"), 1.5, share=0.6)
    failed = {**row(parts, parts.Part("draw", "lens", mode="graph")), "failed": "out of memory"}
    lines = parts.table([eager, fast, failed])
    assert lines[2].split()[-5:] == ["1.5000", "2.00", "2.10", "60.0%", "9.0"]
    assert lines[3].endswith("out of memory")
    assert parts.conclusions([eager, fast]) == [
        "lens at 1024: 1.500 s, goal 1.3 s, by draw lens 1024 bf16 blocks"
    ]


def test_a_card_keeps_what_it_has_and_gets_the_fastest_ways_of_inference(parts, tmp_path):
    card = tmp_path / "h200.yaml"
    card.write_text("card: NVIDIA H200\nmfu: 0.3\n")
    plain = row(parts, parts.Part("draw", "turbo", mode="graph"), 0.3)
    float8 = row(parts, parts.Part("draw", "turbo", mode="blocks", weights="float8_dynamic"), 0.2)
    slow = row(parts, parts.Part("draw", "turbo"), 0.9)
    assert parts.store_best([slow, plain, float8], tmp_path) == f"stored {card}"
    stored = yaml.safe_load(card.read_text())
    assert stored["mfu"] == 0.3
    best = stored["inference"]["turbo_1024"]
    assert best["bf16"]["mode"] == "graph" and best["bf16"]["s"] == 0.3
    assert best["any_weights"] == {
        "s": 0.2, "weights": "float8_dynamic", "mode": "blocks", "guidance": "two", "attention": "cudnn",
        "peak_memory_gib": 9.0,
    }  # fmt: skip
    assert "nothing stored" in parts.store_best(
        [row(parts, parts.Part("draw", "turbo"), card="CPU")], tmp_path
    )
