"""``fedpost inspect`` of objects: a tree, without any type known."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from fedpost.objects import Serializer, dump, new_registry


class Secret:
    """What the reader does not know."""


@pytest.fixture
def path(tmp_path):
    registry = new_registry()
    registry.add(Serializer(cls=Secret, name="site.Secret", version=2, take=lambda _: {"k": (1, 2)}, make=repr))
    shared = np.zeros((2, 3000))
    value = {
        "weights": [shared, shared],
        "secret": Secret(),
        "\x1b[31mred": "\u202eback \x1b[2J",
        7: {"deep": {"deeper": ["deepest"]}},
    }
    out = tmp_path / "object.frame"
    dump(value, out, registry=registry)
    return out


def test_the_tree_is_shown(fedpost, path):
    output = fedpost("inspect", path).output
    for shown in ("site.Secret v2", "array float64 2×3000", ".deeper list", "'deepest'", "blake3", "object"):
        assert shown in output
    assert output.count("2×3000 #") == 2
    assert "\x1b" not in output
    assert "\u202e" not in output


def test_depth_cuts_it(fedpost, path):
    output = fedpost("inspect", "--depth", "1", path).output
    assert "site.Secret v2" in output
    assert "deepest" not in output
    assert "… 1 more" in output
    assert fedpost("inspect", "--depth", "65", path).exit_code == 2


def test_json_has_the_nodes(fedpost, path):
    found = json.loads(fedpost("inspect", "--json", path).output)
    assert found["types"] == ["site.Secret v2"]
    assert [child["type"] for child in found["object"]["children"]] == ["list", "site.Secret v2", "str", "dict"]
    flat = json.loads(fedpost("inspect", "--json", "--depth", "0", path).output)["object"]
    assert flat["more"] == 4
    assert flat["size"] == found["object"]["size"]


def test_libraries_of_the_types_are_not_imported(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fedpost[torch]'")
    path = tmp_path / "tensors.frame"
    dump({"w": torch.ones(3)}, path)
    script = f"import sys; sys.modules['torch'] = None; from fedpost.cli import main; main(['inspect', {str(path)!r}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=280)
    assert "torch.Tensor v1" in done.stdout
