"""`python -m lens`: the same command as `lens`."""

import sys

from lens.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
