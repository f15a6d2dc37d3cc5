"""What makes an update small; one module a codec."""

from fedpost.codecs.cast import Cast
from fedpost.codecs.codec import CODECS, Codec, parse_codec
from fedpost.codecs.dense import Dense

__all__ = ["CODECS", "Cast", "Codec", "Dense", "parse_codec"]
