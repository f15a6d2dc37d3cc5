"""What makes an update small; one module a codec."""

from fedpost.codecs.cast import Cast
from fedpost.codecs.codec import CODECS, Base, Codec, Notes, parse_codec
from fedpost.codecs.delta import Delta
from fedpost.codecs.dense import Dense

__all__ = ["CODECS", "Base", "Cast", "Codec", "Delta", "Dense", "Notes", "parse_codec"]
