"""``fedpost diff``: how two models differ, as ``diff`` tells it: exit code 0 equal, 1 different, 2 trouble."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from fedpost.cli.errors import USAGE_EXIT, as_json_text, errors
from fedpost.cli.signals import terminable
from fedpost.cli.tables import Column, print_table
from fedpost.conversion import KINDS, kind_of, open_model
from fedpost.report.difference import ModelDifference, TensorDifference, compare
from fedpost.report.units import plain

__all__ = ["diff_command"]

_DIFFERENT_EXIT: Final = 1
_COLUMNS: Final = (
    Column("tensor", number=False),
    Column("dtype", number=False, rank=2),
    Column("shape", number=False, rank=1),
    Column("relative"),
    Column("max abs"),
    Column("RMS", rank=3),
    Column("elements"),
    Column("NaN"),
)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("diff")
@click.argument("first", metavar="A", type=_file)
@click.argument("second", metavar="B", type=_file)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Call a tensor equal up to this relative difference (L2); without it, bits must be equal.",
)
@click.option("--all", "show_all", is_flag=True, help="Show equal tensors too.")
@click.option("--from", "kind", type=click.Choice(KINDS), help="What A and B are, if their content does not tell.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, equal tensors only with --all.")
def diff_command(
    first: Path, second: Path, tolerance: float | None, show_all: bool, kind: str | None, as_json: bool
) -> None:
    """Show how the tensors of B differ from those of A; files of any kind that fedpost convert reads.

    Exit code: 0 when they are equal within the tolerance, 1 when they differ, 2 when a file cannot be read.

    \b
    Examples:
      fedpost diff before.fedwt after.fedwt
      fedpost diff model.fedwt model.safetensors --tolerance 1e-3
      fedpost diff --all --json a.npz b.npz
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json, exit_code=USAGE_EXIT), terminable():
        one = open_model(first, kind=kind_of(first) or kind)
        other = open_model(second, kind=kind_of(second) or kind)
        found = compare(one, other, tolerance=tolerance)
    shown = found.tensors if show_all else found.differing
    if as_json:
        listed = {key: getattr(found, key) for key in ("equal", "only_in_first", "only_in_second", "mismatches")}
        counts = {"tolerance": tolerance, "compared": len(found.tensors), "differing": len(found.differing)}
        click.echo(as_json_text({**listed, **counts, "tensors": shown}))
    else:
        _show(found, shown)
    if not found.equal:
        sys.exit(_DIFFERENT_EXIT)


def _show(found: ModelDifference, shown: list[TensorDifference]) -> None:
    console = Console()
    for mark, names in (("only in A", found.only_in_first), ("only in B", found.only_in_second)):
        for name in names:
            console.print(Text.assemble((f"{mark}: ", "bold"), plain(name)), soft_wrap=True)
    for one in found.mismatches:
        sides = " and ".join(f"{kind} {_shape(shape)}" for kind, shape in zip(one.dtypes, one.shapes, strict=True))
        console.print(Text.assemble((f"{plain(one.name)}: ", "bold"), sides), soft_wrap=True)
    if shown:
        print_table(_COLUMNS, [(one.name, one.dtype, _shape(one.shape), *_numbers(one)) for one in shown])
    if found.equal:
        how = "bit for bit" if all(tensor.equal_bits for tensor in found.tensors) else "within the tolerance"
        console.print(f"{len(found.tensors)} tensors, equal {how}")
    else:
        apart = len(found.differing) + len(found.mismatches)
        console.print(f"{apart} of {len(found.tensors) + len(found.mismatches)} common tensors differ")


def _numbers(tensor: TensorDifference) -> tuple[str, ...]:
    if tensor.equal_bits:
        return ("equal", "", "", "", "")
    relative = "" if tensor.max_abs is None else f"{tensor.relative:.3g}"
    greatest = "" if tensor.max_abs is None else _number(tensor.max_abs)
    rms = "" if tensor.rms is None else f"{tensor.rms:.3g}"
    elements = f"{tensor.differing:,}" if tensor.differing else "bits only"
    return (relative, greatest, rms, elements, f"{tensor.nan_mismatches:,}" if tensor.nan_mismatches else "")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
