"""Reads hostile frames, each in a process of its own with little memory to spare, and tells what came of it.

Standard input: JSON pairs of a label and a file. Standard output: a JSON object by label. A frame is read in full:
header, digests, tables, every segment and every tensor, also as text, since that is what a person looks at first.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

from fedpost.errors import RemoteError
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors

SPARE = 64 << 20
CPU_SECONDS = 5


def everything(data: bytes) -> str:
    frame = Frame.decode(data)
    for index in range(len(frame)):
        frame.segment(index)
    if "pipeline" in frame.section_names:
        source = decode_tensors(frame)
        for spec, array in zip(source.specs, source.arrays().values(), strict=True):
            repr(array)
            source.read(spec.name, 0, min(spec.size, 3))
    return "accepted"


def outcome(data: bytes) -> dict[str, object]:
    start = time.process_time()
    result: dict[str, object]
    try:
        result = {"error": everything(data), "classes": [], "text": ""}
    except BaseException as error:  # noqa: BLE001 - the class of whatever came is what is asked
        classes = [cls.__name__ for cls in type(error).__mro__]
        result = {"error": type(error).__name__, "classes": classes, "text": str(error)[:500]}
        result["where"] = getattr(error, "where", None) if isinstance(error, RemoteError) else None
    return {**result, "seconds": time.process_time() - start}


def confined(data: bytes) -> dict[str, object]:
    """The outcome in a fork that may map no more than a little beyond what it has."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(writing, json.dumps(outcome(data)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(answer) if answer else {"error": f"exit {status}", "classes": [], "text": "", "seconds": 0.0}


def main() -> None:
    warnings.simplefilter("error")
    # The first use of each path imports and allocates; it must not count against the first attack.
    outcome(b"")
    cases = json.load(sys.stdin)
    json.dump({label: confined(Path(path).read_bytes()) for label, path in cases}, sys.stdout)


if __name__ == "__main__":
    main()
