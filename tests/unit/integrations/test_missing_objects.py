"""Objects of libraries that are not installed: the error names the type and says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{package!r}] = None  # as if it were not installed
import fedpost
from fedpost.errors import UnsupportedError
from fedpost.objects import Serializer, TypeRegistry

class Thing:
    pass

pen = TypeRegistry()
pen.add(Serializer(cls=Thing, name={name!r}, take=lambda value: None, make=repr))
try:
    fedpost.loads(fedpost.dumps(Thing(), registry=pen))
except UnsupportedError as error:
    print(error)
"""
MISSING = {
    "torch": ("torch.Tensor", "fedpost[torch]"),
    "jax": ("jax.Array", "fedpost[jax]"),
    "scipy": ("scipy.sparse.csr_array", "scipy"),
    "pandas": ("pandas.DataFrame", "pandas"),
    "pyarrow": ("pyarrow.Table", "pyarrow"),
}


@pytest.mark.parametrize("package", MISSING)
def test_a_missing_library_is_named(package):
    name, install = MISSING[package]
    script = SCRIPT.format(package=package, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=280)
    assert f"the type {name!r} cannot be read" in done.stdout
    assert f"pip install '{install}'" in done.stdout or f"pip install {install}" in done.stdout
