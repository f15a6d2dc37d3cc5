"""Named arrays and the frames that carry them; one module a format."""

from fedpost.tensors.fedwt import Fedwt
from fedpost.tensors.format import FORMATS, Array, Encoded, Format, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors.lx import compression_for
from fedpost.tensors.npy import Npy

__all__ = [
    "FORMATS",
    "Array",
    "Encoded",
    "Fedwt",
    "Format",
    "MemoryTensors",
    "Npy",
    "TensorSource",
    "TensorSpec",
    "compression_for",
]
