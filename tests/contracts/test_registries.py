"""No registry is without a contract."""

from __future__ import annotations

from pathlib import Path

from fedpost.checksums import CHECKSUMS
from fedpost.codecs import CODECS
from fedpost.compression import COMPRESSORS
from fedpost.registry import Registry
from fedpost.tensors import FORMATS
from fedpost.transports import TRANSPORTS

CONTRACTS = {
    "test_checksums.py": CHECKSUMS,
    "test_codecs.py": CODECS,
    "test_compressors.py": COMPRESSORS,
    "test_formats.py": FORMATS,
    "test_transports.py": TRANSPORTS,
}


def test_every_registry_has_its_file():
    """Each file says which names it covers; here it is that there is one for each registry of the library."""
    import gc

    assert {id(registry) for registry in CONTRACTS.values()} <= {
        id(thing) for thing in gc.get_objects() if isinstance(thing, Registry)
    }
    for name in CONTRACTS:
        assert Path(__file__).with_name(name).is_file()
