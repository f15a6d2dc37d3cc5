"""No registry is without a contract: each test file named here says which names of its registry it covers."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import fedpost
from fedpost.checksums import CHECKSUMS
from fedpost.codecs import CODECS
from fedpost.compression import COMPRESSORS
from fedpost.errors import MissingExtraError
from fedpost.registry import Registry
from fedpost.tensors import FORMATS
from fedpost.transports import TRANSPORTS

COVERED = {
    "test_checksums.py": CHECKSUMS,
    "test_codecs.py": CODECS,
    "test_compressors.py": COMPRESSORS,
    "test_formats.py": FORMATS,
    "test_transports.py": TRANSPORTS,
}


def registries():
    """Every registry that a module of the library has."""
    found = {}
    for info in pkgutil.walk_packages(fedpost.__path__, "fedpost."):
        if info.name == "fedpost.__main__":
            continue
        try:
            module = importlib.import_module(info.name)
        except MissingExtraError:
            continue
        found |= {id(thing): thing for thing in vars(module).values() if isinstance(thing, Registry)}
    return found


def test_every_registry_has_its_file():
    assert set(registries()) == {id(registry) for registry in COVERED.values()}


def test_every_file_is_there():
    here = Path(__file__).parent
    assert [name for name in COVERED if "is_here():" not in (here / name).read_text(encoding="utf-8")] == []
