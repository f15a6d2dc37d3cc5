"""Contract suites: what every implementation must do, as pytest classes to inherit from.

Rules: a suite is inherited under a name that starts with ``Test`` and given its subject by a fixture; what a contract
leaves open is a class attribute with the strictest answer as its default; a time is only ever checked against bounds of
seconds. A suite knows the contract and nothing of how it is kept::

    class TestBucketStore(BlobStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return BucketStore(tmp_path)
"""

from fedpost.errors import MissingExtraError

try:
    import pytest
except ImportError as error:
    raise MissingExtraError("the contract suites need pytest", hint="pip install 'fedpost[test]'") from error

# Before they are imported, so that a failing assertion shows its values to an implementer as well.
pytest.register_assert_rewrite(
    *(f"fedpost.testing.{name}" for name in ("blobs", "codecs", "compressors", "formats", "samples", "transports"))
)

from fedpost.testing.blobs import BlobStoreContract  # noqa: E402 - after the line above
from fedpost.testing.codecs import CodecContract  # noqa: E402
from fedpost.testing.compressors import CompressorContract  # noqa: E402
from fedpost.testing.formats import FormatContract  # noqa: E402
from fedpost.testing.transports import TransportContract  # noqa: E402

__all__ = ["BlobStoreContract", "CodecContract", "CompressorContract", "FormatContract", "TransportContract"]
