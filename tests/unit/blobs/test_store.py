"""Keys."""

from __future__ import annotations

import pytest

from fedpost.blobs import check_key
from fedpost.errors import TransportError


@pytest.mark.parametrize("key", ["a", "9", "_", "mail/hospital-3/00017.frame", "a" * 200, "/".join("abcdefgh"), "a..b"])
def test_a_key_is_given_back(key):
    assert check_key(key) is key


def test_a_key_has_parts_of_200_characters_and_eight_of_them():
    for key in ("a" * 201, "a/" + "b" * 201, "/".join("abcdefghi")):
        with pytest.raises(TransportError):
            check_key(key)


def test_the_error_shows_the_key_shortened_and_escaped():
    with pytest.raises(TransportError) as caught:
        check_key("\x1b[31m" + "x" * 10_000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.hint is not None
