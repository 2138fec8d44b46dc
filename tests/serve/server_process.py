"""A server with the engine of tests as a process: `server_process.py STATE STEP_S`; prints its address."""

import sys
import threading

from fake_engine import FakeEngine
from running import serving

if __name__ == "__main__":
    with serving(sys.argv[1], FakeEngine(step_s=float(sys.argv[2])), jobs_at_once=2) as server:
        print(server.base, flush=True)
        threading.Event().wait()
