"""What i-PI makes of <parameters>, and what we make of that."""

from pathlib import Path

import pytest

from deltaserver.errors import InputError
from deltaserver.serve.plugin.settings import KEYS, PluginSettings, parse_settings
from deltaserver.serve.settings import GuardSettings


def test_models_alone_are_served_as_the_daemon_would():
    frame = Path("deltaserver_extrapolation.xyz")
    expected = PluginSettings(Path("m"), guard=GuardSettings(frame_file=frame))
    assert parse_settings({"models": "m", "verbosity": 3}) == expected


def test_texts_numbers_and_truth_values_as_i_pi_reads_them():
    found = parse_settings(
        {
            "models": "m", "component": "binding", "extras": "full", "device": "cpu",
            "precision": "float32", "threads": 2, "structure_check": False,
            "on_extrapolation": "stop", "novelty_limit": 2, "uncertainty_limit": "0.1",
            "log_file": "here/run.jsonl", "log_every": 10, "first_seq": 7, "max_stretch": 1.5,
            "max_separation": 20, "storage": "double",
        }
    )  # fmt: skip
    guard = GuardSettings(False, "stop", 2.0, 0.1, Path("here/run_extrapolation.xyz"), True)
    assert found == PluginSettings(
        Path("m"), "binding", "full", "cpu", "float32", 2, guard, Path("here/run.jsonl"), 10, 7,
        1.5, 20.0, "double",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "names no models"),
        ({"models": "m", "Component": "total"}, "did you mean 'component'?"),
        ({"models": "m", "extras": "all"}, "extras is 'all'; expected one of summary, full"),
        ({"models": "m", "threads": 0}, "threads is '0'; expected a whole number from 1 on"),
        ({"models": "m", "log_every": 1.5}, "log_every is '1.5'"),
        ({"models": "m", "structure_check": "no"}, "expected True or False"),
        ({"models": "m", "novelty_limit": "nan"}, "expected a number above 0"),
        ({"models": "m", "max_stretch": -1}, "max_stretch is '-1'"),
        ({"models": "m", "on_extrapolation": "label"}, "expected one of warn, stop, ignore"),
    ],
)
def test_what_cannot_be_used_is_named(given, message):
    with pytest.raises(InputError) as raised:
        parse_settings(given)
    assert message in str(raised.value)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_read(key):
    """A value that nothing can be made of is refused, but for names and paths."""
    names = ("models", "component", "device", "log_file")
    if key in names:
        parse_settings({"models": "m", key: "?"})
    else:
        with pytest.raises(InputError, match=f"{key} is"):
            parse_settings({"models": "m", key: "?"})
