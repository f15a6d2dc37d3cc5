"""The functions of ``nvflare.fuel.utils.fobs.lobs``, where programs import them from there."""

from fedpost.compat.fobs.operations import (
    dump_to_bytes,
    dump_to_file,
    dump_to_stream,
    load_from_bytes,
    load_from_file,
    load_from_stream,
)

__all__ = [
    "dump_to_bytes",
    "dump_to_file",
    "dump_to_stream",
    "load_from_bytes",
    "load_from_file",
    "load_from_stream",
]
