"""``fedpost run``: the whole federation on this machine, every site in a process of its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import fedpost

ROOT = Path(__file__).parents[2]
DIGITS = {
    "layer0.weight": ("float32", (64, 64)),
    "layer1.weight": ("float32", (64, 10)),
    "layer0.bias": ("float32", (64,)),
    "layer1.bias": ("float32", (10,)),
}


@pytest.fixture(scope="module")
def digits(once, workspace_type):
    """The digits example as it stands, run once for all workers; its mailbox beside a copy of its configuration."""

    def make(folder):
        space = workspace_type(folder)
        for name in ("app.py", "run.yaml"):
            (space.folder / name).write_bytes((ROOT / "examples/digits" / name).read_bytes())
        command = space.start("run", "run.yaml")
        command.wait(280)
        space.clean_up()
        (folder / "ended").write_text(json.dumps([command.process.returncode, command.out, command.err]))

    folder = once("digits", make)
    code, out, err = json.loads((folder / "ended").read_text())
    assert code == 0, out + err
    return workspace_type(folder).runs()[0], out, err


def test_digits_learns_and_leaves_everything_behind(digits):
    run, out, err = digits
    assert run.status == "finished"
    assert run.sites()[0] == 0
    assert len(run.sites()) == 21
    assert min(run.sites()[1:]) >= 6
    assert run.events("round_ended")[-1]["values"]["accuracy"] > 0.95
    assert {"model.fedwt", "ledger.jsonl", "report.html", "summary.json", "logs", "run.yaml"} == {
        path.name for path in run.folder.iterdir()
    }
    assert (run.folder / "run.yaml").read_bytes() == (ROOT / "examples/digits/run.yaml").read_bytes()
    assert "round 20/20  accuracy 0.9" in out
    assert f"runs/{run.folder.name}/" in out
    assert err == ""


def test_digits_model_loads_with_names_and_types(digits):
    run, _, _ = digits
    model = fedpost.load_tensors(run.folder / "model.fedwt")
    assert {name: (array.dtype.name, array.shape) for name, array in model.items()} == DIGITS
    assert list(model) == list(DIGITS)
    assert all(np.isfinite(array).all() and array.any() for array in model.values())


def test_digits_ledger_is_whole_and_typed(digits):
    from fedpost.telemetry import read_records

    run, _, _ = digits
    lines = (run.folder / "ledger.jsonl").read_text().splitlines()
    assert len(run.records()) == len(lines) == len(list(read_records(run.folder / "ledger.jsonl")))
    spans = [record for record in run.records() if record["kind"] == "span"]
    sites = [f"site-{index}" for index in range(8)]
    for number in range(1, 21):
        at_sites = {(span["site"], span["stage"]) for span in spans if span.get("round") == number and "site" in span}
        accepted = [event["site"] for event in run.events("result_accepted", round=number)]
        for site in accepted:
            assert {(site, stage) for stage in ("decode", "train", "encode")} <= at_sites
        assert {(site, "send") for site in sites} <= at_sites
        own = {span["stage"] for span in spans if span.get("round") == number and "site" not in span}
        assert {"publish", "wait", "aggregate", "evaluate"} <= own
    assert all(span["seconds"] >= 0 for span in spans)


def test_digits_byte_counts_add_up(digits):
    """Raw bytes are the model's, each time; stored are a fraction of that, after the first, and a bounded rest."""
    run, _, _ = digits
    sizes = {name: int(np.prod(shape)) * 4 for name, (_, shape) in DIGITS.items()}
    for direction, message in (("down", "training_command"), ("up", "weight_update")):
        rows = run.transfers(direction=direction, message=message)
        messages = {(row["round"], row["site"]) for row in rows}
        if direction == "down":
            assert len(messages) == 20 * 8
        for number, site in messages:
            one = [row for row in rows if (row["round"], row["site"]) == (number, site)]
            tensors = {row["tensor"]: row for row in one if "tensor" in row}
            assert {name: row["raw"] for name, row in tensors.items()} == sizes
            first = direction == "down" and number == 1
            assert 0 < sum(row["stored"] for row in tensors.values()) * (1 if first else 10) < sum(sizes.values())
            (rest,) = [row["stored"] for row in one if "tensor" not in row]
            assert 0 < rest < 2000


def test_digits_report_tells_of_the_run(digits):
    run, _, _ = digits
    page = (run.folder / "report.html").read_text()
    assert page.startswith("<!")
    assert page.rstrip().endswith("</html>")
    for text in ("digits", "site-7", "layer0.weight", "finished"):
        assert text in page


def test_digits_logs_tell_nothing_bad(digits):
    run, _, _ = digits
    logs = sorted((run.folder / "logs").iterdir())
    assert [log.name for log in logs] == [f"site-{index}.log" for index in range(8)]
    for log in logs:
        assert "Traceback" not in log.read_text()
        assert "WARNING" not in log.read_text()


def test_each_site_is_a_process_and_only_it_reads_its_share(workspace):
    workspace.configure(sites=3, rounds=2, options={"hold": {"site-1": [1]}})
    command = workspace.start("run", "run.yaml", "--json")
    pids = {f"site-{index}": int(workspace.wait_mark(f"site-{index}.round-1")) for index in range(3)}
    children = {child.pid for child in command.children()}
    assert set(pids.values()) == children
    assert len(children) == 3
    assert os.getpid() not in children
    workspace.open_gate()
    command.ok()
    assert int((workspace.marks / "server.pid").read_text()) == command.process.pid
    for site, pid in pids.items():
        assert (workspace.marks / f"{site}.share").read_text() == f"{pid}\n", "another process read it, or twice"
    result = json.loads(command.out)
    assert result["status"] == "finished"
    assert [row["sites"] for row in result["rounds"]] == [0, 3, 3]
    assert (workspace.folder / result["folder"] / "model.fedwt").is_file()


def test_two_runs_with_one_seed_end_with_the_same_bytes(workspace):
    """Whatever the order in which results arrive: the second run holds the first site back."""
    workspace.configure(
        sites=3, rounds=3, seed=5, strategy={"name": "fedavg", "fraction_fit": 0.67, "fraction_evaluate": 0.5}
    )
    first = workspace.run()
    workspace.configure(
        sites=3,
        rounds=3,
        seed=5,
        strategy={"name": "fedavg", "fraction_fit": 0.67, "fraction_evaluate": 0.5},
        options={"hold": {"site-0": [1, 2, 3]}},
        processes=2,
    )
    command = workspace.start("run", "run.yaml")
    second = workspace.current(1)
    others = {event["site"] for event in first.events("result_accepted", round=1)} - {"site-0"}
    for site in others:
        workspace.wait_mark(f"{site}.round-1")
    workspace.open_gate()
    command.ok()
    one, other = (fedpost.load_tensors(run.folder / "model.fedwt") for run in (first, second))
    assert {name: array.tobytes() for name, array in one.items()} == {n: array.tobytes() for n, array in other.items()}
    asked = [sorted((e["round"], e["site"]) for e in run.events("result_accepted")) for run in (first, second)]
    assert asked[0] == asked[1]
    assert {child.name for child in (second.folder / "logs").iterdir()} == {"host-0.log", "host-1.log"}


def test_every_kind_of_faulty_client_is_left_out_with_its_reason(workspace):
    reasons = {
        "raises": ("site_failed", "RuntimeError: the disk is full"),
        "count": ("site_failed", "fit returned 1 arrays, the model has 2"),
        "metric": ("site_failed", "metric 'm': it is list"),
        "shape": ("result_refused", "tensor 'weight': it is float32[2, 3], asked was float32[3, 2]"),
        "dtype": ("result_refused", "tensor 'weight': it is float64[3, 2]"),
        "extra": ("result_refused", "tensor 'own': nobody asked for it"),
        "missing": ("result_refused", "tensor 'steps': it is missing"),
        "nan": ("result_refused", "it has a NaN or an infinity"),
        "inf": ("result_refused", "it has a NaN or an infinity"),
    }
    # The last of them ends its process, and so must have one of its own.
    workspace.configure("faulty", sites=["good", "fine", *reasons], rounds=2, processes=3)
    command = workspace.start("run", "run.yaml").ok()
    (run,) = workspace.runs()
    assert run.sites() == [0, 2, 2]
    for site, (event, reason) in reasons.items():
        assert [reason in text for text in run.reasons(event, site=site)] == [True, True], site
        assert reason in command.out.replace("\ufffd", "")
    assert "\x1b" not in command.out + command.err
    rejected = workspace.folder / "mailbox" / run.folder.name / "rejected" / "server"
    assert len(list(rejected.glob("*.txt"))) == 2 * 6


@pytest.mark.parametrize("way", ["exits", "dies"])
def test_a_site_whose_process_ends_is_left_out_at_once(workspace, way):
    workspace.configure("faulty", sites=["good", way], rounds=3, round_timeout=1000)
    command = workspace.start("run", "run.yaml").ok()
    (run,) = workspace.runs()
    assert run.sites() == [0, 1, 1, 1]
    code = {"exits": 3, "dies": 9}[way]
    (reason,) = run.reasons("site_lost", site=way)
    assert f"its process ended with code {code}" in reason
    assert f"{way}.log" in reason
    assert f"{way} lost: its process ended" in command.out


def test_a_site_that_is_killed_within_a_round_is_left_out_and_never_waited_for_again(workspace):
    workspace.configure(sites=3, rounds=3, options={"hold": {"site-1": [1]}}, round_timeout=1000)
    command = workspace.start("run", "run.yaml")
    pid = int(workspace.wait_mark("site-1.round-1"))
    assert pid in {child.pid for child in command.children()}
    os.kill(pid, signal.SIGKILL)
    command.ok()
    (run,) = workspace.runs()
    assert run.sites() == [0, 2, 2, 2]
    assert run.reasons("site_lost", site="site-1")[0].startswith("its process ended with code -9")
    assert [event["values"]["sites"] for event in run.events("round_started")] == [3, 2, 2]


def test_a_site_that_hangs_is_left_out_after_the_timeout(workspace):
    workspace.configure(sites=3, rounds=3, options={"hold": {"site-1": [1]}}, round_timeout=10)
    command = workspace.start("run", "run.yaml").ok()
    (run,) = workspace.runs()
    assert run.sites() == [0, 2, 2, 2]
    assert run.reasons("site_lost", site="site-1") == ["no answer within 10 s"]
    assert "site-1 lost: no answer within 10 s" in command.out
    assert [event["values"]["sites"] for event in run.events("round_started")] == [3, 2, 2]


def test_too_few_results_fail_the_run_after_a_second_attempt(workspace):
    workspace.configure("faulty", sites=["good", "raises"], strategy={"name": "fedavg", "min_fit_clients": 2})
    command = workspace.start("run", "run.yaml")
    assert command.wait() == 1
    (run,) = workspace.runs()
    assert run.status == "failed"
    assert [event["values"]["attempt"] for event in run.events("round_started")] == [1, 2]
    assert len(run.events("round_retried")) == 1
    assert "Traceback" not in command.err
    assert command.err.startswith("error: round 1 failed in 2 attempts: ")
    assert "raises: RuntimeError: the disk is full" in command.err
    assert "\x1b" not in command.err, "a site's text reached the terminal as it is"
    assert (run.folder / "report.html").is_file()
    assert fedpost.load_tensors(run.folder / "model.fedwt")["weight"].tolist() == [[1, 1]] * 3


def test_a_run_whose_sites_all_die_fails_with_the_end_of_a_log(workspace):
    workspace.configure("faulty", sites=["dies"], rounds=1)
    command = workspace.start("run", "run.yaml")
    assert command.wait() == 1
    assert "Traceback" not in command.err
    assert "ended" in command.err
    assert workspace.runs()[0].status == "failed"


def test_an_app_that_sites_cannot_load_fails_the_run_with_its_log(workspace):
    app = workspace.folder / "app.py"
    app.write_text("import sys\nif 'client' in sys.argv: raise RuntimeError('no such data')\n" + _APP)
    workspace.configure(app="adding", sites=2, register_timeout=60)
    command = workspace.start("run", "run.yaml", "--set", "app=app.py:app", "--set", "options={}")
    assert command.wait() == 1
    assert "no such data" in command.err


_APP = """
import numpy as np, fedpost
def app(sites, seed):
    return fedpost.App(client=lambda site: fedpost.NumPyClient(), initialize=lambda: [np.zeros(3)])
"""


def test_payloads_travel_as_the_yaml_says(workspace):
    workspace.configure(
        rounds=2,
        update={"default": "dense", "FitRes": "cast(bfloat16)"},
        serialization={"FitIns": "numpy"},
        compression={"default": "zstd(3)", "EvaluateIns": "none"},
        checksum="xxh3",
        strategy={"name": "fedavg", "fraction_evaluate": 1.0},
        options={"initial": False, "accuracy": False},
    )
    # Without initial parameters a site is asked, which has none: the run says so.
    command = workspace.start("run", "run.yaml")
    assert command.wait() == 1
    assert "no site has initial parameters" in command.err
    workspace.configure(
        rounds=2,
        update={"default": "dense", "FitRes": "cast(bfloat16)"},
        serialization={"FitIns": "numpy"},
        compression={"default": "zstd(3)", "EvaluateIns": "none"},
        checksum="xxh3",
        strategy={"name": "fedavg", "fraction_evaluate": 1.0},
        options={"accuracy": False},
    )
    run = workspace.run()
    assert run.status == "finished"
    raw = 1000 * 4 * 4
    stored = {
        message: {row["stored"] for row in run.transfers(message=message, tensor="weight", round=2)}
        for message in ("training_command", "weight_update", "evaluation_command")
    }
    assert stored["evaluation_command"] == {raw}
    assert max(stored["weight_update"]) <= raw / 2
    assert raw / 2 < max(stored["training_command"]) < raw + 256
    assert {row["raw"] for row in run.transfers(tensor="weight")} == {raw}
    ended = run.events("round_ended")[-1]["values"]
    assert ended["loss"] > 0
    assert len(run.events("result_accepted")) == 2 * 2 * 2
    assert fedpost.load_tensors(run.folder / "model.fedwt")["weight"].dtype == np.float32


def test_a_folder_with_a_space_holds_its_own_mailbox(tmp_path, workspace_type):
    space = workspace_type(tmp_path / "my folder ü")
    try:
        space.configure(rounds=1)
        space.run()
    finally:
        space.clean_up()
    assert [path.name for path in tmp_path.iterdir()] == ["my folder ü"]
    assert (space.folder / "mailbox").is_dir()
