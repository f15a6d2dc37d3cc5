"""Frozen updates of every codec that needs a base: read as they were meant, and written as they were written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fedpost.codecs import CODECS, Base
from fedpost.codecs.lossy import Lossy
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

_SPEC = importlib.util.spec_from_file_location("update_vectors", Path(__file__).parent / "updates" / "generate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
vectors = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(vectors)


@pytest.mark.parametrize("codec", vectors.CODECS)
def test_a_frozen_update_is_read_as_it_was_meant(codec):
    path = vectors.path_of(codec)
    facts = json.loads(path.with_suffix(".json").read_text())
    base = Base.of(vectors.base())
    assert (facts["codec"], facts["base"], facts["size"]) == (codec, base.digest.hex(), path.stat().st_size)
    source = decode_tensors(Frame.open(path), base=base)
    arrays = source.arrays()
    assert vectors.described(arrays) == facts["tensors"]
    for name, array in arrays.items():
        parts = [source.read(name, start, min(start + 7, array.size)) for start in range(0, array.size, 7)]
        assert np.concatenate(parts).tobytes() == array.tobytes()


@pytest.mark.parametrize("codec", vectors.CODECS)
def test_a_frozen_update_is_written_again_byte_for_byte(codec):
    path = vectors.path_of(codec)
    pipeline = Pipeline.parse(f"{codec} | fedwt | none")
    frame, lost = pipeline.encode_update(vectors.update(), base=Base.of(vectors.base()), residual=vectors.residual())
    assert bytes(frame) == path.read_bytes()
    assert vectors.described(dict(lost)) == json.loads(path.with_suffix(".json").read_text())["lost"]


def test_every_codec_with_a_base_is_frozen():
    frozen = {codec.partition("(")[0] for codec in vectors.CODECS}
    assert frozen == {name for name in CODECS if name == "delta" or issubclass(CODECS.get(name), Lossy)}
    assert {path.name for path in (Path(__file__).parent / "updates").glob("*.frame")} == {
        vectors.path_of(codec).name for codec in vectors.CODECS
    }
