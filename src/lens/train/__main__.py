"""Training on several processes: `torchrun --nproc-per-node N -m lens.train RECIPE`."""

import argparse
import sys
from pathlib import Path

from lens.errors import LensError
from lens.train.run import train


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lens.train", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a YAML file, such as recipes/nano/pretrain.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()
    try:
        print(train(arguments.recipe, arguments.set))
    except LensError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
