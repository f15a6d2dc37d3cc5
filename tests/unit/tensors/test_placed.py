"""What tensors take of a file in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors import placed


@pytest.mark.parametrize("spec", ["dense | fedwt1 | none", "dense | safetensors | zstd"])
def test_sizes_are_shared_out_in_as_many_steps_as_there_are_tensors(spec, monkeypatch):
    tensors = {str(index): np.random.default_rng(index).random(600) for index in range(200)}
    frame = Frame.decode(bytes(Pipeline.parse(spec).encode(tensors)))
    assert len(frame) > len(tensors)
    assert set(decode_tensors(frame).arrays()) == set(tensors)
    steps = []
    share_out = placed.share_out

    def counted(total, weights):
        steps.append(len(weights))
        return share_out(total, weights)

    monkeypatch.setattr(placed, "share_out", counted)
    sizes = tensor_sizes(frame)
    assert sum(steps) == 2 * len(tensors)
    assert sum(stored for _, stored in sizes.values()) == sum(frame.stored_size(index) for index in range(len(frame)))
