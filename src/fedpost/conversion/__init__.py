"""Files of tensors into other files of tensors: any format and kind, in memory that a tensor takes and not the model.

Rules: a file is known by its content; values, names, order, element types and shapes stay exactly; what a target cannot
carry is an error that names the tensor, or for metadata a note.
"""

from fedpost.conversion.converting import MAX_WHOLE_TENSORS, Conversion, FileFacts, convert
from fedpost.conversion.disk import Progress
from fedpost.conversion.opening import KINDS, ModelFile, kind_of, open_model, read_blocks
from fedpost.conversion.target import BARE_SUFFIXES, FRAME_SUFFIXES, Target

__all__ = [
    "BARE_SUFFIXES",
    "FRAME_SUFFIXES",
    "KINDS",
    "MAX_WHOLE_TENSORS",
    "Conversion",
    "FileFacts",
    "ModelFile",
    "Progress",
    "Target",
    "convert",
    "kind_of",
    "open_model",
    "read_blocks",
]
