"""Settings, typed and checked in full: the eight keys of the serializer, and the six parts of the whole template.

Rules: every key may be left out; an unknown one is an error that names the nearest. What an enabled setting needs and
this version does not have is an error, as somebody's privacy hangs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal

import msgspec

from fedpost.checksums import CHECKSUMS
from fedpost.compat.kafkafl.checking import typed
from fedpost.compat.kafkafl.metadata import CompressionType, SerializationFormat
from fedpost.compression import Compression
from fedpost.errors import ConfigError, RegistryError
from fedpost.pipeline import Pipeline
from fedpost.tensors import FORMATS

__all__ = [
    "FORMAT_NAMES",
    "NOT_BUILT",
    "CommunicationSettings",
    "KafkaSettings",
    "KafkaTopics",
    "PerformanceSettings",
    "PrivacySettings",
    "SecuritySettings",
    "SerializationSettings",
    "Settings",
    "serialization_settings",
]

FORMAT_NAMES: Final = {
    SerializationFormat.BINARY_CUSTOM: "fedwt",
    SerializationFormat.NUMPY_PICKLE: "numpy",
    SerializationFormat.PROTOBUF: "protobuf",
    SerializationFormat.MSGPACK: "msgpack",
    SerializationFormat.JSON_BASE64: "json_base64",
}
"""The registered name of each format."""

NOT_BUILT: Final = {
    "serialization.enable_encryption": "sealing",
    "security.encryption_enabled": "sealing",
    "privacy.differential_privacy_enabled": "differential privacy",
}
"""What settings can ask for and this version does not have, by dotted key."""

_MAX_SECONDS: Final = 1e9
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=_MAX_SECONDS)]
_Finite = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
_Topic = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,249}\Z")]
_Server = Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}\Z")]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the settings."""


class SerializationSettings(_Part, frozen=True, kw_only=True):
    """How packages are made and read.

    Attributes:
        default_format: How arrays are laid out.
        default_compression: How bytes are compressed.
        checksum_algorithm: The digest of a package's data: ``sha256``, ``blake3``, ``xxh3`` or ``crc32c``.
        enable_encryption: Not in this version: True is refused.
        compression_level: The library's own scale; without it the compression's own default (``zstd`` 3).
        chunk_size: Bytes of a part, its header included, when a package is cut for a channel that takes no more.
        enable_chunking: Whether packages are cut at all.
        validate_on_serialize: Read the finished package's header and tables, and compare them with what was given.
        validate_on_deserialize: Compare what was decoded with what the metadata say.
    """

    default_format: SerializationFormat = SerializationFormat.BINARY_CUSTOM
    default_compression: CompressionType = CompressionType.ZSTD
    checksum_algorithm: str = "sha256"
    enable_encryption: bool = False
    compression_level: int | None = None
    chunk_size: Annotated[int, msgspec.Meta(ge=4096, le=1 << 30)] = 1 << 20
    enable_chunking: bool = True
    validate_on_serialize: bool = True
    validate_on_deserialize: bool = True

    def pipeline(self) -> Pipeline:
        """How fedpost encodes a package.

        Raises:
            ConfigError: No such checksum, or the compression has no such level.
            MissingExtraError: The format needs an extra that is not installed.
        """
        name = self.default_compression.value
        level = "" if self.compression_level is None or name == "none" else f"({self.compression_level})"
        try:
            compression = Compression.parse(name + level)
        except ConfigError as error:
            raise ConfigError(error.what, where="compression_level", hint=error.hint) from error
        try:
            if not CHECKSUMS.get(self.checksum_algorithm).size:
                raise ConfigError("a package needs a checksum", where="checksum_algorithm")
        except RegistryError as error:
            raise ConfigError(error.what, where="checksum_algorithm", hint=error.hint) from error
        layout = FORMATS.get(FORMAT_NAMES[self.default_format])
        return Pipeline(format=layout, compression=compression, checksum=self.checksum_algorithm)


class CommunicationSettings(_Part, frozen=True, kw_only=True):
    """How messages are sent; the first two are parsed here for the channel that sends them.

    Attributes:
        message_timeout: Milliseconds to wait for a message to be delivered.
        max_retries: How often a message is sent again.
        enable_differential_updates: Send only what changed: see :class:`DifferentialUpdateManager`.
        compression_threshold: The least change of a layer that is sent, relative to its norm.
    """

    message_timeout: _Count = 30_000
    max_retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    enable_differential_updates: bool = False
    compression_threshold: Annotated[float, msgspec.Meta(ge=0, le=1e12)] = 0.1


class SecuritySettings(_Part, frozen=True, kw_only=True):
    """How packages are sealed.

    Attributes:
        encryption_enabled: Not in this version: True is refused.
        encryption_algorithm: ``fernet``.
        key_rotation_interval: Seconds after which a key is replaced.
    """

    encryption_enabled: bool = False
    encryption_algorithm: Literal["fernet"] = "fernet"
    key_rotation_interval: _Seconds = 86_400.0


class PrivacySettings(_Part, frozen=True, kw_only=True):
    """What an update may tell of the data.

    Attributes:
        differential_privacy_enabled: Not in this version: True is refused.
        privacy_budget: Epsilon.
        noise_mechanism: ``laplace`` or ``gaussian``.
    """

    differential_privacy_enabled: bool = False
    privacy_budget: _Finite = 1.0
    noise_mechanism: Literal["laplace", "gaussian"] = "laplace"


class KafkaTopics(_Part, frozen=True, kw_only=True):
    """Topics, by what is in them.

    Attributes:
        weight_updates: From clients to the server.
        aggregation_results: From the server to clients.
    """

    weight_updates: _Topic = "federated_weight_updates"
    aggregation_results: _Topic = "federated_aggregation_results"


class KafkaSettings(_Part, frozen=True, kw_only=True):
    """Where messages are sent.

    Attributes:
        bootstrap_servers: ``host:port``, at least one.
        topics: Which topics.
        max_message_size: The most bytes of a message that brokers and topics take: a part may not have more.
    """

    bootstrap_servers: Annotated[tuple[_Server, ...], msgspec.Meta(min_length=1)] = ("localhost:9092",)
    topics: KafkaTopics = KafkaTopics()
    max_message_size: Annotated[int, msgspec.Meta(ge=4096, le=(1 << 31) - 1)] = 10 << 20


class PerformanceSettings(_Part, frozen=True, kw_only=True):
    """What is measured, and how long things may take.

    Attributes:
        enable_profiling: Whether anything is measured.
        profiling_interval: After how many operations the profile is logged.
        max_serialization_time: Seconds that one package may take to make or read.
    """

    enable_profiling: bool = True
    profiling_interval: _Count = 100
    max_serialization_time: _Seconds = 30.0


class Settings(_Part, frozen=True, kw_only=True):
    """The whole template.

    Attributes:
        serialization: How packages are made and read.
        communication: How messages are sent.
        security: How packages are sealed.
        privacy: What an update may tell of the data.
        kafka: Where messages are sent.
        performance: What is measured, and how long things may take.
    """

    serialization: SerializationSettings = SerializationSettings()
    communication: CommunicationSettings = CommunicationSettings()
    security: SecuritySettings = SecuritySettings()
    privacy: PrivacySettings = PrivacySettings()
    kafka: KafkaSettings = KafkaSettings()
    performance: PerformanceSettings = PerformanceSettings()

    def not_built(self) -> dict[str, str]:
        """What is switched on and not in this version: dotted keys, and what each is."""
        on = (
            ("serialization.enable_encryption", self.serialization.enable_encryption),
            ("security.encryption_enabled", self.security.encryption_enabled),
            ("privacy.differential_privacy_enabled", self.privacy.differential_privacy_enabled),
        )
        return {key: NOT_BUILT[key] for key, enabled in on if enabled}

    def check(self, where: Callable[[str], str | None] = lambda path: path) -> None:
        """Refuse what cannot be had and hangs on somebody's privacy, and what contradicts itself.

        Args:
            where: The place of a dotted path, for errors.

        Raises:
            ConfigError: What is wrong, and where.
            MissingExtraError: The format needs an extra that is not installed.
        """
        for key, what in self.not_built().items():
            hint = "Switch it off, and send nothing that needs it."
            raise ConfigError(f"{what} is not available in this version", where=where(key), hint=hint)
        try:
            self.serialization.pipeline()
        except ConfigError as error:
            raise ConfigError(error.what, where=where(f"serialization.{error.where}"), hint=error.hint) from error
        size, most = self.serialization.chunk_size, self.kafka.max_message_size
        if self.serialization.enable_chunking and size > most:
            text, hint = (
                f"chunks of {size} bytes are more than a message may have",
                f"kafka.max_message_size is {most}.",
            )
            raise ConfigError(text, where=where("serialization.chunk_size"), hint=hint)


def serialization_settings(config: Mapping[str, object] | SerializationSettings | None) -> SerializationSettings:
    """The serializer's settings out of what it was given.

    Raises:
        ConfigError: An unknown key, or a wrong value.
    """
    if isinstance(config, SerializationSettings):
        return config
    return typed({} if config is None else config, SerializationSettings)
