"""Named arrays and the frames that carry them; one module a format."""

from fedpost.tensors.fedwt import Fedwt
from fedpost.tensors.fedwt1 import Fedwt1
from fedpost.tensors.format import FORMATS, Array, Encoded, Format, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors.json_base64 import JsonBase64
from fedpost.tensors.lx import compression_for
from fedpost.tensors.msgpack import MsgPack
from fedpost.tensors.npy import Npy
from fedpost.tensors.protobuf import Protobuf
from fedpost.tensors.safetensors import Safetensors

__all__ = [
    "FORMATS",
    "Array",
    "Encoded",
    "Fedwt",
    "Fedwt1",
    "Format",
    "JsonBase64",
    "MemoryTensors",
    "MsgPack",
    "Npy",
    "Protobuf",
    "Safetensors",
    "TensorSource",
    "TensorSpec",
    "compression_for",
]
