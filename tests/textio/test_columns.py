import pytest

from deltaserver.errors import UnitError
from deltaserver.textio.columns import Column, columns_by_name, parse_column
from deltaserver.units import HARTREE_EV


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("# column   1     --> step : The current step.", Column("step", 0)),
        ("# column  12     --> conserved{kilocal/mol} : x", Column("conserved", 11, "kilocal/mol")),
        (
            "# column 2 --> potential{millielectronvolt}",
            Column("potential", 1, "millielectronvolt"),
        ),
        ("# column 3 --> density{g/cm3} : x", Column("density", 2, "g/cm3")),
        (
            "# column 3 --> temperature(nm=1){kelvin} : x",
            Column("temperature", 2, "kelvin", "nm=1"),
        ),
        ("# column 3 --> temperature{kelvin}(O) : x", Column("temperature", 2, "kelvin", "O")),
        ("# cols.    2-4   --> atom_x{angstrom}(1) : x", Column("atom_x", 1, "angstrom", "1", 3)),
        ("# cols.    10-15  --> cell_h{angstrom} : x", Column("cell_h", 9, "angstrom", "", 6)),
        ("### i-PI 3.3", None),
        ("  1.0 2.0", None),
        ("# a note: column 3", None),
    ],
)
def test_one_line(line, column):
    assert parse_column(line) == column


@pytest.mark.parametrize("order", [1, -1])
def test_the_whole_system_stands_before_one_of_its_parts(order):
    lines = ["# column 2 --> temperature{kelvin} : x", "# column 3 --> temperature{kelvin}(H) : x"]
    assert columns_by_name(lines[::order])["temperature"].index == 1
    assert columns_by_name(lines[1:])["temperature"].arguments == "H"


def test_the_factor_to_our_units():
    assert Column("potential", 0).factor("energy") == HARTREE_EV
    with pytest.raises(UnitError, match="conserved: 'furlong' is no unit of energy"):
        Column("conserved", 0, "furlong").factor("energy")
