"""What is fuzzed: for each way in from outside a corpus to start from, a mutator that knows its structure, and a check.

Rules: a check lets out nothing but :class:`~fedpost.errors.RemoteError`, which it takes for a refusal, and what it
found: a :class:`FindingError`, or whatever else came. What is accepted must hold: it decodes in the same way by other
ways in, and encodes and decodes again to the same values, to the bit.
"""
# ruff: noqa: INP001 - scripts, not a package; acts and sizes of samples are plain numbers

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import file_structures
import large
import msgspec
import numpy as np
import objects_target
import structures
import updates
from codings import check_compressor, check_sparse_coding, chunk_mutator, chunks, sparse_mutator, sparse_seeds
from models import FILES, LIMITS, all_frames, check_file, check_frame, check_framed, files, framed, require
from mutation import WORDS, Bytewise, Mutator
from receiving import check_parts, part_seeds

from fedpost.compression import COMPRESSORS
from fedpost.errors import EncodeError, RemoteError
from fedpost.pipeline import Pipeline
from fedpost.protocol import decode_message
from fedpost.protocol import messages as said
from fedpost.protocol.negotiation import Offer
from fedpost.report.inspection import describe
from fedpost.tensors.dtypes import dtype_from_name, dtype_name

OFFER = Offer(frame=1, updates=["dense"], formats=["fedwt"], compressions=["zstd"], checksums=["blake3"])


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes:
        seeds: Inputs to start from.
        check: Takes an input; whether it was accepted.
        mutator: Makes inputs of others.
        largest: Bytes of an input.
        growth: Bytes of memory that one input may take.
        seconds: Time of the processor that one input may take.
    """

    seeds: Callable[[], Iterator[bytes]]
    check: Callable[[bytes], bool]
    mutator: Callable[[Bytewise], Mutator]
    largest: int = 1 << 16
    growth: int = 32 << 20  # nothing that is let in is larger than 2 MiB
    seconds: float = 1.0


def check_inspection(data: bytes) -> bool:
    """A file that a person looks at, also as JSON."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            found = describe(Path(file.name), verify=bool(len(data) % 2), limits=LIMITS)
        except RemoteError:
            return False
        msgspec.json.encode(found, enc_hook=str)
        return True


def check_message(data: bytes) -> bool:
    """What a peer says."""
    try:
        message = decode_message(memoryview(data), limits=LIMITS)
        again = decode_message(memoryview(bytes(said.address_message(message.envelope, message.body))), limits=LIMITS)
        require(repr((again.envelope, again.body)) == repr((message.envelope, message.body)), "said again")
        if "pipeline" in message.frame.section_names:
            message.tensors(limits=LIMITS).arrays()
    except RemoteError:
        return False
    return True


def message_seeds() -> Iterator[bytes]:
    """A message of every type."""
    tensors = Pipeline.parse("cast(bfloat16) | fedwt | none").encode({"w": np.ones(3, np.float32)})
    bodies: list[said.Body] = [
        said.Registration(address="site-1", session="s", offer=OFFER),
        said.RegistrationReply(session="s", reason="full"),
        said.TrainingCommand(config={"epochs": 1, "rate": 0.1, "name": "é", "key": b"\0", "on": True}),
        said.WeightUpdate(num_examples=7, metrics={"loss": 0.5}, seconds={"train": 1.5}),
        said.EvaluationCommand(),
        said.EvaluationResult(loss=0.5, num_examples=3),
        said.AggregationResult(metrics={"accuracy": 0.9}),
        said.StatusUpdate(state="ready"),
        said.HealthCheck(),
        said.ErrorReport(reason="no data"),
        said.RunEnd(status="finished"),
    ]
    for body in bodies:
        envelope = said.Envelope.new(said.type_of(body), sender="site-1", recipient="server", run="r", lifetime=60)
        yield bytes(said.address_message(envelope, body, tensors if hasattr(body, "metrics") else None))


def check_type(data: bytes) -> bool:
    """The name of an element type."""
    try:
        dtype = dtype_from_name(data.decode("utf-8", "replace"))
        np.zeros(2, dtype) if dtype.itemsize < 1 << 16 else None
        name = dtype_name(dtype)
    except (RemoteError, EncodeError):
        return False
    require(dtype_from_name(name) == dtype, "another type")
    return True


TARGETS: dict[str, Target] = {
    "frame": Target(all_frames, check_frame, structures.frames),
    **{
        f"file_{name}": Target(lambda name=name: files(name), check_file(name), file_structures.FILES[name])
        for name in FILES
    },
    **{
        f"framed_{name}": Target(lambda name=name: framed(name), check_framed, structures.frames)
        for name in ("fedwt", "numpy", *FILES)
    },
    **{f"chunk_{name}": Target(chunks(name), check_compressor(name), chunk_mutator(name)) for name in COMPRESSORS},
    "sparse": Target(sparse_seeds, check_sparse_coding, sparse_mutator),
    "parts": Target(part_seeds, check_parts, structures.parts),
    "inspection": Target(all_frames, check_inspection, structures.frames),
    "message": Target(message_seeds, check_message, structures.frames),
    "updates": Target(updates.seeds, updates.check, structures.frames),
    "objects": Target(objects_target.seeds, objects_target.check, objects_target.mutator),
    "fobs": Target(objects_target.fobs_seeds, objects_target.check_fobs, objects_target.mutator),
    "large": Target(large.seeds, large.check, large.mutator, large.LARGEST, large.GROWTH, large.SECONDS),
    "types": Target(lambda: (word.encode() for word in WORDS), check_type, file_structures.text),
}
