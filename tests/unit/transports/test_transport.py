"""Addresses and URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpost.errors import ConfigError, FedpostError, TransportError
from fedpost.transports import check_address, open_endpoint
from fedpost.transports.transport import path_of


@pytest.mark.parametrize("address", ["a", "Site-3", "site_3.example", "0", "x" * 64])
def test_an_address_is_given_back(address):
    assert check_address(address) is address


@pytest.mark.parametrize("address", ["", "x" * 65, ".a", "_a", "-a", "a/b", "a\n", "é", "\u0660", "a b", "../a"])
def test_what_is_no_address_is_refused_with_a_hint(address):
    with pytest.raises(TransportError) as caught:
        check_address(address)
    assert "letters" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///shared/folder", "/shared/folder"),
        ("file:/shared", "/shared"),
        ("file:///with%20space", "/with space"),
        ("file:///100%25", "/100%"),
        ("file:///%C3%BC", "/ü"),
    ],
)
def test_a_file_url_is_a_path(url, path):
    assert path_of(url) == Path(path)


@pytest.mark.parametrize("url", ["file://host/folder", "file://folder", "file:folder", "file:", "file://"])
def test_a_file_url_is_absolute_and_local(url):
    with pytest.raises(ConfigError, match="three slashes"):
        path_of(url)


@pytest.mark.parametrize(
    "url", ["", "folder", "/folder", "flie:///folder", "http://host/", "://", "C:\\folder", "file:///a%00b", "//[x"]
)
def test_an_impossible_url_is_refused(url):
    with pytest.raises(FedpostError):
        open_endpoint(url, "hospital")


def test_an_unknown_scheme_names_the_nearest_known_one():
    with pytest.raises(ConfigError) as caught:
        open_endpoint("flie:///folder", "hospital")
    assert caught.value.hint == "Did you mean 'file'?"
    with pytest.raises(ConfigError) as caught:
        open_endpoint("kafka://broker", "hospital")
    assert "memory" in caught.value.hint


def test_the_address_is_checked_before_anything_is_made(tmp_path):
    with pytest.raises(TransportError):
        open_endpoint(f"file://{tmp_path}/new", "../up")
    assert list(tmp_path.iterdir()) == []
