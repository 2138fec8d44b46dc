"""One Ray for all tests of the data engine in this process, as its start takes seconds."""

import logging

import pytest


@pytest.fixture(scope="session")
def two_gpus():
    """A Ray of this machine with two pretended GPUs; nothing here computes on them."""
    import ray

    here = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False}
    ray.init(logging_level=logging.ERROR, log_to_driver=False, **here)
    yield
    ray.shutdown()
