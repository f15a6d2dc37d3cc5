"""The generator and the second readers, which are scripts and not packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vectors_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    return load("generate")


@pytest.fixture(scope="session")
def reader() -> ModuleType:
    return load("reader")


@pytest.fixture(scope="session")
def formats_reader() -> ModuleType:
    return load("formats_reader")


@pytest.fixture(scope="session")
def parts_reader() -> ModuleType:
    return load("parts_reader")


@pytest.fixture(scope="session")
def updates_reader() -> ModuleType:
    return load("updates_reader")


@pytest.fixture(scope="session")
def read_frame(reader: ModuleType, formats_reader: ModuleType, updates_reader: ModuleType) -> Callable[..., Any]:
    """Any frame's sections and tensors by the second readers, an update's with the frame of its base."""

    def read(data: bytes, base: bytes | None = None) -> Any:
        def undo(update: str, notes: dict[str, Any], sent: dict[str, Any]) -> Any:
            assert base is not None
            return updates_reader.undo(update, notes, sent, *reader.read_frame(base))

        return reader.read_frame(data, formats_reader.read_section, undo)

    return read
