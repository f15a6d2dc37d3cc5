"""The format ``protobuf``: by hand, generated code that is what the schema gives, and life without the runtime."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedpost.tensors.schema
from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, Protobuf
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
    subprocess.run([*command, "fedpost_weights.proto"], check=True, timeout=60)
    files = [folder / "fedpost_weights_pb2.py" for folder in (tmp_path, SCHEMA)]
    made, kept = (re.sub(r"Version: [0-9.]+|(?m:^    [0-9]+,$)", "", file.read_text("utf-8")) for file in files)
    assert made == kept


def test_without_the_runtime_everything_else_works():
    code = """
import sys
sys.modules["google"] = sys.modules["google.protobuf"] = None
from fedpost.errors import MissingExtraError
from fedpost.tensors import FORMATS, protobuf
for call in (lambda: FORMATS.get("protobuf"), lambda: protobuf.to_bytes({}), lambda: protobuf.from_bytes(b"")):
    try:
        call()
    except MissingExtraError as error:
        print(error)
print("protobuf" in FORMATS, FORMATS.get("fedwt").name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    message = "the format protobuf needs the protobuf runtime. pip install 'fedpost[protobuf]'"
    assert done.stdout.splitlines() == [message] * 3 + ["True fedwt"]


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
