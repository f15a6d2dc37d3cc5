"""``fedpost inspect``: what a frame holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fedpost.cli.errors import as_json_text, errors
from fedpost.cli.tables import Column, print_table
from fedpost.frame import DEFAULT_LIMITS
from fedpost.objects.outline import DEEPEST, Node
from fedpost.report.inspection import FrameDescription, TensorDescription, describe
from fedpost.report.units import human_bytes, plain

__all__ = ["inspect_command"]

_COLUMNS: Final = (
    Column("tensor", number=False),
    Column("dtype", number=False, rank=1),
    Column("shape", number=False),
    Column("raw"),
    Column("stored"),
)


@click.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check every digest; without it only the header is read.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--depth", type=click.IntRange(0, DEEPEST), help="Levels of an object to show; without it all.")
def inspect_command(file: Path, verify: bool, as_json: bool, depth: int | None) -> None:
    """Show what a frame holds: tensors, dtypes, shapes, sizes, metadata, or an object as a tree.

    Nothing of an object is built, so its types need not be known here.

    \b
    Examples:
      fedpost inspect model.fedwt
      fedpost inspect --verify --json model.fedwt
      fedpost inspect --depth 2 task.frame
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json):
        found = describe(file, verify=verify, limits=DEFAULT_LIMITS, depth=depth)
    if as_json:
        click.echo(as_json_text(found))
        return
    facts = Table.grid(padding=(0, 2))
    rows = {
        "file": found.path,
        "size": human_bytes(found.bytes),
        "digest": f"{found.digest}  ({'every segment verified' if found.verified else 'header verified'})",
        "checksum": found.checksum,
        **_content(found),
        **{f"metadata {key}": str(value) for key, value in found.metadata.items()},
        **{
            f"{part} {key}": str(value)
            for part, values in (found.message or {}).items()
            for key, value in values.items()
        },
    }
    for key, value in rows.items():
        facts.add_row(Text(plain(key), style="bold"), Text(plain(value)))
    console = Console()
    console.print(facts)
    if found.tensors:
        console.print()
        print_table(_COLUMNS, [_row(tensor) for tensor in found.tensors])
    if found.object is not None:
        console.print()
        console.print(_tree(found.object), no_wrap=True, overflow="ellipsis")


def _content(found: FrameDescription) -> dict[str, str]:
    if found.object is not None:
        types = {"types": ", ".join(found.types)} if found.types else {}
        return {
            "object": f"{found.object.type} in {found.segments} segments, {human_bytes(found.object.size)}",
            **types,
        }
    ratio = f"  ({found.raw / found.stored:.2f}x)" if found.stored else ""
    tensors = f"{len(found.tensors)} in {found.segments} segments, {human_bytes(found.raw)}{ratio}"
    return {"pipeline": found.pipeline or "no tensors", "tensors": tensors}


def _row(tensor: TensorDescription) -> list[str]:
    shape = "×".join(map(str, tensor.shape)) or "scalar"
    return [tensor.name, tensor.dtype, shape, human_bytes(tensor.raw), human_bytes(tensor.stored)]


def _tree(node: Node, above: Tree | None = None) -> Tree:
    """A node as a branch of the tree above it, or the whole tree."""
    line = Text()
    line.append(plain(node.key), style="bold")
    line.append(" " if node.key else "")
    line.append(plain(node.type), style="cyan")
    if node.value is not None:
        line.append(f" {plain(node.value)}")
    if node.shared is not None:
        line.append(f" #{node.shared}", style="magenta")
    line.append(f"  {human_bytes(node.size)}", style="dim")
    branch = Tree(line) if above is None else above.add(line)
    for child in node.children:
        _tree(child, branch)
    if node.more:
        branch.add(Text(f"… {node.more} more", style="dim"))
    return branch
