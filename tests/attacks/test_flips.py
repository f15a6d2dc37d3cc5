"""One flipped bit anywhere: in any format's frame, whatever compresses and covers it, however it is read, it is found.

Small frames have every byte flipped, in one bit chosen at random; a few of them in all eight. Large ones have bits
flipped here and there, also in chunks and parts behind the first. Only the checksum ``none`` is left out, which says
that something else covers the segments. Bits are chosen by seed, so a failure comes again.
"""

from __future__ import annotations

import random
from itertools import product

import ml_dtypes
import numpy as np
import pytest

from fedpost.checksums import CHECKSUMS
from fedpost.compression import COMPRESSORS
from fedpost.errors import DecodeError, IntegrityError
from fedpost.frame import Frame, Part, PartAssembler
from fedpost.pipeline import METADATA, Pipeline, decode_tensors
from fedpost.tensors import FORMATS

pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")

NAMES = sorted(FORMATS)
COMPRESSIONS = ("none", *sorted(COMPRESSORS))
DIGESTS = sorted(set(CHECKSUMS) - {"none"})
EVERY = list(product(NAMES, COMPRESSIONS))
HEAD = 24
"""Behind these bytes only digests and padding can tell, so the error is of one class."""


def small():
    sparse = np.zeros(90, np.float32)
    sparse[[3, 60]] = 1.5
    return {
        "w": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
        "zeros": np.zeros(150),
        "é": sparse,
        "none": np.ones((0, 3), np.int8),
        "half": np.array(1.5, ml_dtypes.bfloat16),
    }


def large():
    rng = np.random.default_rng(5)
    return {
        **{f"w{index}": (rng.standard_normal(150_000) * 0.02).astype(np.float32) for index in range(6)},
        "zeros": np.zeros(120_000, np.float32),
        "counts": rng.integers(0, 9, 100_000),
    }


def made(form, compression, checksum, tensors):
    """A frame, whose compression has found something to compress."""
    pipeline = Pipeline.parse(f"dense | {form} | {compression}", checksum=checksum)
    frame = pipeline.encode(tensors, {METADATA: {"round": 3}})
    codings = {frame.coding(index) for index in range(len(frame))} - {"none"}
    assert bool(codings) == (compression != "none")
    return bytes(frame)


def eager(data):
    Frame.decode(data)


def late(data):
    """Digests are checked when a segment is wanted, so everything is wanted, tensor by tensor."""
    frame = Frame.decode(data, verify="lazy")
    source = decode_tensors(frame)
    for spec in source.specs:
        source.read(spec.name, 0, spec.size)
    source.arrays()
    frame.verify()  # what no tensor lies in


WAYS = {"eager": eager, "late": late}


def flipped(data, bits):
    """The bytes with one bit after the other flipped."""
    altered = bytearray(data)
    for bit in bits:
        altered[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(altered)
        altered[bit // 8] ^= 1 << bit % 8


def assert_found(data, bits, way):
    way(data)
    for bit, altered in flipped(data, bits):
        with pytest.raises(DecodeError) as caught:
            way(altered)
        assert bit < HEAD * 8 or type(caught.value) is IntegrityError, bit


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("form", "compression"), EVERY)
def test_every_byte_of_a_small_frame(form, compression, way):
    for checksum in DIGESTS:
        data = made(form, compression, checksum, small())
        rng = random.Random(f"{form}{compression}{checksum}")
        assert_found(data, (8 * at + rng.randrange(8) for at in range(len(data))), WAYS[way])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("form", "compression", "checksum"),
    [*zip(NAMES, (*COMPRESSIONS, "zstd", "lz4"), (*DIGESTS, *DIGESTS), strict=False), ("fedwt", "lx", "crc32c")],
)
def test_every_bit_of_a_small_frame(form, compression, checksum, way):
    data = made(form, compression, checksum, small())
    assert_found(data, range(len(data) * 8), WAYS[way])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("form", "compression"), EVERY)
def test_sampled_bits_of_a_large_frame(form, compression, way):
    rng = random.Random(f"{form}{compression}")
    data = made(form, compression, rng.choice(DIGESTS), large())
    assert len(data) > 2 << 20
    assert_found(data, rng.sample(range(len(data) * 8), 12), WAYS[way])


@pytest.mark.parametrize(("form", "compression"), EVERY)
def test_every_byte_of_every_part(form, compression):
    data = made(form, compression, "blake3", small())
    rng = random.Random(f"{form}{compression}")
    for part in Frame.decode(data).parts(88 + 320):
        whole = bytes(part)
        for _, altered in flipped(whole, [8 * at + rng.randrange(8) for at in range(len(whole))]):
            with pytest.raises(DecodeError):
                Part.decode(altered)


@pytest.mark.parametrize(("form", "compression"), EVERY)
def test_sampled_bits_of_a_large_frame_in_parts(form, compression, tmp_path):
    """Flipped on the way, a part is refused; flipped on the disk, it is missing until it has come again."""
    rng = random.Random(f"{form}{compression}")
    data = made(form, compression, rng.choice(DIGESTS), large())
    parts = Frame.decode(data).parts(1 << 18)
    assembler = PartAssembler(tmp_path)
    for index in rng.sample(range(len(parts)), len(parts)):
        whole = bytes(parts[index])
        for _, altered in flipped(whole, [rng.randrange(len(whole) * 8)]):
            with pytest.raises(DecodeError):
                assembler.add(Part.decode(altered), sender="site")
        transfer = assembler.add(Part.decode(whole), sender="site")
    (spooled,) = tmp_path.glob("*.frame")
    for bit in rng.sample(range(len(data) * 8), 3):
        with spooled.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
        with pytest.raises(IntegrityError, match=r"1 of \d+ parts were damaged on the disk"):
            transfer.open()
        ((index,),) = transfer.missing()
        assembler.add(Part.decode(bytes(parts[index])), sender="site")
        assert bytes(transfer.open()) == data
