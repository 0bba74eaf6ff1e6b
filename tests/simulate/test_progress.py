import io

import pytest
from structlog.testing import capture_logs

from deltaserver.simulate.progress import Point, Progress, ProgressLine, PropertiesTail, duration

HEADER = """# column   1     --> step : The current simulation time step.
# column   2     --> time{picosecond} : The elapsed simulation time.
# column   3     --> conserved{electronvolt} : The conserved quantity.
# column   4     --> temperature{kelvin} : The current temperature.
"""


def row(step):
    return f"  {step:.8e}   {step * 5e-4:.8e}   -1.0{step % 10}e+02   3.0e+02\n"


def test_what_was_added_is_read_line_by_line(tmp_path):
    tail = PropertiesTail(tmp_path / "run.out")
    assert tail.read() == []
    tail.path.write_text(HEADER + row(0) + row(10)[:20])
    assert tail.read() == [Point(0, 0.0, 300.0, -100.0)]
    with tail.path.open("a") as file:
        file.write(row(10)[20:] + row(20))
    assert [point.step for point in tail.read()] == [10, 20]
    assert tail.last.time_ps == pytest.approx(0.01)
    assert tail.read() == []


def test_a_file_that_has_begun_again(tmp_path):
    tail = PropertiesTail(tmp_path / "run.out")
    tail.path.write_text(HEADER + row(0) + row(10))
    tail.read()
    tail.path.write_text(HEADER + row(0))
    assert [point.step for point in tail.read()] == [0]


@pytest.mark.parametrize(
    ("unit", "ev"),
    [
        ("kilocal/mol", 0.0433931242),
        ("j/mol", 1.03642696e-5),
        ("millielectronvolt", 1e-3),
        ("kelvin", 8.617333e-5),
        ("", 27.211386),
    ],
)
def test_the_conserved_quantity_in_every_unit(tmp_path, unit, ev):
    tail = PropertiesTail(tmp_path / "run.out")
    unit = f"{{{unit}}}" if unit else ""
    tail.path.write_text(
        f"# column 1 --> conserved{unit} : x\n# column 2 --> step : y\n -2.0 7.0\n"
    )
    (point,) = tail.read()
    assert point.conserved_ev == pytest.approx(-2.0 * ev, rel=2e-7)


def test_units_that_are_not_known_are_left_out_and_told(tmp_path):
    tail = PropertiesTail(tmp_path / "run.out")
    tail.path.write_text(
        "# column 1 --> conserved{furlong} : x\n# column 2 --> step : y\n"
        "# column 3 --> time{nanosecond} : z\n  1.0  7.0  3.0\n  1.0  8.0  4.0\n nonsense\n"
    )
    with capture_logs() as logs:
        first, second = tail.read()
    assert (first.step, first.conserved_ev, first.temperature_k) == (7, None, None)
    assert (first.time_ps, second.time_ps) == pytest.approx((3000.0, 4000.0))
    (told,) = logs
    assert told["log_level"] == "warning"
    assert "conserved: 'furlong' is no unit of energy" in told["reason"]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_line_says_what_matters():
    clock = Clock()
    run = Progress(1000, clock)
    assert (run.text(), run.fraction, run.steps_per_s) == ("starting", 0.0, 0.0)
    run.add([Point(0, 0.0, 280.0, -100.0)])
    clock.now = 10.0
    run.add([Point(200, 0.1, 290.0, -99.9), Point(250, 0.125, 301.2, -99.995)])
    assert run.fraction == 0.25
    assert run.text() == (
        "step 250/1000  0.12 ps  301 K  conserved -99.9950 eV (+0.0050)  25.0 steps/s  0:30 left"
    )
    run.words = ["binding -0.1400 eV", "novelty 0.50 (binding)"]
    assert run.text().endswith("0:30 left  binding -0.1400 eV  novelty 0.50 (binding)")
    assert duration(7507.2) == "2:05:07"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_one_line_with_a_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    clock, stream = Clock(), Terminal()
    line, run = ProgressLine(stream, clock), Progress(100, clock)
    run.add([Point(50, None, None, None)])
    line.follow([("", run)])
    assert stream.getvalue() == ""
    clock.now = 1.0
    line.follow([("", run)])
    assert stream.getvalue() == "\r[##########          ] step 50/100"
    line.clear()
    assert stream.getvalue().endswith("\r" + " " * 34 + "\r")
    clock.now = 2.0
    line.follow([("10K", run), ("300K", Progress(100, clock))])
    assert stream.getvalue().endswith("\r10K 50 % (50/100)  |  300K 0 % (starting)")


def test_a_narrow_terminal_is_not_filled(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    clock, stream = Clock(), Terminal()
    line, run = ProgressLine(stream, clock), Progress(1000, clock)
    run.add([Point(250, 0.125, 301.2, -99.995)])
    line.follow([("", run)], now=True)
    assert stream.getvalue() == "\rstep 250/1000  0.12 ps  301 K  conserve"


def test_a_file_gets_plain_lines_ever_rarer():
    clock, stream = Clock(), io.StringIO()
    line, run = ProgressLine(stream, clock), Progress(None, clock)
    run.add([Point(5, None, 300.0, None)])
    for second in range(100):
        clock.now = float(second)
        line.follow([("300K", run)])
    text = stream.getvalue().splitlines()
    assert len(text) == 4  # after 5, 15, 35 and 75 s
    assert text[0].startswith("300K: step 5  300 K")
    line.clear()
    assert len(stream.getvalue().splitlines()) == 4
