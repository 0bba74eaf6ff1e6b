import click
import pytest

from deltaserver.cli.options.sizes import as_bytes


def test_a_size_is_bytes_whichever_option_has_it():
    assert as_bytes(None, None, "1000") == 1000
    assert as_bytes(None, None, "18GB") == 18 * 10**9
    assert as_bytes(None, None, None) is None


def test_what_is_no_size_is_a_bad_parameter():
    with pytest.raises(click.BadParameter, match="'lots' is no size; expected bytes"):
        as_bytes(None, None, "lots")
