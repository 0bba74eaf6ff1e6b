"""A second or two of every campaign, and hypothesis on the wire; `make fuzz` runs longer ones."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.campaign import run
from tests.fuzz.mutations import HEADERS, X
from tests.fuzz.targets import TARGETS, wire
from tests.serve.server_double import batch_posdata, init, posdata

# A number and not seconds, in which a busy machine would try almost nothing.
INPUTS = {"wire": 10_000, "model": 500, "manifest": 1500}


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_it(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where an input that breaks something would be left
    seed = int.from_bytes(os.urandom(4), "little")
    report = run(target, seed, INPUTS[target], seconds=None)
    assert report.inputs == INPUTS[target]
    assert len(report.outcomes) > 1  # both what is accepted and what is refused was reached


def test_a_campaign_can_be_repeated():
    first, again = (run("wire", 3, 300, None) for _ in range(2))
    assert first.outcomes == again.outcomes
    assert first.inputs == 300


pieces = st.one_of(
    st.sampled_from(HEADERS),
    st.builds(init, st.text(max_size=80), st.integers(-(2**31), 2**31 - 1)),
    st.builds(lambda x: posdata(x + X), st.floats(allow_nan=True, allow_infinity=True, width=32)),
    st.builds(lambda n: batch_posdata(X[None].repeat(n, axis=0)), st.integers(1, 4)),
    st.builds(lambda n: init(f"batch_size:{n}"), st.integers(-1, 5000)),
    st.binary(max_size=40),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pieces, max_size=12))
def test_conversations(parts):
    wire(b"".join(parts))
