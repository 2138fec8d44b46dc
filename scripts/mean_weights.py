"""Write the mean of several exported denoisers, such as the best and the last of one run.

    python scripts/mean_weights.py runs/nano/rl/best runs/nano/rl/export --out runs/nano/rl/mean
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from lens.models.denoiser import LensTransformer2DModel


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folders", type=Path, nargs="+", help="each with a transformer")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    mean_of(options.folders).save_pretrained(options.out / "transformer")


def mean_of(folders: list[Path]) -> Any:
    """Return a denoiser of the mean weights, in bfloat16; the mean itself is taken in float64."""
    denoisers = [LensTransformer2DModel.from_pretrained(folder / "transformer") for folder in folders]
    states: list[dict[str, torch.Tensor]] = [denoiser.state_dict() for denoiser in denoisers]
    mean = {name: sum(state[name].double() for state in states) / len(states) for name in states[0]}
    denoiser: Any = denoisers[0]
    denoiser.load_state_dict(mean)
    return denoiser.to(torch.bfloat16)


if __name__ == "__main__":
    main()
