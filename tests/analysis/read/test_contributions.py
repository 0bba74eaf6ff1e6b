"""The daemon's log as series: what it says of every part, and of the binding as a whole."""

import csv
import json

import numpy as np
import pytest

from deltaserver.analysis.read import contributions
from deltaserver.analysis.show.figures_contributions import draw_contributions
from deltaserver.analysis.workflow import whole_steps
from deltaserver.errors import DataError


def step(seq, prior, binding, **trust):
    parts = {"prior": prior, "binding": binding}
    return {
        "event": "step",
        "seq": seq,
        "energy_ev": -10.0 + prior + binding,
        "fragments": {"a": {"energy_ev": -10.0, "force_rms_ev_per_ang": 0.5}},
        **{name: {"energy_ev": e, "force_rms_ev_per_ang": 0.1} for name, e in parts.items()},
        **trust,
    }


TRUST = {
    "novelty": {"a": 0.25, "binding": 0.5},
    "uncertainty_ev_per_ang": {"a": 0.01, "binding": 0.02, "total": 0.03},
}
LOG = [step(0, -1.0, 0.25, **TRUST), step(1, -1.5, 0.5, **TRUST), step(2, -2.0, 0.0)]


@pytest.fixture
def series(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(record) + "\n" for record in LOG))
    return contributions.read_log(path)


def test_every_part_has_what_the_log_says_of_it(series):
    assert list(series) == ["total", "a", "prior", "binding"]
    assert series["prior"].energy.tolist() == [-1.0, -1.5, -2.0]
    assert series["binding"].seq.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(series["binding"].novelty, [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(series["total"].uncertainty, [0.03, 0.03, np.nan])
    assert not contributions.known(series["prior"].novelty)
    assert not contributions.known(series["total"].force_rms)


def test_the_binding_energy_is_prior_and_binding_together(series):
    bound = contributions.binding_energy(series)
    fragments = series["a"].energy
    np.testing.assert_allclose(bound.energy, series["total"].energy - fragments, rtol=1e-15)
    only = {name: series[name] for name in ("total", "a", "binding")}
    assert contributions.binding_energy(only).energy is not None
    assert contributions.binding_energy(only).force_rms.tolist() == [0.1] * 3
    assert contributions.binding_energy({"total": series["total"]}) is None


def test_with_three_molecules_it_has_the_binding_model_s_novelty_still(series):
    prior = series["prior"]  # which has no novelty, as triples have none
    bound = contributions.binding_energy({**series, "triples": prior})
    known = contributions.binding_energy(series).energy
    np.testing.assert_array_equal(bound.energy, known + prior.energy)
    np.testing.assert_array_equal(bound.novelty, series["binding"].novelty)
    np.testing.assert_array_equal(bound.uncertainty, series["binding"].uncertainty)


def test_the_table_has_a_row_of_the_sum_and_columns_of_what_is_known(series):
    head, *rows = contributions.table(series).splitlines()
    assert [row.split()[0] for row in rows] == ["total", "a", "prior", "binding", "E_b"]
    assert float(rows[-1].split()[1]) == pytest.approx(np.mean([-0.75, -1.0, -2.0]), abs=1e-5)
    assert "novelty, max" in head
    assert rows[3].split()[-2:] == ["0.50", "0.0200"]
    plain = {"total": series["total"].before(0 + 3)}
    assert "novelty" not in contributions.table(plain)


def test_parts_that_are_served_apart_have_no_total(tmp_path):
    fragments = [step(k, 0.0, 0.0) | {"component": "fragments"} for k in (0, 2, 3)]
    binding = [step(1, -1.0, 0.25) | {"component": "binding", "fragments": {}}]
    for record in fragments:
        del record["prior"], record["binding"]
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(record) + "\n" for record in (*fragments, *binding)))
    found = contributions.read_log(path)
    assert {name: len(part.seq) for name, part in found.items()} == {"a": 3, "prior": 1,
                                                                     "binding": 1}  # fmt: skip
    assert [row.split()[0] for row in contributions.table(found).splitlines()[1:]] == [
        "a", "prior", "binding", "E_b"]  # fmt: skip
    assert not whole_steps(found)
    pytest.importorskip("matplotlib")
    draw_contributions(found, [tmp_path / "figure.svg"])
    assert "total" not in (tmp_path / "figure.svg").read_text()


def test_the_csv_holds_every_number(series, tmp_path):
    contributions.write_csv(series, tmp_path / "c.csv")
    rows = list(csv.DictReader((tmp_path / "c.csv").open()))
    assert len(rows) == 4 * len(LOG)
    last = rows[-1]
    assert (last["part"], last["seq"], last["novelty"]) == ("binding", "2", "nan")
    assert rows[-2]["uncertainty_ev_per_ang"] == "0.02"


def test_a_step_of_another_shape_is_told_with_its_line(tmp_path):
    path = tmp_path / "log"
    path.write_text(json.dumps(LOG[0]) + "\n" + json.dumps({**LOG[1], "novelty": 3}) + "\n")
    with pytest.raises(DataError, match="line 2 is a step that lacks"):
        contributions.read_log(path)
