"""What the daemon's tests share: a place for a socket, and an end for what hangs."""

import signal

import numpy as np
import pytest

from tests.builders import geometry

SECONDS = 120  # two cores may be shared by four tests and their daemons


@pytest.fixture(scope="session", autouse=True)
def _compiled(composite):
    """Compile what is compiled at a first evaluation before any clock runs, or anything is said."""
    composite.warm_up()
    x = geometry(composite.n_atoms, 3)
    for n_structures in (1, 2, 30):
        composite.evaluate(np.repeat(x[None], n_structures, axis=0))


@pytest.fixture(autouse=True)
def _no_hang():
    """A daemon that hangs fails its test instead of the suite."""

    def give_up(*args):
        raise AssertionError(f"still running after {SECONDS} s")

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def unix(tmp_path):
    return f"unix:{tmp_path}/s"
