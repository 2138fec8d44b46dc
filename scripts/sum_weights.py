"""Write a weighted sum of exported denoisers: a mean, or the difference of two added to a third.

    python scripts/sum_weights.py --out runs/nano/rl/mean 0.5:runs/nano/rl/best 0.5:runs/nano/rl/export
    python scripts/sum_weights.py --out runs/nano/turbo/tuned -- 1:TURBO 1:LENS_NANO -1:LENS_NANO_BASE
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from lens.models.denoiser import LensTransformer2DModel


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("terms", nargs="+", metavar="WEIGHT:FOLDER", help="weight and folder of a model")
    options = parser.parse_args()
    terms = [term.split(":", 1) for term in options.terms]
    summed([(float(weight), Path(folder)) for weight, folder in terms]).save_pretrained(
        options.out / "transformer"
    )


def summed(terms: list[tuple[float, Path]]) -> Any:
    """Return a denoiser of the weighted sum, in bfloat16; the sum itself is taken in float64."""
    denoisers = [LensTransformer2DModel.from_pretrained(folder / "transformer") for _, folder in terms]
    states: list[dict[str, torch.Tensor]] = [denoiser.state_dict() for denoiser in denoisers]
    factors = [weight for weight, _ in terms]
    total = {
        name: sum(factor * state[name].double() for factor, state in zip(factors, states, strict=True))
        for name in states[0]
    }
    denoiser: Any = denoisers[0]
    denoiser.load_state_dict(total)
    return denoiser.to(torch.bfloat16)


if __name__ == "__main__":
    main()
