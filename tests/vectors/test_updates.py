"""Frozen updates of every codec that needs a base: read as they were meant, and written as they were written."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from fedpost.codecs import CODECS, Base, parse_codec
from fedpost.codecs.kernels.uniform import encode_tensor
from fedpost.codecs.lossy import Lossy
from fedpost.errors import DecodeError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import Fedwt, MemoryTensors

HERE = Path(__file__).parent


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vectors = _load("update_vectors", HERE / "updates" / "generate.py")
second = _load("codecs_reader", HERE / "codecs_reader.py")


FOLDER = HERE / "updates"


def facts_of(stem):
    return json.loads((FOLDER / f"{stem}.json").read_text())


@pytest.mark.parametrize("stem", vectors.CASES)
def test_a_frozen_update_is_read_as_it_was_meant(stem):
    codec, model = vectors.CASES[stem]
    path, facts, base = FOLDER / f"{stem}.frame", facts_of(stem), Base.of(vectors.model_of(model)[0])
    assert (facts["codec"], facts.get("model", "plain"), facts["base"]) == (codec, model, base.digest.hex())
    assert facts["size"] == path.stat().st_size
    source = decode_tensors(Frame.open(path), base=base)
    arrays = source.arrays()
    assert vectors.described(arrays) == facts["tensors"]
    for name, array in arrays.items():
        step = max(array.size // 30, 7)
        parts = [source.read(name, start, min(start + step, array.size)) for start in range(0, array.size, step)]
        assert b"".join(part.tobytes() for part in parts) == array.tobytes()


@pytest.mark.parametrize("stem", vectors.CASES)
def test_a_frozen_update_is_written_again_byte_for_byte(stem):
    codec, model = vectors.CASES[stem]
    base, update, residual = vectors.model_of(model)
    pipeline = Pipeline.parse(f"{codec} | fedwt | none")
    frame, lost = pipeline.encode_update(update, base=Base.of(base), residual=residual)
    assert bytes(frame) == (FOLDER / f"{stem}.frame").read_bytes()
    assert vectors.described(dict(lost)) == facts_of(stem)["lost"]


@pytest.mark.parametrize("stem", vectors.CASES)
def test_a_frozen_update_is_read_by_the_specification_alone(stem, reader):
    """By a second reader, which shares no line with fedpost."""
    base = vectors.model_of(vectors.CASES[stem][1])[0]

    def undo(update, notes, sent):
        assert notes["base"].hex() == facts_of(stem)["base"]
        return second.undo(update, notes, sent, base)

    _, arrays = reader.read_frame((FOLDER / f"{stem}.frame").read_bytes(), other_updates=undo)
    assert vectors.described(arrays) == facts_of(stem)["tensors"]


def test_every_codec_with_a_base_is_frozen():
    frozen = {codec.partition("(")[0] for codec, _ in vectors.CASES.values()}
    assert frozen == {"cast"} | {name for name in CODECS if name == "delta" or _is_lossy(CODECS.get(name))}
    assert {path.stem for path in FOLDER.glob("*.frame")} == set(vectors.CASES)


def test_the_second_reader_shares_no_line():
    text = (HERE / "codecs_reader.py").read_text()
    assert not re.search(r"^\s*(import|from) fedpost", text, re.MULTILINE)
    assert len(text.splitlines()) < 400


def test_the_example_in_the_specification():
    """Its bytes, and what it says of them."""
    text = (HERE.parents[1] / "docs" / "spec" / "updates.md").read_text()
    data = bytes.fromhex(re.search(r"```\n((?:[0-9a-f]{2} ?)+)\n```", text)[1])
    change = np.zeros((3, 5), np.float32)
    change.reshape(-1)[[1, 7, 13]] = np.array([1, -2, 3], np.float32) * np.float32(0.7)
    assert encode_tensor(change, 0.7, block_bits=19) == data
    assert second.read_uq(data, {"step": float(np.float32(0.7))}, 0, (3, 5)).tobytes() == change.tobytes()


def test_every_way_to_code_a_matrix_is_frozen():
    """Rows, columns, both, signs, and none of them."""
    flags = set()
    for stem, (codec, model) in vectors.CASES.items():
        if not codec.startswith("uq"):
            continue
        sent = Fedwt().decode(Frame.open(FOLDER / f"{stem}.frame"), DEFAULT_LIMITS).arrays()
        for name, old in vectors.model_of(model)[0].items():
            data = sent[name].tobytes() if name in sent and sent[name].dtype == np.uint8 else b""
            if not data:
                continue
            at, lengths = 1, []
            for _ in second.grid_of(old.shape, 1 << data[0]):
                length, at = second.varint(data, at)
                lengths.append(length)
            for length in lengths:
                flags.add(data[at])
                at += length
    assert flags == {0, 1, 2, 3, 5, 7}


def _is_lossy(codec):
    return isinstance(codec, type) and issubclass(codec, Lossy)


SMALL = {"w": np.zeros((12, 90), np.float32), "v": np.zeros(70, np.float32)}
REFUSALS = (ValueError, LookupError, StopIteration, RuntimeError, struct.error)


@pytest.mark.parametrize("codec", ["uq(1)", "uq(0.1)", "eden(3)", "topk(0.1)", "stc(0.2)", "int8", "int4", "sign"])
def test_both_readers_refuse_the_same(codec):
    """Altered bytes: what one takes the other takes, for the same values: so the page says all that is checked."""
    made = parse_codec(codec)
    base = Base.of(SMALL)
    strength = 2.0 ** -(np.arange(12) % 4).reshape(12, 1)
    change = {"w": (vectors.noise("both", 12, 90) * strength).astype(np.float32), "v": np.ones(70, np.float32)}
    change["w"][3:5] = np.abs(change["w"][3:5])
    encoding = made.encode(change, base)
    notes = {"seed": 1, **encoding.notes}
    good = encoding.tensors["w"]
    chance, taken = random.Random(codec), 0
    for turn in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 2)):
            place = chance.randrange(8 if turn % 3 == 0 else len(data))
            data[place] = data[place] ^ 1 << chance.randrange(8) if turn % 2 else chance.randrange(256)
        if turn % 7 == 0:
            del data[chance.randrange(len(data)) :]
        sent = {"w": np.frombuffer(bytes(data), np.uint8), "v": encoding.tensors["v"]}
        try:
            ours = made.decode(MemoryTensors(sent), notes, base).arrays()
        except DecodeError:
            ours = None
        try:
            theirs = second.undo(codec, notes, sent, SMALL)
        except REFUSALS:
            theirs = None
        assert (ours is None) == (theirs is None), (turn, data.hex())
        if ours is not None:
            taken += 1
            assert all(ours[name].tobytes() == theirs[name].tobytes() for name in SMALL)
    assert taken
