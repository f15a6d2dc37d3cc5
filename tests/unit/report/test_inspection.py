"""What a frame holds, told from its header: objects."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from fedpost import dump
from fedpost.errors import DecodeError, IntegrityError
from fedpost.frame import DEFAULT_LIMITS
from fedpost.report.inspection import describe


def test_an_object_is_described(tmp_path):
    path = tmp_path / "task.frame"
    dump({"round": 7, "until": dt.date(2030, 1, 1), "mean": np.zeros(10_000)}, path)
    found = describe(path, verify=False, limits=DEFAULT_LIMITS)
    assert found.types == ["date v1"]
    assert found.object is not None
    assert [child.type for child in found.object.children] == ["int", "date v1", "array float64"]
    assert (found.pipeline, found.tensors, found.segments) == (None, [], 1)
    flat = describe(path, verify=False, limits=DEFAULT_LIMITS, depth=0).object
    assert flat is not None
    assert (flat.children, flat.more) == ([], 3)


def test_a_tree_in_a_segment_is_checked_and_no_other(tmp_path):
    path = tmp_path / "list.frame"
    dump([*range(100_000), np.zeros(5000)], path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert describe(path, verify=False, limits=DEFAULT_LIMITS).object is not None
    data[-1] ^= 1
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="segment 0"):
        describe(path, verify=False, limits=DEFAULT_LIMITS)


def test_a_file_of_another_kind_is_named(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.ones(3))
    with pytest.raises(DecodeError, match=r"It is a npz file: fedpost convert"):
        describe(tmp_path / "weights.npz", verify=False, limits=DEFAULT_LIMITS)
