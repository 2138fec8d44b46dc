"""The full model with random weights: files of its own making, drawn from in little memory.

Takes 20 GB of disk and some minutes: `LENS_SLOW_TESTS=1 python -m pytest tests/slow -rs`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NEEDED_BYTES = 20_000_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("LENS_SLOW_TESTS"),
        reason="NOT TESTED: the full size takes minutes and 20 GB of disk; set LENS_SLOW_TESTS=1",
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a ComfyUI models folder with a full-size denoiser in MXFP8, an encoder in NVFP4 and a VAE."""
    folder = tmp_path_factory.mktemp("models")
    free = shutil.disk_usage(folder).free
    assert free > NEEDED_BYTES, f"{folder} has {free / 1e9:.0f} GB free, but the files take 20 GB"
    layouts = ["single-mxfp8", "encoder-nvfp4", "vae-flux2"]
    script = [sys.executable, ROOT / "scripts" / "make_full_size.py", folder, "--layout", *layouts]
    subprocess.run(script, check=True)
    return folder


GENERATE = """
import resource, sys
from lens.cli.main import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(("memory", "limit_gb"), [("auto", 14.0), ("8GB", 8.0), ("4GB", 4.0)])
def test_the_full_model_draws_an_image_in_the_memory_that_it_is_given(models, tmp_path, memory, limit_gb):
    out = tmp_path / "x.png"
    command = ["generate", "a fox", "--model", models, "--size", "512x512", "--steps", 1, "--cfg", 1]
    command += ["--memory", memory, "--out", out]
    ran = subprocess.run(
        [sys.executable, "-c", GENERATE, *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | {"LENS_CACHE": str(models / "cache")},
    )
    assert ran.returncode == 0, ran.stderr
    with Image.open(out) as image:
        assert image.size == (512, 512) and np.asarray(image).std() > 1
    assert int(ran.stderr.split()[-1]) * 1024 / 1e9 < limit_gb
