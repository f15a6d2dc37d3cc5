"""The format ``json_base64``: by hand, and as any JSON library sees it."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, JsonBase64
from fedpost.tensors.json_base64 import from_bytes, to_bytes
from fedpost.testing.samples import assert_same_tensors

BY_HAND = (
    b'{"fedpost_json":1,"metadata":{},"names":["w"],"dtypes":["float32"],"shapes":[[1,2]],"data":["AACAPwAAIMA="]}'
)
TENSORS = {"w": np.array([[1, -2.5]], "<f4")}


def written(tensors, metadata=None):
    return b"".join(to_bytes(tensors, metadata))


def holding(text):
    return BY_HAND.replace(b'"AACAPwAAIMA="', text)


def test_it_is_registered():
    assert isinstance(FORMATS.get("json_base64"), JsonBase64)


def test_bytes_written_by_hand():
    assert written(TENSORS) == BY_HAND
    assert_same_tensors(from_bytes(BY_HAND)[0], TENSORS)


def test_another_library_reads_and_writes_it():
    tensors = {"é": np.arange(6.0).reshape(2, 3), 'a"\\\0': np.ones(2, ">i2"), "none": np.ones((0, 2))}
    seen = json.loads(written(tensors, {"round": 3, "é": [None, "\U0001f600"]}))
    assert base64.b64decode(seen["data"][0], validate=True) == tensors["é"].tobytes()
    arrays, metadata = from_bytes(json.dumps(dict(reversed(seen.items())), separators=(",", ":")).encode())
    assert_same_tensors(arrays, tensors)
    assert metadata == {"round": 3, "é": [None, "\U0001f600"]}


@pytest.mark.parametrize("size", range(8))
def test_every_length_of_padding(size):
    tensors = {"w": np.arange(250, 250 + size).astype(np.uint8)}
    assert_same_tensors(from_bytes(written(tensors))[0], tensors)


@pytest.mark.parametrize(
    "text",
    [
        b'"AACAPwAAIMA"',
        b'"AACAPwAAIMA=="',
        b'"AACAPwAAIMB="',
        b'"AACAPwAAIMA=\\n"',
        b'"AACAPwAAI MA="',
        b'" AACAPwAAIMA="',
        b'"AACA-wAAIMA="',
        b'"AACA\\u0050wAAIMA="',
        b'"=AACAPwAAIMA"',
        b'"AACAPwAAIMA=AAAA"',
        b'"A"',
        b'""',
        b'"===="',
        b"null",
        b"17",
        b'["AACAPwAAIMA="]',
    ],
    ids=repr,
)
def test_base64_is_strict(text):
    with pytest.raises(DecodeError):
        from_bytes(holding(text))


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": float("inf")}, {"x": "\ud800"}, {1: 1, "1": 2}])
def test_metadata_that_is_no_json_is_refused(metadata):
    with pytest.raises(EncodeError):
        to_bytes(TENSORS, metadata)


def test_another_version_is_refused():
    with pytest.raises(UnsupportedError, match="version"):
        from_bytes(BY_HAND.replace(b":1,", b":2,", 1))


def test_budgets():
    for limits in (Limits(max_tensors=0), Limits(max_frame=10), Limits(max_header=10)):
        with pytest.raises(LimitError):
            from_bytes(BY_HAND, limits=limits)
    with pytest.raises(LimitError):
        from_bytes(holding(b"" + b",".join([b'""'] * 100_000)), limits=Limits(max_tensors=1000))


def test_sections_and_segments_that_do_not_fit_are_refused():
    view = memoryview(BY_HAND)
    for count, segments in ((2, [view]), (1, [view, view]), (0, [view]), (1, []), (-1, [view])):
        with pytest.raises(DecodeError):
            JsonBase64().decode(Frame.build({"tensors_json_base64": count}, segments), DEFAULT_LIMITS)
