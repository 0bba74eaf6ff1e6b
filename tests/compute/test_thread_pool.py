import threading
import time

import pytest

from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool


@pytest.fixture(params=[1, 2, 4])
def pool(request):
    return ThreadPool(request.param)


@pytest.mark.parametrize("n_items", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_items(pool, n_items):
    assert pool.map(lambda k: (time.sleep(1e-4 * (k % 3)), k)[1], range(n_items)) == list(
        range(n_items)
    )


def test_a_pool_that_is_limited_to_one_thread_uses_no_other():
    pool = ThreadPool(3)
    pool.limit(1)
    assert set(pool.map(lambda _: threading.get_ident(), range(9))) == {threading.get_ident()}
    pool.limit(7)
    assert pool.n_threads == 3


def test_two_threads_share_a_list():
    together = threading.Barrier(2, timeout=60)

    def meet(_):
        together.wait()  # broken unless two items are under way at once
        return threading.get_ident()

    assert len(set(ThreadPool(2).map(meet, range(2)))) == 2


def test_alone_everything_is_done_where_it_was_asked_for():
    assert set(ONE_THREAD.map(lambda _: threading.get_ident(), range(5))) == {threading.get_ident()}


def test_lists_within_lists_end(pool):
    """With every thread in an outer item, the inner lists are worked through all the same."""
    nested = pool.map(lambda k: pool.map(lambda n: k * n, range(5)), range(8))
    assert nested == [[k * n for n in range(5)] for k in range(8)]


def test_what_an_item_raises_is_raised_once_the_others_are_done(pool):
    def refuse(k):
        if k == 3:
            raise ValueError("item 3")
        return k

    with pytest.raises(ValueError, match="item 3"):
        pool.map(refuse, range(6))
    assert pool.map(refuse, range(3)) == [0, 1, 2]
