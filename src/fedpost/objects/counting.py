"""Counting what a packed tree would come to, before any of it is made.

Rules: first an estimate that is never too low, at the speed of memory; only where that is too much are the items gone
through, and then a step of Python's is taken for each container and long text only. A tree that is damaged is counted
up to where a reader would stop.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final

from fedpost.objects.wire import IN_PLACE

__all__ = ["containers_in"]

_OPENERS: Final = bytes([*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0)])
"""The bytes that arrays, maps and extensions begin with."""
_SIZES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xCA: 4, 0xCB: 8}
_RUN: Final = re.compile(
    b"(?:[\\x00-\\x7f\\xc0\\xc2\\xc3\\xe0-\\xff]"
    + b"".join(b"|\\x%02x.{%d}" % entry for entry in [*_SIZES.items(), *((0xA0 | size, size) for size in range(32))])
    + b"){1,256}",  # a limit, as what matches is kept to go back to
    re.DOTALL,
)
"""Numbers and short texts, many in a row."""
_SHORT: Final = re.compile(b"[\\x80-\\x9f]+")
"""The heads of short lists and dictionaries."""
_EXTENSIONS: Final = (0xC7, 0xC9)
_ARRAY: Final = 0xDC
_FORMS: Final[dict[int, Any]] = {
    **{head: struct.Struct(form) for head, form in zip((0xC4, 0xC5, 0xC6), (">B", ">H", ">I"), strict=True)},
    **{head: struct.Struct(form) for head, form in zip((0xC7, 0xC8, 0xC9), (">B", ">H", ">I"), strict=True)},
    **{head: struct.Struct(form) for head, form in zip((0xD9, 0xDA, 0xDB), (">B", ">H", ">I"), strict=True)},
    **dict(zip(range(0xD4, 0xD9), (1, 2, 4, 8, 16), strict=True)),
    **dict(zip(range(0xDC, 0xE0), (3, 5, 3, 5), strict=True)),
}
"""By the first byte of what is not in such a run: how its length is written; the bytes of a short extension; those of
the head of a list or a dictionary."""


def containers_in(data: bytes, most: int) -> int:  # noqa: C901, PLR0912 - one loop, as a call for each would take as long
    """How many lists, dictionaries and rows in place a packed tree has; a number over ``most`` says only that."""
    if len(data) - len(data.translate(None, _OPENERS)) <= most:
        return most
    count, place, end = 0, 0, len(data)
    try:
        while place < end and count <= most:
            head = data[place]
            form = _FORMS.get(head)
            if form is None:
                found = _SHORT.match(data, place)
                if found is not None:
                    count += found.end() - place
                else:
                    found = _RUN.match(data, place)
                    if found is None:  # it ends in it, or means nothing
                        break
                place = found.end()
                continue
            if type(form) is int:
                if head < _ARRAY and data[place + 1] < IN_PLACE:
                    place += 2 + form  # a reference
                else:  # a row, whose bytes are looked at too, or the head of a list or a dictionary
                    count += 1
                    place += 2 if head < _ARRAY else form
            elif head < _EXTENSIONS[0] or head > _EXTENSIONS[1]:
                place += form.size + 1 + form.unpack_from(data, place + 1)[0]
            elif data[place + 1 + form.size] < IN_PLACE:
                place += form.size + 2 + form.unpack_from(data, place + 1)[0]
            else:
                count += 1
                place += form.size + 2
    except (LookupError, struct.error):  # it ends there
        pass
    return count
