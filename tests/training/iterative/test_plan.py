from __future__ import annotations

import pytest

from deltaserver.errors import InputError
from deltaserver.training.iterative import plan
from deltaserver.training.iterative.plan import LEAST, Columns, decide, iterative_bytes
from deltaserver.training.matrix.memory import Size

CATCHER = Size(88, 4)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda: 16e9)
    monkeypatch.setattr("deltaserver.training.matrix.memory.available_bytes", lambda: 16e9)


def test_small_systems_are_solved_exactly():
    assert decide(Size(6, 8), 20, "auto", None, "x").solver == "exact"


def test_what_does_not_fit_is_solved_iteratively_within_the_memory():
    assert CATCHER.bytes_for(600) > 16e9
    choice = decide(CATCHER, 600, "auto", None, "x")
    assert choice.solver == "iterative"
    assert choice.columns.points > 0
    assert choice.bytes_ <= 16e9
    assert "iterative solver, about" in str(choice)


def test_memory_sizes_the_preconditioner():
    least = iterative_bytes(CATCHER, 600, LEAST)
    wide, narrow = (decide(CATCHER, 600, "iterative", limit, "x") for limit in (16e9, 1.5 * least))
    assert wide.columns.points > narrow.columns.points >= 1
    assert narrow.bytes_ <= 1.5 * least
    with pytest.raises(InputError, match=r"even without the kernel matrix.* at most \d+ points"):
        decide(CATCHER, 600, "auto", 0.9 * least, "x")


def test_the_exact_solver_is_refused_where_it_does_not_fit():
    with pytest.raises(InputError, match=r"at most \d+ points fit"):
        decide(CATCHER, 600, "exact", None, "x")


def test_the_points_that_are_said_to_fit_do():
    limit = 2e9
    most = plan._most(CATCHER, limit)
    assert iterative_bytes(CATCHER, most, LEAST) <= limit
    assert iterative_bytes(CATCHER, most + 1, LEAST) > limit


def test_columns_are_in_single_precision_where_more_of_them_fit_then():
    assert not decide(Size(24, 2), 1000, "iterative", 16e9, "x").columns.single
    columns = decide(CATCHER, 600, "iterative", 6e9, "x").columns
    assert columns.single
    assert iterative_bytes(CATCHER, 600, Columns(columns.points)) > 6e9
    double = max(k for k in range(1, 48) if iterative_bytes(CATCHER, 600, Columns(k)) <= 6e9)
    assert columns.points > 1.5 * double


def test_columns_may_take_as_long_as_products_that_take_long():
    large = Size(148, 480)
    choice = decide(large, 600, "iterative", 16e9, "x")
    prepared = plan._prepare_seconds(large, 600, choice.columns.points)
    usual = plan.USUAL_PRODUCTS * plan._product_seconds(large, 600)
    assert plan.PREPARE_S < prepared <= usual
    small = decide(Size(24, 2), 1000, "iterative", 16e9, "x").columns
    assert plan._prepare_seconds(Size(24, 2), 1000, small.points) <= plan.PREPARE_S


def test_the_time_is_that_of_the_products_that_are_allowed():
    usual, few, more = (
        decide(CATCHER, 600, "iterative", 8e9, "x", n).seconds
        for n in (plan.USUAL_PRODUCTS, plan.USUAL_PRODUCTS // 10, 10 * plan.USUAL_PRODUCTS)
    )
    prepared = plan._prepare_seconds(
        CATCHER, 600, decide(CATCHER, 600, "iterative", 8e9, "x").columns.points
    )
    assert (few - prepared) * 10 == pytest.approx(usual - prepared)
    assert more == usual
