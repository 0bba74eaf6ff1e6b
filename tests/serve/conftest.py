"""What the daemon's tests share: a place for a socket, and an end for what hangs."""

import signal

import pytest

SECONDS = 60


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
