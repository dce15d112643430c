"""Numbers with units, as people write them."""

import re

import pytest

from quickstudy.errors import QuantityError
from quickstudy.quantities import read_amount, read_memory, read_milliseconds


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (read_amount, "20000", 20_000),
        (read_amount, "20k", 20_000),
        (read_amount, "1.5M", 1_500_000),
        (read_amount, "20,000", 20_000),
        (read_amount, "1_250,000.0", 1_250_000),
        (read_memory, "64k", 65_536),
        (read_memory, "64KiB", 65_536),
        (read_memory, "64kB", 65_536),
        (read_memory, "1m", 1_048_576),
        (read_memory, "512B", 512),
        (read_milliseconds, "2ms", 2.0),
        (read_milliseconds, "2", 2.0),
        (read_milliseconds, "500us", 0.5),
        (read_milliseconds, "500\u00b5s", 0.5),
        (read_milliseconds, "500\u03bcs", 0.5),
        (read_amount, "2.01k", 2010),
        (read_amount, "1.001M", 1_001_000),
        (read_milliseconds, "0.01s", 10.0),
    ],
)
def test_quantities_are_read_as_written(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (read_amount, "many"),
        (read_amount, "0"),
        (read_amount, "-5k"),
        (read_memory, "64x"),
        (read_milliseconds, "0ms"),
        (read_memory, "2ms"),
        (read_milliseconds, "1,5ms"),
        (read_amount, "1,5k"),
        (read_amount, "1000,000"),
    ],
)
def test_texts_that_are_none_are_refused_with_an_example(parse, text):
    with pytest.raises(QuantityError, match=re.escape(repr(text))):
        parse(text)
