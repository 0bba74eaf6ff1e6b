import pytest

from deltaserver.errors import InputError
from deltaserver.textio.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1000", 1000), ("7b", 7), ("512", 512), ("4k", 4096), ("100M", 100 << 20), ("2G", 2 << 30),
        ("1T", 1 << 40), ("18GB", 18 * 10**9), ("500 MB", 500 * 10**6), ("2GiB", 2 << 30),
        ("1.5MB", 1_500_000), ("1.5g", 3 << 29), (" 3 kb ", 3000),
    ],
)  # fmt: skip
def test_sizes(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "0", "0.5", "-1", "-3GB", "M", "GB", "12 parsec", "1e9", "9" * 20, "1 000", "1ib"]
)
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="is no size; expected bytes"):
        parse_size(text)
