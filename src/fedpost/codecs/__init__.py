"""What makes an update small; one module a codec."""

from fedpost.codecs.auto import Auto, Picked
from fedpost.codecs.cast import Cast
from fedpost.codecs.chain import Chain, Rc, chain
from fedpost.codecs.codec import (
    CODECS,
    NO_RESIDUAL,
    Base,
    Budgeted,
    Capabilities,
    Codec,
    Encoding,
    Notes,
    Residual,
    capabilities_of,
)
from fedpost.codecs.delta import Delta
from fedpost.codecs.dense import Dense
from fedpost.codecs.eden import Eden
from fedpost.codecs.narrow import Int4, Int8, Sign
from fedpost.codecs.patterns import ByPattern
from fedpost.codecs.sparse import Stc, TopK
from fedpost.codecs.text import codec_config, codec_names, codec_of, is_update_stage, parse_codec
from fedpost.codecs.uq import Uq

__all__ = [
    "CODECS",
    "NO_RESIDUAL",
    "Auto",
    "Base",
    "Budgeted",
    "ByPattern",
    "Capabilities",
    "Cast",
    "Chain",
    "Codec",
    "Delta",
    "Dense",
    "Eden",
    "Encoding",
    "Int4",
    "Int8",
    "Notes",
    "Picked",
    "Rc",
    "Residual",
    "Sign",
    "Stc",
    "TopK",
    "Uq",
    "capabilities_of",
    "chain",
    "codec_config",
    "codec_names",
    "codec_of",
    "is_update_stage",
    "parse_codec",
]
