"""`lens serve` with the engine of tests: `studio_process.py STATE STEP_S`; logs as the command does."""

import logging
import sys

from fake_engine import FakeEngine

from lens.serve import server
from lens.serve.settings.server import ServerSettings

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("lens").setLevel(logging.INFO)
    server.create_engine = lambda settings: FakeEngine(step_s=float(sys.argv[2]))
    server.run(ServerSettings.of({"state": sys.argv[1], "port": 0, "drain_s": 5}))
