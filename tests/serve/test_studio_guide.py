"""The studio tells what a nano model does not know while a prompt is typed, and lists what it knows."""

from dataclasses import replace

from fake_engine import MODELS, FakeEngine

from lens.core.prompt_text import TokenCount
from lens.sampling.resolved_model import ResolvedModel
from lens.serve.api.generation import GenerationHooks, GenerationService
from lens.serve.api.token_counter import TokenCounter
from lens.serve.settings.server import ServerSettings
from lens.serve.studio.app import create_studio
from lens.serve.studio.gallery import Gallery
from lens.serve.studio.guide_panel import guide_html, length_line, warning_line
from lens.serve.studio.handlers import FORM_FIELDS, StudioHandlers

NANO = MODELS[1]


def elements(tmp_path, engine):
    service = GenerationService(engine, ServerSettings.of({}), GenerationHooks())
    page = create_studio(service, Gallery(tmp_path / "gallery"))
    return {block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)}


def test_unknown_words_and_far_sizes_are_lines_under_the_prompt():
    line = warning_line(NANO, "a mermaid", "1:1", 128)
    assert "does not know mermaid" in line and 'role="status"' in line
    assert "320x320" in warning_line(NANO, "a fox", "1:1", 128, "320 x 320")
    assert "256x256" in warning_line(NANO, "a fox", "1:1", 256)
    assert warning_line(NANO, "a fox", "1:1", 128) == "" == warning_line(NANO, "", "1:1", 128)


def test_what_is_typed_is_escaped_and_a_size_that_is_none_is_left_out():
    assert "<b>" not in warning_line(NANO, "a mermaid<b>x</b>", "1:1", 128, "wide")


def test_the_tokens_of_a_prompt_are_counted_under_it_and_what_is_cut_is_told():
    counter = TokenCounter({NANO.name: ResolvedModel.of(NANO.name).component_path("tokenizer")})
    service = GenerationService(FakeEngine(), ServerSettings.of({}), GenerationHooks(count_tokens=counter))
    for prompt, is_cut in (("a fox", False), ("a fox, " * 1000, True)):
        line, count = length_line(service, NANO, prompt), counter(NANO.name, prompt)
        assert f">{count.num_tokens} of {count.room} tokens<" in line
        assert (f"of which {count.room} fit" in line) == is_cut == ("lens-hint" in line)
    for prompt in ("a fox\0", "a \ud83d fox", "x" * 32_001):
        assert "but it needs" in length_line(service, NANO, prompt)
    service.hooks = GenerationHooks()
    assert length_line(service, NANO, "a fox") == "", "nobody counts"


def test_an_empty_page_says_how_many_tokens_a_prompt_may_have(tmp_path):
    hooks = GenerationHooks(count_tokens=lambda model, text: TokenCount(len(text), 7))
    page = create_studio(GenerationService(FakeEngine(), ServerSettings.of({}), hooks), Gallery(tmp_path))
    [line] = [block for block in page.blocks.values() if getattr(block, "elem_id", "") == "prompt-warnings"]
    assert ">0 of 7 tokens<" in line.value


def test_other_models_have_no_line():
    assert warning_line(replace(NANO, variant="turbo"), "a mermaid", "1:1", 1024) == ""


def test_the_page_lists_what_nano_models_know_and_nothing_for_others(tmp_path, monkeypatch):
    assert "hedgehog" in guide_html() and "dark blue" in guide_html()
    assert elements(tmp_path, FakeEngine()) >= {"prompt-warnings", "guide", "examples"}
    monkeypatch.setattr(FakeEngine, "models", lambda _: [replace(NANO, variant="turbo")])
    assert "guide" not in elements(tmp_path, FakeEngine())


def test_a_grid_tells_each_warning_once(tmp_path):
    service = GenerationService(FakeEngine(), ServerSettings.of({}), GenerationHooks())
    handlers = StudioHandlers(service, Gallery(tmp_path / "gallery"))
    given = {
        "prompt": "a mermaid", "model": "lens-nano", "aspect_ratio": "1:1", "base_resolution": 128, "seed": 5,
        "is_seed_locked": True, "count": 1, "steps": 4, "guidance": 1.0, "negative_prompt": "",
        "solver": "euler", "cache": "", "size": "", "loras": [], "start": None, "strength": 0.6,
        "is_strength_set": False, "styles": [], "upscale": 1, "upscale_strength": 0.5,
    }  # fmt: skip
    values = [given[name] for name in FORM_FIELDS]
    *_, (_, line, sheet) = handlers.draw_grid(values, "guidance", "1, 2", "steps", "1, 2", caller="anna")
    assert line.count("does not know mermaid") == 1 and sheet is not None
