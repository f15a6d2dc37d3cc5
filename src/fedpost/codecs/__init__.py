"""What makes an update small; one module a codec."""

from fedpost.codecs.cast import Cast
from fedpost.codecs.codec import CODECS, Base, Codec, Encoding, Notes, Residual, parse_codec
from fedpost.codecs.delta import Delta
from fedpost.codecs.dense import Dense
from fedpost.codecs.eden import Eden
from fedpost.codecs.narrow import Int4, Int8, Sign
from fedpost.codecs.sparse import Stc, TopK
from fedpost.codecs.uq import Uq

__all__ = [
    "CODECS",
    "Base",
    "Cast",
    "Codec",
    "Delta",
    "Dense",
    "Eden",
    "Encoding",
    "Int4",
    "Int8",
    "Notes",
    "Residual",
    "Sign",
    "Stc",
    "TopK",
    "Uq",
    "parse_codec",
]
