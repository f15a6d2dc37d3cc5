"""How a command fails: one line on standard error, JSON on standard output where JSON was asked for, an exit code.

Rules: our own errors and those of the disk are told in a line; what the user's own code raised keeps its traceback,
also when it is an ``OSError``. What other machines sent cannot move the cursor or change colours.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.text import Text

from fedpost.errors import ConfigError, FedpostError, RegistryError
from fedpost.report.units import plain

__all__ = ["INTERRUPTED_EXIT", "USAGE_EXIT", "as_json_text", "errors"]

USAGE_EXIT: Final = 2
INTERRUPTED_EXIT: Final = 130
# fmt: off
_LIBRARIES: Final = frozenset([
    "blake3", "click", "crc32c", "fedpost", "google", "jinja2", "lz4", "matplotlib", "ml_dtypes", "msgspec", "numpy",
    "rich", "watchdog", "xxhash", "yaml", "zstandard",
])
# fmt: on
_CUT: Final = 2000


@contextmanager
def errors(*, as_json: bool = False, exit_code: int = 1) -> Iterator[None]:
    """Our errors as one line on standard error; Ctrl-C as an exit code.

    Args:
        as_json: Say it on standard output as well, as ``{"error": {"type", "what", "where", "hint"}}``.
        exit_code: For errors other than wrong settings and unknown names, which have 2.
    """
    try:
        yield
    except FedpostError as error:
        _tell(error, {"what": error.what, "where": error.where, "hint": error.hint}, as_json=as_json)
        sys.exit(USAGE_EXIT if isinstance(error, ConfigError | RegistryError) else exit_code)
    except OSError as error:
        where = None if error.filename is None else str(error.filename)
        facts = {"what": error.strerror or str(error), "where": where, "hint": None}
        if _of_the_user(error):
            if as_json:
                click.echo(_error_json(error, facts))
            raise
        _tell(error, facts, as_json=as_json)
        sys.exit(exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT)


def as_json_text(value: object) -> str:
    """Anything that JSON can carry, as people read it; other things as their text."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str)).decode()


def _tell(error: Exception, facts: dict[str, str | None], *, as_json: bool) -> None:
    if as_json:
        click.echo(_error_json(error, facts))
    lines = "\n".join(plain(line, limit=_CUT) for line in str(error).splitlines())
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), lines), soft_wrap=True)


def _error_json(error: Exception, facts: dict[str, str | None]) -> str:
    return as_json_text({"error": {"type": type(error).__name__, **facts}})


def _of_the_user(error: BaseException) -> bool:
    """Whether an error came through code that is neither ours nor a library's that we use."""
    return any(_is_foreign(frame) for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_foreign(frame: FrameType) -> bool:
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return top not in _LIBRARIES and top not in sys.stdlib_module_names
