"""The real i-PI and the real daemon, each killed again and again at random moments."""

from __future__ import annotations

import pytest

from .endurance import endure


def check(findings):
    """No step lost or counted twice beyond what i-PI itself sends again."""
    assert findings.ended
    assert findings.steps_missing == 0
    assert findings.log_lines_broken == 0
    assert findings.logged_twice_in_one_connection == 0
    assert findings.largest_difference_when_computed_again_ev < 1e-7
    assert findings.largest_step_of_conserved_ev < 1e-3
    assert findings.conserved_spread_ev < 5e-3
    # A daemon that dies between sending and logging leaves one step out of its log, not of the run.
    assert findings.steps_not_logged <= findings.kills["daemon"]
    # i-PI does not write at once: what it had computed when it died, it computes again.
    n_lost_by_ipi = 26 * (findings.kills["i-pi"] + findings.ipi_hung)
    assert findings.logged_more_often_than_ipi_has_it <= n_lost_by_ipi
    assert findings.logged_but_not_in_ipis_output <= n_lost_by_ipi


def test_kills_at_random_moments(tmp_path):
    # A fast machine makes 1000 steps a second: the run lasts longer than it takes to kill.
    findings = endure(tmp_path, kills=1, total_steps=900, within_s=0.25)
    check(findings)
    assert findings.steps == 901
    assert findings.kills == {"i-pi": 1, "daemon": 1}


@pytest.mark.slow
def test_a_hundred_kills_of_each_at_random_moments(tmp_path):
    findings = endure(tmp_path, kills=100, total_steps=60_000)
    print(findings)
    check(findings)
    assert findings.steps == 60_001
    assert findings.kills == {"i-pi": 100, "daemon": 100}
