"""The format ``protobuf``: by hand, as the code that is generated from the schema has it, and without the runtime."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpost.tensors.schema
from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, Protobuf
from fedpost.tensors.dtypes import dtype_name
from fedpost.tensors.protobuf import from_bytes, to_bytes
from fedpost.testing.samples import assert_same_tensors

pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")

SCHEMA = Path(fedpost.tensors.schema.__file__).parent
# Two weights: layer_id 0 is the default and not written; the shape is packed.
BY_HAND = (
    b"\x0a\x0a\x0a\x05round\x12\x013"
    b"\x12\x1a\x12\x02\x01\x02\x1a\x07float32\x22\x08\0\0\x80\x3f\0\0\x20\xc0\x2a\x01w"
    b"\x12\x0e\x08\x01\x1a\x05uint8\x22\x01\x07\x2a\x00"
)
TENSORS = {"w": np.array([[1, -2.5]], "<f4"), "": np.array(7, np.uint8)}


def written(tensors, metadata=None):
    return b"".join(to_bytes(tensors, metadata))


def test_it_is_registered():
    assert isinstance(FORMATS.get("protobuf"), Protobuf)


def test_bytes_written_by_hand():
    assert written(TENSORS, {"round": "3"}) == BY_HAND
    arrays, metadata = from_bytes(BY_HAND)
    assert_same_tensors(arrays, TENSORS)
    assert metadata == {"round": "3"}


def test_a_writer_without_names_is_read():
    data = BY_HAND.replace(b"\x12\x1a\x12", b"\x12\x17\x12").replace(b"\x2a\x01w", b"")
    data = data.replace(b"\x12\x0e\x08", b"\x12\x0c\x08").replace(b"\x2a\x00", b"")
    assert_same_tensors(from_bytes(data)[0], {"0": TENSORS["w"], "1": TENSORS[""]})


def test_a_model_of_nothing():
    assert written({}) == b""
    assert from_bytes(b"") == ({}, {})


def test_the_generated_code_is_what_the_schema_gives(tmp_path):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SCHEMA}", f"--python_out={tmp_path}"]
    subprocess.run([*command, "fedpost_weights.proto"], check=True, timeout=280)
    files = [folder / "fedpost_weights_pb2.py" for folder in (tmp_path, SCHEMA)]
    made, kept = (re.sub(r"Version: [0-9.]+|(?m:^    [0-9]+,$)", "", file.read_text("utf-8")) for file in files)
    assert made == kept


def test_without_the_runtime_everything_works():
    code = """
import sys
sys.modules["google"] = sys.modules["google.protobuf"] = None
import numpy as np
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
data = bytes(Pipeline.parse("dense | protobuf | none").encode({"w": np.arange(3)}))
print(decode_tensors(Frame.decode(data)).arrays()["w"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout == "[0, 1, 2]\n"


# ── the generated code reads and writes the same ─────────────────────────────────────────────────────────────────────


def generated():
    return importlib.import_module("fedpost.tensors.schema.fedpost_weights_pb2").WeightMessage()


def as_generated(tensors, metadata):
    message = generated()
    message.metadata.update(metadata)
    for index, (name, array) in enumerate(tensors.items()):
        kind = dtype_name(array.dtype)
        message.weights.add(layer_id=index, shape=array.shape, dtype=kind, data=array.tobytes(), name=name)
    return message.SerializeToString(deterministic=True)


def test_what_is_written_is_what_the_generated_code_writes():
    tensors = {
        **{f"{index}": np.full(index % 3, index, np.int16) for index in range(300)},
        "large": np.arange(40_000.0).reshape(200, 200),
        "Fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "é日\0": np.array(True),
        "nothing": np.zeros((0, 2**40), np.int8),
    }
    for metadata in ({}, {"": ""}, {"round": "3"}, {"é": "日" * 100}, {"\0": "\0"}):
        assert written(tensors, metadata) == as_generated(tensors, metadata)
    many = {str(index): "" for index in range(99)}
    assert said(written(tensors, many)) == said(as_generated(tensors, many))


def said(data):
    """What the generated code takes a message for, as from_bytes would give it."""
    message = generated()
    message.ParseFromString(data)
    rows = [(weight.name, weight.dtype, list(weight.shape), weight.data) for weight in message.weights]
    return rows, dict(message.metadata)


@settings(max_examples=300)
@given(st.data())
def test_what_is_read_is_what_the_generated_code_reads(data):
    """Messages with bytes changed, taken out and put in: whatever is taken means the same to both."""
    message = bytearray(BY_HAND)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(message)))
        message[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        arrays, metadata = from_bytes(bytes(message))
    except DecodeError:
        return
    rows, noted = said(bytes(message))
    found = [(dtype_name(array.dtype), list(array.shape), array.tobytes()) for array in arrays.values()]
    assert (found, metadata) == ([row[1:] for row in rows], noted)
    assert list(arrays) in ([row[0] for row in rows], [str(index) for index in range(len(rows))])


def test_large_arrays_are_copied_neither_way():
    array = np.arange(5000.0)
    assert any(np.may_share_memory(array, np.frombuffer(piece, np.uint8)) for piece in to_bytes({"w": array}))
    data = np.frombuffer(written({"w": array}), np.uint8)
    assert np.may_share_memory(from_bytes(data.data)[0]["w"], data)


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": "\ud800"}])
def test_metadata_that_is_not_text_is_refused(metadata):
    with pytest.raises(EncodeError):
        to_bytes(TENSORS, metadata)


def test_a_message_of_two_gigabytes_is_refused():
    with pytest.raises(EncodeError, match="2 GiB"):
        to_bytes({"w": np.broadcast_to(np.zeros(1), (1 << 28,))})


def test_budgets():
    for limits in (Limits(max_tensors=1), Limits(max_frame=10), Limits(max_header=10)):
        with pytest.raises(LimitError):
            from_bytes(BY_HAND, limits=limits)


def test_sections_and_segments_that_do_not_fit_are_refused():
    view = memoryview(BY_HAND)
    for count, segments in ((1, [view]), (2, [view, view]), (0, [view]), (2, []), (-1, [view])):
        with pytest.raises(DecodeError):
            Protobuf().decode(Frame.build({"tensors_protobuf": count}, segments), DEFAULT_LIMITS)
