import pytest

from deltaserver.analysis.show.report_page import number, with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (4.81309, 0.0861, "4.813 ± 0.086"),
        (10.24, 0.11, "10.24 ± 0.11"),
        (302.4, 13.2, "302 ± 13"),
        (-0.0224, 0.0034, "-0.0224 ± 0.0034"),
        (1.0, float("nan"), "1"),
        (1.23456, 0.0, "1.235"),
        (1.0, 1e-9, "1"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_values_are_rounded_as_their_errors_allow(value, error, text):
    assert with_error(value, error) == text


def test_numbers():
    assert number(None) == "–"
    assert number(float("inf")) == "–"
    assert number(3.14159, 3) == "3.14"
