"""What the kernels take: the caller's own float32 memory, never a copy of it."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.codecs.kernels.blocks import decode_blocks, decode_signs, encode_blocks, encode_signs
from fedpost.codecs.kernels.eden import decode_eden, encode_eden
from fedpost.codecs.kernels.places import Cut
from fedpost.codecs.kernels.sparsify import decode_stc, decode_top, encode_stc, encode_top
from fedpost.codecs.kernels.uniform import decode_tensor, encode_tensor
from fedpost.errors import EncodeError

ALL = Cut(least=0, equal=0)
CODERS = [
    (lambda x, **options: encode_tensor(x, 1, **options), lambda data, out: decode_tensor(data, 1, out)),
    (lambda x: encode_eden(x, 1, 1), lambda data, out: decode_eden(data, 1, out)),
    (lambda x, **options: encode_top(x, ALL, **options), decode_top),
    (lambda x, **options: encode_stc(x, ALL, **options), decode_stc),
    (lambda x: encode_blocks(x, 8), decode_blocks),
    (encode_signs, decode_signs),
]


@pytest.mark.parametrize(("encode", "decode"), CODERS)
@pytest.mark.parametrize("array", [np.ones((4, 6), np.float32).T, np.ones(24), np.ones(24, ">f4")])
def test_other_arrays_are_refused(encode, decode, array):
    with pytest.raises(EncodeError, match="C-contiguous float32"):
        encode(array)
    data = encode(np.ones(24, np.float32))
    with pytest.raises(EncodeError, match="C-contiguous float32"):
        decode(data, array)


@pytest.mark.parametrize("encode", [CODERS[index][0] for index in (0, 2, 3, 5)])
@pytest.mark.parametrize("residual", [np.ones((4, 6), np.float32).T, np.ones(24), np.ones(23, np.float32)])
def test_other_residuals_are_refused(encode, residual):
    with pytest.raises(EncodeError):
        encode(np.ones(24, np.float32), residual=residual)


@pytest.mark.parametrize("encode", [encode for encode, _ in CODERS])
@pytest.mark.parametrize("bits", [0x7F800000, 0x7FC00000, 0x7FA00000, 0xFFA00001])
def test_what_is_no_number_is_refused_quietly(encode, bits):
    x = np.ones(50_000, np.float32)
    x.view(np.uint32)[[5, 40_000]] = bits  # infinity, a NaN, two that signal
    with pytest.raises(EncodeError, match="NaN or infinite"):
        encode(x)
