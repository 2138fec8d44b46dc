"""The command starts at once: help without torch, versions, and errors before anything is loaded."""

import re
import resource
import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "numpy", "peft", "huggingface_hub")

WHAT_IS_LOADED = """
import sys
from lens.cli.main import main
main({arguments!r})
print([name for name in {heavy!r} if sys.modules.get(name)], file=sys.stderr)
"""


def loaded_by(*arguments: str) -> str:
    code = WHAT_IS_LOADED.format(arguments=list(arguments), heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.splitlines()[
        -1
    ]


def test_help_loads_no_heavy_package():
    for arguments in (["--help"], ["generate", "--help"], ["convert", "--help"]):
        assert loaded_by(*arguments) == "[]"


def test_a_large_model_is_described_without_torch_or_numpy():
    assert loaded_by("info", "lens", "--json") == "['huggingface_hub']"


def test_help_is_quick_and_names_every_subcommand(process):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.status == 0
    for word in ("generate", "models", "info", "convert", "train"):
        assert f" {word} " in ran.out
    # Processor time, which is wall time on an idle machine (0.35 s) and hardly grows on a busy one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_generate_help_names_every_option(lens):
    text = lens("generate", "--help").out
    options = (
        "model aspect-ratio base-resolution size steps cfg seed count negative lora init-image strength mask "
        "dtype device offload quantize solver out format json from-file like allow-extreme"
    )
    for option in options.split():
        assert re.search(rf"--{option}[ ,]", text), option


def test_the_version_is_the_distributions(lens):
    from importlib.metadata import version

    assert lens("--version").out == f"lens {version('lens-t2i')}\n"


def test_an_error_of_a_real_process_is_one_line_and_status_2(process):
    ran = process("generate", "a fox", "--model", "lens-nanno")
    assert "Did you mean lens-nano?" in ran.error_line
    assert "lens-turbo" in ran.error_line


def test_debug_shows_the_traceback_of_the_same_error(process):
    for ran in (
        process("--debug", "generate", "a fox", "--size", "9"),
        process("generate", "a fox", "--size", "9", LENS_DEBUG="1"),
    ):
        assert ran.status == 1
        assert "Traceback" in ran.err and "SettingError: --size is '9'" in ran.err


def test_an_unknown_subcommand_is_a_usage_error(lens):
    ran = lens("paint")
    assert (ran.status, ran.out) == (2, "")
    assert "paint" in ran.err
