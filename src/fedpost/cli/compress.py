"""``fedpost compress``: what update codecs make of a model of one's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.console import Console
from rich.text import Text

from fedpost.cli.errors import as_json_text, errors
from fedpost.cli.progress import progress
from fedpost.cli.signals import terminable
from fedpost.cli.tables import Column, print_table
from fedpost.codecs import Base
from fedpost.conversion import KINDS, ModelFile, kind_of, open_model
from fedpost.conversion.opening import named
from fedpost.errors import ConfigError, EncodeError
from fedpost.files import replace_file
from fedpost.pipeline import METADATA, Pipeline
from fedpost.report.plotting import check_plot, write_plot
from fedpost.report.trial import TensorTrial, Trial, changes_of, strangers, try_pipeline
from fedpost.report.units import human_bytes, human_ratio, plain
from fedpost.tensors import Array, MemoryTensors

__all__ = ["compress_command"]

_WITH_BASE: Final = ("delta | lx", "uq(2)", "uq(3)", "eden(1)", "int8", "topk(0.01)")
_WITHOUT: Final = ("dense | lx", "dense | zstd(3)", "cast(bfloat16)")
_NAMED: Final = 3
_file = click.Path(exists=True, dir_okay=False, path_type=Path)

_TOTALS: Final = (
    Column("codec", number=False),
    Column("encoded"),
    Column("ratio"),
    Column("error"),
    Column("max error", rank=2),
    Column("encode MB/s", rank=1),
    Column("decode MB/s", rank=1),
)
_TENSORS: Final = (
    Column("tensor", number=False),
    Column("dtype", number=False, rank=2),
    Column("shape", number=False, rank=1),
    Column("raw"),
    Column("encoded"),
    Column("ratio"),
    Column("error"),
    Column("max error", rank=3),
)


class _Refused(NamedTuple):
    """A codec that does not take the model."""

    error: EncodeError


@click.command("compress")
@click.argument("model", metavar="MODEL", type=_file)
@click.option("--base", metavar="OLD", type=_file, help="The model that the receiver has, such as the last round's.")
@click.option(
    "--codec", "codecs", multiple=True, metavar="PIPELINE", help="What to try: uq(2), or delta | lx; repeat it."
)
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="How often to time each.")
@click.option(
    "--per-tensor/--totals", default=None, help="Show every tensor, or the totals alone; every tensor for one codec."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw ratio, error and speed: .svg, .png, or .html with the table.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the encoded frame, for one codec.",
)
@click.option("--force", is_flag=True, help="Replace the --output that is there.")
@click.option("--from", "kind", type=click.Choice(KINDS), help="What the files are, if their content does not tell.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with every tensor.")
def compress_command(
    model: Path,
    base: Path | None,
    codecs: tuple[str, ...],
    repeat: int,
    per_tensor: bool | None,
    plot: Path | None,
    output: Path | None,
    force: bool,
    kind: str | None,
    as_json: bool,
) -> None:
    """Try update codecs on MODEL, any file that fedpost convert reads: how small, at which error, how fast.

    The error is the L2 norm of what was lost over that of what changed since OLD; without OLD, over that of the model.
    Bytes are those of the whole frame, megabytes a second those of the model as it is in memory.

    \b
    Examples:
      fedpost compress after.safetensors --base before.safetensors
      fedpost compress after.fedwt --base before.fedwt --codec "uq(2)" --codec "delta | lx" --plot codecs.svg
      fedpost compress model.npz --codec "dense | zstd(9)" --output model.fedwt
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json), terminable():
        check_plot(plot)
        names = list(dict.fromkeys(codecs or (_WITHOUT if base is None else _WITH_BASE)))
        pipelines = _pipelines(names, base)
        _check_output(output, names, force=force)
        opened, old = _open(model, kind), None if base is None else _open(base, kind)
        with named(model):
            tensors = opened.source.arrays()
        if not any(array.nbytes for array in tensors.values()):
            what = "no values in any of its tensors" if tensors else "no tensors"
            raise EncodeError(f"the model has {what}: there is nothing to compress", where=str(model))
        known = None if old is None else _base_of(old)
        alone = [] if known is None else strangers(MemoryTensors(tensors), known)
        found = _try(pipelines, tensors, known, repeat)
        trials = {name: trial for name, trial in found.items() if isinstance(trial, Trial)}
        refused = [trial.error for trial in found.values() if isinstance(trial, _Refused)]
        if not trials and len(refused) == 1:
            raise refused[0]
        if plot is not None and trials:
            _plot(plot, trials, model)
        if output is not None:
            frame = pipelines[names[0]].encode(tensors, {METADATA: dict(opened.metadata)}, base=known)
            replace_file(output, frame.buffers())
    if alone:
        listed = ", ".join(plain(name, 60) for name in alone[:_NAMED]) + (", …" if len(alone) > _NAMED else "")
        _note(f"{len(alone)} of {len(tensors)} tensors are not in {base} in the same type and shape: {listed}")
    if as_json:
        click.echo(as_json_text({"model": str(model), "base": base and str(base), "codecs": _as_json(found)}))
    else:
        _show(model, tensors, found, per_tensor=len(names) == 1 if per_tensor is None else per_tensor)
        for path in (plot if trials else None, output):
            if path is not None:
                click.echo(plain(path, limit=4096))
    if not trials:
        sys.exit(1)


def _pipelines(names: Sequence[str], base: Path | None) -> dict[str, Pipeline]:
    """The pipelines, by what the user calls them.

    Raises:
        ConfigError: One does not fit, or needs a base that was not given.
    """
    out = {name: Pipeline.parse(name) for name in names}
    if base is None and (needy := [name for name, pipeline in out.items() if pipeline.update.needs_base]):
        raise ConfigError(
            f"{needy[0]} sends what changed since a model that the receiver has, and none was given",
            hint="Add --base OLD: the file of that model, such as the last round's.",
        )
    return out


def _check_output(output: Path | None, names: Sequence[str], *, force: bool) -> None:
    if output is None:
        return
    if len(names) != 1:
        raise ConfigError(f"--output is for one codec, and these are {len(names)}", hint="Name it with --codec.")
    if output.exists() and not force:
        raise ConfigError("this file is there already", where=str(output), hint="Replace it with --force.")


def _open(path: Path, kind: str | None) -> ModelFile:
    return open_model(path, kind=kind_of(path) or kind)


def _base_of(old: ModelFile) -> Base:
    with named(old.path):
        return Base.of(old.source.arrays())


def _try(
    pipelines: Mapping[str, Pipeline], tensors: Mapping[str, Array], base: Base | None, repeat: int
) -> dict[str, Trial | _Refused]:
    changes = changes_of(MemoryTensors(tensors), base)
    raw = sum(array.nbytes for array in tensors.values())
    out: dict[str, Trial | _Refused] = {}
    with progress() as show:
        for number, (name, pipeline) in enumerate(pipelines.items()):

            def tell(what: str, done: int, steps: int, number: int = number, name: str = name) -> None:
                show(f"{plain(name, 40)}: {what}", number * steps * raw + done * raw, len(pipelines) * steps * raw)

            try:
                out[name] = try_pipeline(pipeline, tensors, base, changes, repeat=repeat, tell=tell)
            except EncodeError as error:
                out[name] = _Refused(error)
    return out


def _show(
    model: Path, tensors: Mapping[str, Array], found: Mapping[str, Trial | _Refused], *, per_tensor: bool
) -> None:
    count, raw = sum(array.size for array in tensors.values()), sum(array.nbytes for array in tensors.values())
    click.echo(f"{plain(model, limit=4096)}: {len(tensors)} tensors, {count:,} values, {human_bytes(raw)}\n")
    for name, trial in found.items():
        if per_tensor and isinstance(trial, Trial):
            click.echo(plain(name))
            print_table(_TENSORS, [_row(row) for row in trial.tensors])
            click.echo()
    print_table(_TOTALS, [_total(name, trial) for name, trial in found.items()])
    for name, trial in found.items():
        if isinstance(trial, _Refused):
            said = (f"{plain(name)}: refused: ", "yellow"), plain(trial.error, 500)
            Console().print(Text.assemble(*said), soft_wrap=True)


def _row(row: TensorTrial) -> list[str | Text]:
    return [
        row.name,
        row.dtype,
        "×".join(map(str, row.shape)) or "scalar",
        human_bytes(row.raw),
        human_bytes(row.encoded),
        human_ratio(row.ratio),
        _error(row.relative, exact=row.exact),
        "" if row.exact or row.max_abs is None else f"{row.max_abs:.3g}",
    ]


def _total(name: str, trial: Trial | _Refused) -> list[str | Text]:
    if isinstance(trial, _Refused):
        return [name, *["\N{EM DASH}"] * (len(_TOTALS) - 1)]
    return [
        name if trial.picked is None else f"{name}: {trial.picked}",
        human_bytes(trial.encoded),
        human_ratio(trial.ratio),
        _error(trial.relative, exact=trial.exact),
        "" if trial.exact else f"{trial.max_abs:.3g}",
        f"{trial.encode_mb_per_second:,.0f}",
        f"{trial.decode_mb_per_second:,.0f}",
    ]


def _error(relative: float | None, *, exact: bool) -> str:
    return "exact" if exact else "" if relative is None else f"{relative:.3g}"


def _plot(path: Path, trials: Mapping[str, Trial], model: Path) -> None:
    from fedpost.report.trial_plot import trial_height, trial_plot  # noqa: PLC0415 - matplotlib is slow to load

    rows = [[str(cell) for cell in _total(name, trial)] for name, trial in trials.items()]
    columns = [column.title for column in _TOTALS]
    title = f"Update codecs on {plain(model.name)}"
    write_plot(path, trial_plot(trials), trial_height(trials), title=title, columns=columns, rows=rows)


def _as_json(found: Mapping[str, Trial | _Refused]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for name, trial in found.items():
        if isinstance(trial, Trial):
            out.append({"codec": name, **{key: getattr(trial, key) for key in trial.__struct_fields__}})
        else:
            error = trial.error
            out.append({"codec": name, "refused": {"what": error.what, "where": error.where, "hint": error.hint}})
    return out


def _note(text: str) -> None:
    Console(stderr=True).print(Text.assemble(("note: ", "bold"), plain(text, 500)), soft_wrap=True)
