"""Frames that were altered on the way: every byte counts, and none is missed."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from fedpost.errors import DecodeError, IntegrityError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import Frame
from fedpost.pipeline import METADATA, Pipeline, decode_tensors

SMALL = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1.5], np.float64),
    "s": np.array(["é"]),
    "e": np.zeros((0, 2), np.int8),
}
SPECS = [
    "dense | fedwt | none",
    "dense | fedwt | zstd(3)",
    "dense | fedwt | gzip(6)",
    "dense | fedwt | lz4(0)",
    "dense | numpy | none",
    "cast(bfloat16) | fedwt | none",
]


def small(spec, checksum="blake3"):
    tensors = {**SMALL, "c": np.zeros(500)} if not spec.endswith("none") else SMALL
    return bytes(Pipeline.parse(spec, checksum=checksum).encode(tensors, {METADATA: {"x": [1, "é"]}}))


def read(data):
    frame = Frame.decode(data)
    frame.section(METADATA, dict)
    return decode_tensors(frame).arrays()


@pytest.mark.parametrize("checksum", ["blake3", "sha256", "xxh3", "crc32c"])
@pytest.mark.parametrize("spec", SPECS)
def test_every_byte_of_a_small_frame(spec, checksum):
    good = small(spec, checksum)
    read(good)
    data = bytearray(good)
    found = Counter()
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            data[position] ^= mask
            with pytest.raises(DecodeError) as caught:
                Frame.decode(bytes(data))
            found[type(caught.value)] += 1
            data[position] = good[position]
    # Behind the prologue's magic, version and length only digests and padding can tell.
    assert found.keys() <= {DecodeError, IntegrityError, LimitError, TruncatedError, UnsupportedError}
    assert found[IntegrityError] >= 3 * (len(good) - 24)


@pytest.mark.parametrize("spec", SPECS)
def test_every_bit_behind_the_prologue_is_an_integrity_error(spec):
    good = small(spec)
    data = bytearray(good)
    for bit in range(24 * 8, len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            Frame.decode(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("verify", ["eager", "lazy"])
def test_sampled_bits_of_a_large_frame(verify):
    rng = np.random.default_rng(7)
    tensors = {f"w{index}": rng.standard_normal(50_000).astype(np.float32) for index in range(10)}
    data = bytearray(bytes(Pipeline.parse("dense | fedwt | none").encode(tensors)))
    for bit in random.Random(7).sample(range(len(data) * 8), 120):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            decode_tensors(Frame.decode(bytes(data), verify=verify)).arrays()
        data[bit // 8] ^= 1 << bit % 8


def test_lazy_verification_names_the_segment_and_keeps_the_others():
    tensors = {f"w{index}": np.full(2000, index, np.float32) for index in range(3)}
    data = bytearray(bytes(Pipeline().encode(tensors)))
    data[-1] ^= 1
    frame = Frame.decode(bytes(data), verify="lazy")
    source = decode_tensors(frame)
    assert source.read("w0", 0, 2000).tolist() == [0.0] * 2000
    with pytest.raises(IntegrityError, match="blake3 digest does not match") as caught:
        source.read("w2", 0, 1)
    assert caught.value.where == "segment 2"
    with pytest.raises(IntegrityError):  # it is not forgotten
        source.read("w2", 0, 1)
    with pytest.raises(IntegrityError):
        frame.verify()


@pytest.mark.parametrize("spec", SPECS)
def test_truncation_at_every_length(spec):
    good = small(spec)
    for length in range(len(good)):
        with pytest.raises(TruncatedError):
            Frame.decode(good[:length])


@pytest.mark.parametrize("spec", SPECS)
def test_anything_behind_the_frame(spec):
    good = small(spec)
    for tail in (b"\0", bytes(63), bytes(64), b"\x89FPF", good):
        with pytest.raises(DecodeError, match="trail behind the last segment"):
            Frame.decode(good + tail)


@pytest.mark.parametrize("spec", SPECS)
def test_anything_before_the_frame(spec):
    good = small(spec)
    for lead in (b"\0", b"\xef\xbb\xbf", bytes(64), b"HTTP/1.1 200 OK\r\n\r\n"):
        with pytest.raises(DecodeError, match="not a fedpost frame"):
            Frame.decode(lead + good)


@pytest.mark.parametrize("size", [1, 64, 4096])
def test_runs_of_bytes_cut_out_or_doubled(size):
    good = small("dense | fedwt | zstd(3)") + b""
    for start in range(0, len(good) - 1, 37):
        for data in (good[:start] + good[start + size :], good[: start + size] + good[start:]):
            if data != good:
                with pytest.raises(DecodeError):
                    read(data)


def test_segments_of_one_frame_under_the_header_of_another():
    one = small("dense | fedwt | none")
    other = bytes(Pipeline().encode({**SMALL, "b": np.array([2.5])}, {METADATA: {"x": [1, "é"]}}))
    assert len(one) == len(other)
    for cut in range(0, len(one), 8):
        mixed = one[:cut] + other[cut:]
        if mixed not in (one, other):
            with pytest.raises(IntegrityError):
                Frame.decode(mixed)


def test_without_a_checksum_the_header_is_still_covered_and_data_is_not():
    """What ``none`` means: something else must cover the segments."""
    good = bytes(Pipeline(checksum="none").encode({"w": np.arange(3.0)}))
    for position, error in ((len(good) - 1, None), (60, IntegrityError)):
        altered = bytearray(good)
        altered[position] ^= 1
        if error is None:
            assert decode_tensors(Frame.decode(bytes(altered))).arrays()["w"].tolist() != [0, 1, 2]
        else:
            with pytest.raises(error):
                Frame.decode(bytes(altered))


def test_never_verifying_still_checks_header_and_structure():
    good = bytes(Pipeline().encode({"w": np.arange(3.0)}))
    altered = bytearray(good)
    altered[-1] ^= 1
    Frame.decode(bytes(altered), verify="never")
    with pytest.raises(TruncatedError):
        Frame.decode(good[:-1], verify="never")
    altered = bytearray(good)
    altered[50] ^= 1
    with pytest.raises(IntegrityError):
        Frame.decode(bytes(altered), verify="never")
