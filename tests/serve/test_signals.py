"""Signals become requests, and wake whoever waits."""

import os
import selectors
import signal
import threading

import pytest

from deltaserver.serve.signals import HANDLED, STOPPING, Signals, stoppable_once


@pytest.mark.parametrize(
    ("number", "stop", "hangup"),
    [
        (signal.SIGTERM, "SIGTERM", False),
        (signal.SIGINT, "SIGINT", False),
        (signal.SIGHUP, None, True),
    ],
)
def test_a_signal_wakes_the_selector_and_is_noted(number, stop, hangup):
    signals = Signals()
    before = [signal.getsignal(each) for each in HANDLED]
    with selectors.DefaultSelector() as selector, signals.handled(selector):
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        assert selector.select(60.0)
        signals.woken()
        assert (signals.stop, signals.hangup) == (stop, hangup)
        assert selector.select(0.0) == []  # it can sleep again
    assert [signal.getsignal(each) for each in HANDLED] == before


def test_many_signals_do_not_keep_it_awake():
    signals = Signals()
    with selectors.DefaultSelector() as selector, signals.handled(selector):
        for _ in range(3000):
            os.kill(os.getpid(), signal.SIGHUP)
        n_turns = 0
        while selector.select(0.0):
            signals.woken()
            n_turns += 1
        assert 1 <= n_turns < 10
        signals.woken()  # nothing there: does not block


@pytest.fixture
def _hearing_again():
    before = [signal.getsignal(number) for number in STOPPING]
    yield
    for number, handler in zip(STOPPING, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_hearing_again")
def test_one_interruption_and_no_more():
    """Nor afterwards: a signal while Python ends would be the process's exit code."""
    with stoppable_once() as ending:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            if not ending.is_set():
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(number)
            else:
                signal.raise_signal(number)
        assert ending.is_set()
    for number in STOPPING:
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.usefixtures("_hearing_again")
def test_an_interruption_that_another_heard_is_one_too():
    """The daemon has handlers of its own; the run ends after it, and is as deaf."""
    with pytest.raises(KeyboardInterrupt), stoppable_once():
        raise KeyboardInterrupt
    for number in STOPPING:
        assert signal.getsignal(number) == signal.SIG_IGN


def test_without_an_interruption_all_is_as_before():
    before = [signal.getsignal(number) for number in STOPPING]
    with stoppable_once() as ending:
        ending.set()
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_who_has_begun_to_end_is_not_interrupted():
    with stoppable_once() as ending:
        ending.set()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
