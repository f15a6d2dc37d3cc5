"""What the documentation says besides Python: commands, configurations, links, and the tutorial from end to end."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedpost.cli import main
from fedpost.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MINIMAL = {"name": "x", "app": "app.py:app", "sites": 2, "rounds": 1}


def blocks(language: str) -> list[pytest.param]:
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, (found, text) in enumerate(BLOCK.findall(page.read_text()))
        if found == language
    ]


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_exist(text: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "make":
            assert set(words[1:]) <= targets, line
        elif words[:2] == ["pip", "install"]:
            assert set(re.findall(r"\[(\w+)\]", line)) <= extras, line
        elif words[0] == "sudo" or words[0] == "apt-get":
            continue
        else:
            assert words[0] == "fedpost", line
            command = main.commands[words[1]]
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words[2:] if word.startswith("--")} <= options, line


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configurations_load(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(MINIMAL | yaml.safe_load(text)))
    load_config(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_key_is_documented() -> None:
    from fedpost.config import RunConfig

    text = (ROOT / "docs/configuration.md").read_text()
    missing = [key for key in RunConfig.__struct_fields__ if f"| `{key}` |" not in text]
    assert not missing


def test_every_page_is_in_the_navigation() -> None:
    def pages(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [page for inner in (node.values() if isinstance(node, dict) else node) for page in pages(inner)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_the_commands_of_convert_can_be_typed_from_top_to_bottom(tmp_path: Path) -> None:
    import numpy as np

    import fedpost

    found = BLOCK.findall((ROOT / "docs/howto/convert.md").read_text())
    commands = "\n".join(text for language, text in found if language == "sh")
    assert len(commands.splitlines()) > 8
    script = f'set -e\nfedpost() {{ {sys.executable} -m fedpost "$@"; }}\n{commands}'
    fedpost.save_tensors(tmp_path / "model.fedwt", {"w": np.ones((3, 4), np.float32), "b": np.zeros(3)})
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (python,) = (text for language, text in found if language == "python")
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tutorial(tmp_path: Path) -> None:
    found = BLOCK.findall((ROOT / "docs/tutorial.md").read_text())
    python = [text for language, text in found if language == "python"]
    (tmp_path / "app.py").write_text("\n".join(python[:2]))
    (tmp_path / "run.yaml").write_text(next(text for language, text in found if language == "yaml"))
    command = [sys.executable, "-m", "fedpost", "run", "run.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rounds"][-1]["metrics"]["accuracy"] > 0.95
    left = {path.name for path in (tmp_path / result["folder"]).iterdir()}
    assert {"model.fedwt", "ledger.jsonl", "report.html", "logs"} <= left
