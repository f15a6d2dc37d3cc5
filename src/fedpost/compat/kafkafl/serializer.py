"""``AdvancedSerializer``: values to packages and back, by a configuration of which every key counts.

Rules: the work is done by fedpost's layers; a package is a frame. What is slow is stopped between its stages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import msgspec

from fedpost.compat.kafkafl.errors import SerializationError, serialization_errors
from fedpost.compat.kafkafl.metadata import SerializationFormat, SerializationMetadata, split
from fedpost.compat.kafkafl.operations import Operation, operation
from fedpost.compat.kafkafl.package import (
    SECTION,
    PackageHeader,
    PackageInfo,
    SpecTable,
    checksum_of,
    data_sizes,
    read_info,
)
from fedpost.compat.kafkafl.packing import MODELS, arrays_of, encode, is_of_arrays
from fedpost.compat.kafkafl.profiler import SerializationProfiler
from fedpost.compat.kafkafl.settings import SerializationSettings, Settings, serialization_settings
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits, Parts
from fedpost.objects import REGISTRY, TypeRegistry, from_frame
from fedpost.pipeline import METADATA, decode_tensors
from fedpost.telemetry import NO_TELEMETRY, Telemetry
from fedpost.tensors import Array

__all__ = ["AdvancedSerializer"]

Package = bytes | bytearray | memoryview | Frame
_PART_HEADER: Final = 88  # bytes; docs/spec/parts.md
_SPARE: Final = 8192  # more than a part's header, and than what is lost to whole pages


class AdvancedSerializer:
    """Makes packages of model weights, gradients, metadata and other values, and reads them.

    A package is a fedpost frame: ``fedpost inspect`` shows it, and any fedpost reads its arrays. Its digests cover
    header, metadata and data. Arrays come back exactly, NaN and −0.0 included, as read-only views where the
    package is not compressed; what holds them comes back as what it was: a list, a tuple, a dictionary, ….

    Args:
        config: The configuration: any of the keys of :class:`SerializationSettings`, enumerations as members or as
            values; or the settings themselves; or the whole template's :class:`Settings`, of which ``kafka`` and
            ``performance`` count as well.
        max_serialization_time: Seconds that one package may take to make or read; without it the template's. It is
            checked between the stages (encode, join, validate; verify, decode, validate), so an operation that is too
            slow ends with the stage.
        telemetry: Told of every operation: the events ``serialization`` and ``deserialization`` with ``seconds``,
            ``raw`` and ``stored`` bytes, and ``failed``; :class:`SerializationProfiler` adds them up.
        limits: What is taken of a package.
        registry: Which types other than the standard ones may be in data that are no model.

    Attributes:
        settings: How packages are made and read.
        profiler: What measures the operations, when the whole template was given and asks for it; else None.

    Raises:
        ConfigError: An unknown key, a wrong value, a level that the compression has not, or encryption: not there yet.
        MissingExtraError: The format needs an extra that is not installed.
    """

    def __init__(
        self,
        config: Mapping[str, object] | SerializationSettings | Settings | None = None,
        *,
        max_serialization_time: float | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
        limits: Limits = DEFAULT_LIMITS,
        registry: TypeRegistry = REGISTRY,
    ) -> None:
        whole: Settings | None = None
        if isinstance(config, Settings):
            config.check()
            whole, config = config, config.serialization
        self.settings: Final = serialization_settings(config)
        if self.settings.enable_encryption:
            hint = "Set it to False."
            raise ConfigError("sealing is not available in this version", where="enable_encryption", hint=hint)
        if max_serialization_time is not None and not max_serialization_time > 0:
            raise ConfigError("not a time", where="max_serialization_time")
        self._pipeline = self.settings.pipeline()
        self.profiler: Final = _profiler(whole, telemetry)
        if self.profiler is not None and self.profiler not in telemetry.sinks:
            telemetry = Telemetry(*telemetry.sinks, self.profiler, round=telemetry.round, site=telemetry.site)
        self._allowed = max_serialization_time
        if whole is not None and max_serialization_time is None:
            self._allowed = whole.performance.max_serialization_time
        self._most = None if whole is None else whole.kafka.max_message_size
        self._telemetry = telemetry
        self._limits = limits
        self._registry = registry

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings by key; they cannot be changed."""
        return MappingProxyType(msgspec.structs.asdict(self.settings))

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def serialize_comprehensive(
        self, data: Any, data_type: str = "model_weights", metadata: Mapping[str, Any] | None = None
    ) -> tuple[bytes, SerializationMetadata]:
        """Make a package.

        Args:
            data: For ``model_weights`` and ``gradients`` a list or tuple of arrays, or a dictionary of them by name.
                For every other type also any object that :mod:`fedpost.objects` knows; the format is for arrays, and
                such an object is fedpost's own whatever the format, compressed and checked like the rest. So are
                models in other containers, such as an ordered dictionary, or with scalars among the arrays.
            data_type: ``model_weights``, ``gradients``, ``metadata``, ``aggregation_result``, the value of a message
                type (``weight_update`` is model weights), or any other text.
            metadata: ``model_version``, ``client_id`` and ``round_number`` become fields of the metadata. The rest is
                kept in the header; see :meth:`inspect`. Scalars of NumPy's are kept as Python's, a version that is a
                number as its text.

        Returns:
            The package and its metadata.

        Raises:
            SerializationError: The data cannot be serialized, or it takes too long.
        """
        _, found, package = self._serialize(data, data_type, metadata, join=True)
        return package, found

    def serialize_frame(
        self, data: Any, data_type: str = "model_weights", metadata: Mapping[str, Any] | None = None
    ) -> tuple[Frame, SerializationMetadata]:
        """Make a package without joining it: the frame refers to the arrays, which must not change while it lives.

        Raises:
            SerializationError: As :meth:`serialize_comprehensive`.
        """
        return self._serialize(data, data_type, metadata, join=False)[:2]

    def iter_parts(self, package: Package) -> Parts:
        """A package in parts of at most ``chunk_size`` bytes each, for a channel that takes no larger messages.

        :class:`~fedpost.frame.PartAssembler` puts them together, in any order, also after a restart. With
        ``enable_chunking`` off there is one part, however large: if the whole template was given, up to its
        ``max_message_size``.

        Raises:
            SerializationError: The package is damaged, or its one part is more than a message may have.
        """
        with serialization_errors():
            frame, settings = self._decode(package), self.settings
            if settings.enable_chunking:
                return frame.parts(settings.chunk_size)
            size = frame.nbytes + _PART_HEADER
            if self._most is not None and size > self._most:
                text, hint = f"{size} bytes are more than the {self._most} of a message", "Set enable_chunking to True."
                raise EncodeError(text, where="kafka.max_message_size", hint=hint)
            return frame.parts(frame.nbytes + _SPARE)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def deserialize_comprehensive(self, serialized_package: Package) -> tuple[Any, SerializationMetadata]:
        """Read a package, whoever configured its sender how; nothing in it is run.

        Args:
            serialized_package: The package, or a frame of its parts. Arrays may be views of it.

        Returns:
            The data and the metadata.

        Raises:
            SerializationError: It is damaged (also an :class:`~fedpost.errors.IntegrityError`), over the limits (also
                a :class:`~fedpost.errors.LimitError`), contradicts itself, or takes too long.
        """
        with self.measured("deserialization") as current:
            frame = self._decode(serialized_package)
            current.ended("verifying", frame)
            header, _ = read_info(frame, self._limits)
            if self.settings.validate_on_deserialize:
                header.check(frame)
            if header.container == "object":
                data = from_frame(frame, registry=self._registry, limits=self._limits)
                if header.data_type in MODELS and not is_of_arrays(data):
                    raise DecodeError(f"its data type is {header.data_type!r}, the data are no model")
            else:
                tensors = decode_tensors(frame, limits=self._limits)
                if self.settings.validate_on_deserialize:
                    header.check_specs(tensors.specs)
                current.ended("validating", frame)
                data = arrays_of(tensors, header.container)
            current.ended("decoding", frame)
            return data, header.metadata()

    def inspect(self, package: Package) -> PackageInfo:
        """What a package says of itself; nothing of its data is decompressed, decoded or verified.

        Raises:
            SerializationError: Its header is damaged, or it is no package.
        """
        with serialization_errors():
            frame = self._decode(package, verify=False)
            header, extra = read_info(frame, self._limits)
            table = header.specs
            if table is None and header.container != "object":
                specs = decode_tensors(frame, limits=self._limits).specs
                table = SpecTable.of([spec.name for spec in specs], specs)
            return PackageInfo(header.metadata(), extra, () if table is None else tuple(table.rows()))

    def measured(self, name: str) -> AbstractContextManager[Operation]:
        """Time an operation as this serializer's own: it may take as long, and the same telemetry is told of it."""
        return operation(name, self._allowed, self._telemetry)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _serialize(
        self, data: Any, data_type: str, metadata: Mapping[str, Any] | None, *, join: bool
    ) -> tuple[Frame, SerializationMetadata, bytes]:
        with self.measured("serialization") as current:
            kind = data_type.value if isinstance(data_type, Enum) else data_type
            plain, container, arrays = encode(data, kind, self._pipeline, self._registry)
            current.ended("encoding", plain)
            own, extra = split(metadata)
            sizes = data_sizes(plain)
            found = SerializationMetadata(
                self.settings.default_format,
                self.settings.default_compression,
                checksum_of(plain),
                *sizes,
                time.time(),
                data_type=kind,
                **own,
            )
            # The native format's own table stands in the header; a second one would only make it longer.
            native = found.format is SerializationFormat.BINARY_CUSTOM
            table = None if native or container == "object" else SpecTable.of(arrays, arrays.values())
            header = PackageHeader.of(found, container, table)
            frame = plain.with_sections({SECTION: header, **({METADATA: extra} if extra else {})})
            package = bytes(frame) if join else b""
            current.ended("joining", frame)
            if self.settings.validate_on_serialize:
                self._validate(package if join else frame, found, arrays)
                current.ended("validating", frame)
            return frame, found, package

    def _validate(self, package: Package, metadata: SerializationMetadata, arrays: Mapping[str, Array]) -> None:
        """Read the header and the tables back, as a receiver would, without decoding the data again."""
        try:
            frame = self._decode(package, verify=False)
            header, _ = read_info(frame, self._limits)
            header.check(frame)
            same = header.metadata() == metadata
            if header.specs is not None:
                same = same and header.specs == SpecTable.of(arrays, arrays.values())
            elif header.container != "object":
                specs = decode_tensors(frame, limits=self._limits).specs
                # By column: what is made here for each of many small tensors is most of what this costs.
                same = same and [spec.name for spec in specs] == list(arrays)
                same = same and [spec.shape for spec in specs] == [array.shape for array in arrays.values()]
                same = same and [spec.dtype for spec in specs] == [array.dtype for array in arrays.values()]
        except DecodeError as error:
            raise EncodeError(f"the package cannot be read back: {error.what}", where=error.where) from error
        if not same:
            raise EncodeError("the package says something else than what was given")

    def _decode(self, package: Package, *, verify: bool = True) -> Frame:
        if isinstance(package, Frame):
            if verify:
                package.verify()
            return package
        if not isinstance(package, bytes | bytearray | memoryview):
            raise SerializationError(f"a package is bytes, not {type(package).__name__}")
        return Frame.decode(package, limits=self._limits, verify="eager" if verify else "never")


def _profiler(settings: Settings | None, telemetry: Telemetry) -> SerializationProfiler | None:
    """What measures operations as the settings say: one that is there already, or a new one."""
    if settings is None or not settings.performance.enable_profiling:
        return None
    own = (sink for sink in telemetry.sinks if isinstance(sink, SerializationProfiler))
    return next(own, None) or SerializationProfiler(settings.performance)
