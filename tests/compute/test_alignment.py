import pytest

from deltaserver.compute.alignment import HUGE_PAGE, LINE, aligned, lasting, round_up


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 8, 70_000)])
@pytest.mark.parametrize("allocate", [aligned, lasting])
def test_arrays_are_zeros_from_the_start_of_a_cache_line(allocate, shape):
    for _ in range(5):
        array = allocate(*shape)
        assert array.shape == shape
        assert array.flags.c_contiguous
        assert array.ctypes.data % (8 * LINE) == 0
        assert not array.any()


def test_large_lasting_arrays_start_a_huge_page():
    assert lasting(HUGE_PAGE // 2).ctypes.data % (8 * HUGE_PAGE) == 0
    assert lasting(3, HUGE_PAGE).ctypes.data % (8 * HUGE_PAGE) == 0


def test_round_up():
    assert [round_up(n) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert round_up(7, 3) == 9
