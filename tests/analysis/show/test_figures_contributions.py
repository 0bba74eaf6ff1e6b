"""The figure of the contributions: which panels there are, and that E_b is no flat line in it."""

import numpy as np
import pytest

from deltaserver.analysis.read.contributions import Series, binding_energy
from deltaserver.analysis.show import figures_contributions as figures

STEPS = 200
NOTHING = np.full(STEPS, np.nan)


def series(energy, novelty=NOTHING, uncertainty=NOTHING):
    return Series(np.arange(STEPS), energy, np.full(STEPS, 0.1), novelty, uncertainty)


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    covalent, prior, rest = (scale * rng.normal(size=STEPS) for scale in (1.0, 0.01, 0.002))
    trust = np.full(STEPS, 0.5)
    return {
        "total": series(covalent + prior + rest, uncertainty=trust),
        "host": series(covalent, trust, trust),
        "prior": series(prior),
        "binding": series(rest, trust, trust),
    }


def test_small_means_have_digits():
    """A binding of −0.12 meV was "-0.000 eV" in the legend."""
    assert figures._label("binding", series(np.full(STEPS, -1.23e-4))) == "binding (-0.00012 eV)"
    assert figures._label("total", series(np.full(STEPS, -864.10189))) == "total (-864.102 eV)"


def test_there_is_a_panel_for_what_the_log_has(parts):
    labels = [panel.label for panel in figures.panels_of(parts, binding_energy(parts))]
    assert [label.split()[0] for label in labels] == [
        "energy", "binding", "force", "novelty", "uncertainty",
    ]  # fmt: skip
    assert all(" / " in label for label in labels if label != "novelty")  # which has no unit
    plain = {"total": series(np.ones(STEPS)), "full": series(np.ones(STEPS))}
    shown = figures.panels_of(plain, None)
    assert [panel.label.split()[0] for panel in shown] == ["energy", "force"]


def test_the_binding_energy_fills_its_axis(parts, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "write", lambda draw, paths, size: drawn.append(draw))
    figures.draw_contributions(parts, [tmp_path / "f.png"])
    from matplotlib.figure import Figure

    figure = Figure()
    drawn[0](figure)
    figure.draw_without_rendering()
    axis = next(a for a in figure.axes if a.get_ylabel().startswith("binding"))
    (line,) = axis.lines
    np.testing.assert_array_equal(line.get_ydata(), binding_energy(parts).energy)
    low, high = axis.get_ylim()
    assert np.ptp(line.get_ydata()) > 0.5 * (high - low)
    covalent = next(a for a in figure.axes if a.get_ylabel().startswith("energy"))
    assert {len(a.lines) for a in (covalent,)} == {2}  # total and host, not what binds


def test_the_figure_is_written_in_every_format(parts, tmp_path):
    paths = [tmp_path / f"c.{suffix}" for suffix in ("png", "svg")]
    figures.draw_contributions(parts, paths)
    assert all(path.stat().st_size > 2000 for path in paths)


@pytest.mark.parametrize(
    ("last_seq", "last_step", "step_ps", "expected"),
    [
        (3000, 3000, 5e-4, 5e-4),
        (3000, 2980, 5e-4, 5e-4),  # frames are rarer than steps
        (4 * 500 + 3, 500, 3e-3, 3e-3 / 4),  # a binding and three inner steps
        (1200, 3000, 5e-4, None),  # the log began anew
        (750, 500, 5e-4, None),
        (3000, 3000, None, None),
    ],
)
def test_structures_are_told_as_time_where_a_step_sends_so_many(
    last_seq, last_step, step_ps, expected
):
    found = figures.ps_per_structure(last_seq, last_step, step_ps)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_axis_is_time_where_it_is_known(parts, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(figures, "write", lambda draw, paths, size: drawn.append(draw))
    for ps, label, last in ((None, "structures served", STEPS - 1), (5e-4, "$t$ / ps", 0.0995)):
        figures.draw_contributions(parts, [tmp_path / "f.png"], ps)
        figure = Figure()
        drawn[-1](figure)
        assert figure.axes[-1].get_xlabel() == label
        assert figure.axes[0].lines[0].get_xdata()[-1] == pytest.approx(last)
