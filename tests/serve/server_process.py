"""A server with the engine of tests as a process: `server_process.py STATE STEP_S`; prints its address."""

import sys
import threading

from fake_drawer import FakeDrawer
from running import serving

if __name__ == "__main__":
    with serving(sys.argv[1], FakeDrawer(step_s=float(sys.argv[2])), jobs_at_once=2) as server:
        print(server.base, flush=True)
        threading.Event().wait()
