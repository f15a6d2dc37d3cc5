"""Coded updates that lie, with right digests: notes, lists of names, bitstreams, bases and sizes.

They are read in a process with 64 MiB to spare beyond the base and what a model takes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from fedpost.codecs import Base, parse_codec
from fedpost.errors import DecodeError, FedpostError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors import Fedwt

CODECS = ["uq(2)", "eden(1)", "eden(4)", "topk(0.05)", "stc(0.05)", "int8", "int4", "sign"]
SEEDED = ["eden(2)", "int8", "int4"]
OLD = {"w": np.zeros((64, 48), np.float32), "v": np.zeros(48, np.float32), "n": np.zeros(3, np.int64)}
NEW = {
    "w": np.random.default_rng(0).laplace(size=(64, 48)).astype(np.float32),
    "v": np.random.default_rng(1).laplace(size=48).astype(np.float32),
    "n": np.arange(3),
}
BASE = Base.of(OLD)


def forged(spec, tensors=None, *, drop=(), **notes):
    """A frame with right digests of whatever is given; the rest is as it should be."""
    encoding = parse_codec(spec).encode(NEW, BASE)
    sent = encoding.tensors if tensors is None else {**encoding.tensors, **tensors}
    sent = {name: array for name, array in sent.items() if array is not None}
    encoded = Fedwt().encode(sent)
    told = {name: note for name, note in {**encoding.notes, **notes}.items() if name not in drop}
    sections = {"pipeline": f"{spec} | fedwt | none", "update": told, **encoded.sections}
    return Frame.decode(bytes(Frame.build(sections, encoded.segments)))


def read(frame, base=BASE):
    source = decode_tensors(frame, base=base)
    return {spec.name: source.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in source.specs}


def test_what_is_true_is_read():
    for spec in CODECS:
        assert set(read(forged(spec))) == set(NEW)


WRONG_STEPS = [
    *([-1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0], [0.0, -np.inf], [1e300, 0.0], [3.5e38, 1.0], [1e-60, 0.0]),
    *([0.1, 0.2], [1, 1], [True, False], [1.0], [1.0, 1.0, 1.0], [], None, 1.0, "1", b"1", {"0": 1.0}, [[1.0], [1.0]]),
    *(["1", "2"], [None, None], [1.0, 2**63]),
]


@pytest.mark.parametrize("steps", WRONG_STEPS, ids=repr)
def test_steps_that_are_no_steps(steps):
    with pytest.raises(DecodeError, match="steps"):
        read(forged("uq(2)", steps=steps))


@pytest.mark.parametrize("steps", [[1e38, 1e38], [float(np.float32(1e-45)), 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
def test_steps_that_are_others_give_finite_numbers_or_an_error(steps):
    try:
        got = read(forged("uq(2)", steps=[float(np.float32(step)) for step in steps]))
    except DecodeError:
        return
    assert all(np.isfinite(array).all() for array in got.values())


@pytest.mark.parametrize("spec", SEEDED)
@pytest.mark.parametrize("seed", [-1, -(2**63), 1.0, np.nan, "1", b"12345678", None, True, [1], {"seed": 1}], ids=repr)
def test_seeds_that_are_no_seeds(spec, seed):
    with pytest.raises(DecodeError, match="seed"):
        read(forged(spec, seed=seed))


@pytest.mark.parametrize("spec", CODECS)
@pytest.mark.parametrize(
    "whole",
    [None, "w", b"w", 3, {"n": 1}, ["nobody"], [3], [None], [["n"]], ["n", "nobody"], [], ["w"], ["v"], ["n"] * 1000],
    ids=repr,
)
def test_lists_of_what_is_whole_that_are_wrong(spec, whole):
    """What is not refused has the types and shapes of what was sent, so the server sees that it does not fit."""
    try:
        got = read(forged(spec, whole=whole))
    except DecodeError:
        return
    assert set(got) == set(NEW)
    assert got["n"].dtype == np.int64
    fits = [got[name].dtype == NEW[name].dtype and got[name].shape == NEW[name].shape for name in "wvn"]
    coded = {name for name in "wv" if parse_codec(spec).codes_vectors or name == "w"}
    if coded & set(whole):
        assert not all(fits)
    else:
        assert all(fits)


@pytest.mark.parametrize("spec", CODECS)
@pytest.mark.parametrize(
    "digest", [None, "", b"", b"x", bytes(16), BASE.digest[:-1], BASE.digest + b"0", 5, "text"], ids=repr
)
def test_bases_that_are_another(spec, digest):
    with pytest.raises(DecodeError, match="base"):
        read(forged(spec, base=digest))


@pytest.mark.parametrize("spec", CODECS)
def test_notes_that_are_missing(spec):
    for name in parse_codec(spec).encode(NEW, BASE).notes:
        with pytest.raises(DecodeError):
            read(forged(spec, drop=[name]))


@pytest.mark.parametrize("spec", CODECS)
def test_coded_vectors_that_are_none(spec):
    """Other types, other ranks, none that the base has, and tensors that are not coded."""
    good = parse_codec(spec).encode(NEW, BASE).tensors["w"]
    for wrong in (good.view(np.int8), good.reshape(1, -1), np.zeros((), np.uint8), NEW["w"], good.astype(np.uint16)):
        with pytest.raises(DecodeError, match="tensor 'w'"):
            read(forged(spec, {"w": wrong}))
    for name in ("nobody", "W", "w\0"):
        with pytest.raises(DecodeError, match="the base has no such tensor"):
            read(forged(spec, {name: good}))
    with pytest.raises(DecodeError, match="tensor 'n'"):
        read(forged(spec, {"n": good}, whole=[name for name in "v" if not parse_codec(spec).codes_vectors]))


@pytest.mark.parametrize("spec", CODECS)
def test_bitstreams_of_another_length(spec):
    good = parse_codec(spec).encode(NEW, BASE).tensors["w"]
    for wrong in (good[:0], good[:1], good[:-1], np.append(good, np.uint8(0)), np.concatenate([good, good])):
        with pytest.raises(DecodeError, match="tensor 'w'"):
            read(forged(spec, {"w": wrong}))


@pytest.mark.parametrize("spec", CODECS)
def test_bitstreams_that_lie_give_finite_numbers_or_an_error(spec):
    good = parse_codec(spec).encode(NEW, BASE).tensors["w"]
    chance = random.Random(spec)
    for _ in range(150):
        wrong = good.copy()
        for _ in range(chance.randint(1, 5)):
            wrong[chance.randrange(wrong.size)] ^= chance.choice([1, 2, 64, 128, 255])
        frame = forged(spec, {"w": wrong})
        try:
            got = read(frame)
        except DecodeError as error:
            assert error.where == "tensor 'w'"  # noqa: PT017 - it may also be read
            continue
        assert all(np.isfinite(array).all() for array in got.values())
        whole = decode_tensors(frame, base=BASE).arrays()
        assert all(whole[name].tobytes() == got[name].tobytes() for name in got)


@pytest.mark.parametrize("spec", CODECS)
def test_sizes_can_be_told_of_whatever_is_sent(spec):
    for frame in (
        forged(spec),
        forged(spec, base=bytes(16)),
        forged(spec, whole=["nobody"]),
        forged(spec, drop=["base"]),
    ):
        for base in (None, BASE):
            try:
                assert all(raw >= 0 and stored >= 0 for raw, stored in tensor_sizes(frame, base=base).values())
            except DecodeError:
                assert base is BASE


_CELL = """
import json, resource, sys
from pathlib import Path
import numpy as np
from fedpost.codecs import Base
from fedpost.errors import RemoteError
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors

base = Base.of({"w": np.zeros((2048, 2048), np.float32), "v": np.zeros(5, np.float32)})
def everything(data):
    source = decode_tensors(Frame.decode(data), base=base)
    for spec in source.specs:
        for start in range(0, spec.size, 1 << 18):
            source.read(spec.name, start, min(start + (1 << 18), spec.size))
    return "accepted"
frames = [Path(path).read_bytes() for path in json.load(sys.stdin)]
everything(frames[0])  # imports
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
out = []
for data in frames:
    try:
        out.append(everything(data))
    except RemoteError as error:
        out.append("refused")
    except BaseException as error:
        out.append(repr(error))
json.dump(out, sys.stdout)
"""


def test_a_tiny_frame_takes_no_memory(tmp_path):
    """Whatever it claims: shapes are the base's, counts are checked against the bytes."""
    base = Base.of({"w": np.zeros((2048, 2048), np.float32), "v": np.zeros(5, np.float32)})
    good = Pipeline.parse("sign | fedwt | none").encode({"w": np.zeros((2048, 2048), np.float32)}, base=base)
    frames = [bytes(good)]
    chance = random.Random(4)
    notes = {"base": base.digest, "whole": [], "steps": [1.0], "seed": 5}
    for spec in (*CODECS, "uq(16)"):
        for claim in (
            b"",
            b"\x16" + b"\xff\xff\xff\xff\xff\x3f" * 3,
            b"\x0a" + bytes(8192),
            b"\x04" + b"\xff" * 40,
            b"\x08\x04\x06" + b"\x00" * 40,
            bytes(4) + b"\xff\xff\xff\xff" + b"\xff" * 9,
            *(chance.randbytes(chance.randint(1, 200)) for _ in range(25)),
            *(bytes([first]) + chance.randbytes(60) for first in range(24)),
        ):
            encoded = Fedwt().encode({"w": np.frombuffer(claim, np.uint8)})
            sections = {"pipeline": f"{spec} | fedwt | none", "update": notes, **encoded.sections}
            frames.append(bytes(Frame.build(sections, encoded.segments)))
    paths = []
    for number, data in enumerate(frames):
        path = tmp_path / str(number)
        path.write_bytes(data)
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", _CELL], input=json.dumps(paths), capture_output=True, text=True, check=False, timeout=280
    )
    assert not done.returncode, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes[0] == "accepted"
    assert set(outcomes[1:]) <= {"refused"}, [one for one in outcomes[1:] if one != "refused"][:5]


def test_a_codec_s_name_in_a_frame_is_checked_as_any_other():
    encoded = Fedwt().encode({"w": np.zeros(3, np.uint8)})
    for spec in ("uq(1e9)", "uq", "uq(nan)", "eden(99)", "topk(-1)", "uq(2)(2)", "uq(" + "9" * 3000 + ")"):
        sections = {"pipeline": f"{spec} | fedwt | none", "update": {}, **encoded.sections}
        frame = Frame.decode(bytes(Frame.build(sections, encoded.segments)))
        with pytest.raises(FedpostError) as caught:
            decode_tensors(frame, base=BASE)
        assert isinstance(caught.value, DecodeError)
