"""Numbers and foreign text as people read them."""

from __future__ import annotations

import pytest

from fedpost.report.units import human_bytes, human_number, human_seconds, plain


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (56_600_000_000, "56.6 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (0, "0 s"),
        (4e-5, "40 µs"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_seconds(seconds, text):
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0.5, "0.5000"), (0.0, "0.0000"), (12345, "12,345"), (1e-5, "1.000e-05"), (2.5e9, "2.500e+09")],
)
def test_numbers(value, text):
    assert human_number(value) == text


def test_plain_text_has_no_control_characters_and_an_end():
    assert plain("a\x1b[31m\u202eb\nc\ud800") == "a\ufffd[31m\ufffdb\ufffdc\ufffd"
    assert plain("ü" * 300, 10) == "ü" * 9 + "…"
    assert plain(17) == "17"
