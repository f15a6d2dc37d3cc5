"""``DifferentialUpdateManager``: the layers of a model that changed, to somebody who has the rest.

Rules: what the other side has is what it acknowledged, and of layers that were not sent what it had before; so nothing
drifts, and a small change is sent once it has added up. A layer that is sent arrives to the bit with ``delta``, and as
the codec's law says with another. An update names the model that it changes and the one that comes out by their
digests: a receiver that has another refuses it. Every update has a number: one that comes after a newer one was applied
is refused, as a broker may deliver late and twice.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from fedpost.codecs import Base, parse_codec
from fedpost.compat.kafkafl.errors import serialization_errors
from fedpost.compat.kafkafl.package import read_info
from fedpost.compat.kafkafl.packing import is_model
from fedpost.compat.kafkafl.references import Reference, length
from fedpost.compat.kafkafl.serializer import AdvancedSerializer
from fedpost.compat.kafkafl.settings import Settings
from fedpost.compression import Compression
from fedpost.errors import ConfigError, DecodeError, EncodeError, IntegrityError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import decode_tensors
from fedpost.tensors import Array
from fedpost.tensors.dtypes import is_integer, is_number

__all__ = ["DifferentialUpdateManager"]

_SECTION: Final = "differential"
_KIND: Final = "weight_update"
_WHERE: Final = f"section {_SECTION!r}"
_NUMBER: Final = "update_number"
"""Where a whole update's metadata have its number."""


class _Update(msgspec.Struct, frozen=True):
    """The section ``differential``.

    Attributes:
        client_id: Whose update it is, by its own account.
        result: The digest of the model that comes out.
        number: Greater than that of every update that the sender made before.
    """

    client_id: Annotated[str, msgspec.Meta(max_length=1024)]
    result: bytes
    number: Annotated[int, msgspec.Meta(ge=0)]


class DifferentialUpdateManager:
    """Makes updates of what changed, and applies them; one manager on each side, one thread at a time.

    Args:
        settings: The whole template: ``communication.enable_differential_updates`` (off, every update is whole) and
            ``communication.compression_threshold`` count, and how packages are made. Without it updates are
            differential, and compressed with ``lx``.
        codec: How a layer's change is coded: ``delta``, which is lossless, or another update codec that has a base,
            such as ``uq(2)``.
        limits: What is taken of an update.

    Attributes:
        compression_threshold: A layer is sent where the norm of its change is more than this share of the norm of
            what the other side has; one of no floating-point numbers where any bit changed.

    Raises:
        ConfigError: A setting is wrong, or the codec has no base.
    """

    def __init__(
        self, settings: Settings | None = None, *, codec: str = "delta", limits: Limits = DEFAULT_LIMITS
    ) -> None:
        communication = (settings or Settings()).communication
        self.compression_threshold: float = communication.compression_threshold
        self._enabled = settings is None or communication.enable_differential_updates
        self._serializer = AdvancedSerializer(settings, limits=limits)
        self._limits = limits
        update = parse_codec(codec)
        if not update.needs_base:
            raise ConfigError(f"the update codec {codec} is not relative to anything", hint="Take delta or uq(2).")
        self._pipeline = dataclasses.replace(self._serializer.settings.pipeline(), update=update)
        if settings is None:
            self._pipeline = dataclasses.replace(self._pipeline, compression=Compression.parse("lx"))
        self._references: dict[str, Reference] = {}
        # By the clock, so that a sender that was started again goes on above what it had.
        self._numbers = itertools.count(time.time_ns())
        self._newest: dict[str, int] = {}  # of each client's updates that were applied here

    @property
    def previous_weights(self) -> Mapping[str, list[Array]]:
        """What the other side has of each client's model, as far as it is known; read-only arrays."""
        known = {client: list(reference.arrays().values()) for client, reference in self._references.items()}
        return {client: arrays for client, arrays in known.items() if arrays}

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_differential_update(
        self, client_id: str, current_weights: Sequence[Array | np.generic]
    ) -> tuple[bytes, bool]:
        """Make an update out of what changed since the last one that was acknowledged.

        It is whole the first time, where the number of layers has changed, and where it is not known whether the last
        one arrived. Nothing counts as sent before :meth:`acknowledge`.

        Returns:
            The update, and whether it is differential; nothing and False where no layer changed enough.

        Raises:
            SerializationError: The weights are no arrays, or the codec cannot carry a value.
        """
        with serialization_errors():
            if not isinstance(client_id, str):
                raise EncodeError(f"a client's id is text, not {type(client_id).__name__}")
            # What a model of scalars is multiplied by makes NumPy's own scalars of them.
            weights: list[Any] = [np.asarray(w) if isinstance(w, np.generic) else w for w in current_weights]
            if not is_model(weights):
                raise EncodeError(f"{type(current_weights).__name__} is no list of arrays", where="current_weights")
        reference = self._references.setdefault(client_id, Reference())
        base = reference.usable
        if base is None or not self._enabled or len(base.tensors.specs) != len(weights):
            said = {"client_id": client_id, _NUMBER: next(self._numbers)}
            package, _ = self._serializer.serialize_comprehensive(weights, _KIND, said)
            reference.propose(_base({str(index): _kept(array) for index, array in enumerate(weights)}))
            return package, False
        old = base.tensors.arrays()
        changed = {
            name: array
            for name, array in zip(old, weights, strict=True)
            if _changed(array, old[name], self.compression_threshold)
        }
        if not changed:
            return b"", False
        with self._serializer.measured("serialization") as current:
            plain = self._pipeline.encode(changed, base=base)
            current.ended("encoding", plain)
            arrived = decode_tensors(plain, base=base).arrays()
            result = _base({**old, **{name: _kept(array, changed[name]) for name, array in arrived.items()}})
            frame = plain.with_sections({_SECTION: _Update(client_id, result.digest, next(self._numbers))})
            update = bytes(frame)
            current.ended("joining", frame)
        reference.propose(result)
        return update, True

    def acknowledge(self, client_id: str, digest: bytes | None = None) -> bool:
        """The receiver has the last update.

        Args:
            client_id: Whose.
            digest: What the receiver's :meth:`digest_of` is; without it the caller's word is taken.

        Returns:
            Whether it counts now: False where nothing waits for this, or the receiver has something else.
        """
        reference = self._references.get(client_id)
        return reference is not None and reference.acknowledge(digest)

    def reject(self, client_id: str) -> None:
        """The receiver does not have the last update, but still what it had before."""
        if reference := self._references.get(client_id):
            reference.reject()

    def forget(self, client_id: str) -> None:
        """Nobody knows what the receiver has: the next update is whole. A receiver takes any whole one after it."""
        self._references.pop(client_id, None)
        self._newest.pop(client_id, None)

    # ── receiving ────────────────────────────────────────────────────────────────────────────────────────────────────

    def apply_differential_update(self, client_id: str, update: bytes | bytearray | memoryview) -> list[Array]:
        """The model after an update; the same one twice does no harm.

        Args:
            client_id: Whose.
            update: What :meth:`create_differential_update` returned there; also nothing, for no change.

        Returns:
            Read-only arrays, and the sender's reference for its next update.

        Raises:
            SerializationError: It is damaged, another client's, relative to a model that is not here, or older than
                what was applied; nothing has changed then.
        """
        reference = self._references.get(client_id, Reference())
        if not len(update):
            with serialization_errors():
                if reference.held is None:
                    raise DecodeError("no change of a model that is not here", hint="Ask for a full model.")
                return list(reference.arrays().values())
        with serialization_errors():
            frame = Frame.decode(bytes(update), limits=self._limits, verify="never")
        read = self._changed if _SECTION in frame.section_names else self._whole
        arrays, number = read(client_id, reference, frame)
        reference.settle(_base(arrays))
        self._references[client_id] = reference
        if number is not None:
            self._newest[client_id] = max(number, self._newest.get(client_id, number))
        return list(reference.arrays().values())

    def digest_of(self, client_id: str) -> bytes | None:
        """The 16 bytes that the model is known by which is here; None where there is none."""
        reference = self._references.get(client_id)
        return None if reference is None or reference.held is None else reference.held.digest

    def _whole(self, client_id: str, _reference: Reference, package: Frame) -> tuple[dict[str, Array], int | None]:
        data, metadata = self._serializer.deserialize_comprehensive(package)
        with serialization_errors():
            if metadata.client_id != client_id or type(data) is not list or not is_model(data):
                raise DecodeError("it is no list of weights of this client's", where="section 'serialization'")
            number = read_info(package, self._limits)[1].get(_NUMBER)
            if number is not None and type(number) is not int:
                raise DecodeError("its number is none", where=f"metadata {_NUMBER!r}")
            self._check_newest(client_id, number)
        return {str(index): array for index, array in enumerate(data)}, number

    def _changed(self, client_id: str, reference: Reference, frame: Frame) -> tuple[dict[str, Array], int]:
        with self._serializer.measured("deserialization") as current:
            frame.verify()
            current.ended("verifying", frame)
            said = frame.section(_SECTION, _Update, limit=self._limits.max_section)
            if said.client_id != client_id:
                raise DecodeError("it is another client's", where=_WHERE)
            if reference.held is not None and reference.held.digest == said.result:
                return reference.arrays(), said.number  # it came twice
            self._check_newest(client_id, said.number)
            old = reference.arrays()
            new = decode_tensors(frame, limits=self._limits, base=reference.held).arrays()
            current.ended("decoding", frame)
            if not new.keys() <= old.keys():
                raise DecodeError("it changes layers that are not there", where=_WHERE)
            arrays = {**old, **new}
            if _base(arrays).digest != said.result:
                raise IntegrityError("what comes out is not what the sender has", where=_WHERE)
            return arrays, said.number

    def _check_newest(self, client_id: str, number: int | None) -> None:
        """Refuse what would lead back; without a number nobody can tell, once there are numbers."""
        newest = self._newest.get(client_id)
        if newest is not None and (number is None or number < newest):
            hint = "Drop it. If its sender's clock was set back since, forget the client here."
            raise DecodeError("it is older than the update that was applied last", hint=hint)


def _base(arrays: Mapping[str, Array]) -> Base:
    with serialization_errors():
        return Base.of(arrays)


def _kept(array: Array, given: Array | None = None) -> Array:
    """What stays as it is: a copy, but where the array shares no memory with the one that was given."""
    if given is not None and not np.may_share_memory(array, given):
        return array
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def _changed(new: Array, old: Array, threshold: float) -> bool:
    if (new.dtype, new.shape) != (old.dtype, old.shape):
        return True
    if is_integer(new.dtype) or not is_number(new.dtype):
        return new.tobytes() != old.tobytes()
    return not length(new, old) <= threshold * length(old)  # what is not a number has changed
