"""``fedpost server`` and ``fedpost client`` apart, with nothing in common but a folder."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest

import fedpost
from fedpost.protocol import StatusUpdate, WeightUpdate


@pytest.fixture
def shared(workspace, tmp_path):
    """A workspace whose commands meet in a folder that its URL names."""
    folder = tmp_path / "shared"
    folder.mkdir()
    workspace.url = folder.as_uri()
    workspace.shared = folder
    return workspace


def server(space, *arguments):
    return space.start("server", "run.yaml", "--transport", space.url, *arguments)


def client(space, site, *arguments):
    return space.start("client", "run.yaml", "--site", site, "--transport", space.url, *arguments)


def waiting(space, address="server"):
    return [path.name for path in (space.shared / "mail" / address).glob("*.frame")]


def test_a_client_may_come_first_and_gets_the_final_model(shared, until):
    shared.configure(sites=["north", "south"], rounds=2)
    north = client(shared, "north", "--model", "north.fedwt")
    until(lambda: waiting(shared), "a registration")
    main = server(shared)
    south = client(shared, "south")
    main.ok()
    north.ok()
    south.ok()
    (run,) = shared.runs()
    assert run.sites() == [0, 2, 2]
    there = fedpost.load_tensors(shared.folder / "north.fedwt")
    here = fedpost.load_tensors(run.folder / "model.fedwt")
    assert {name: array.tobytes() for name, array in there.items()} == {n: array.tobytes() for n, array in here.items()}
    assert here["weight"].dtype == np.float32
    pids = {(shared.marks / f"{site}.share").read_text().strip() for site in ("north", "south")}
    assert pids == {str(north.process.pid), str(south.process.pid)}
    assert waiting(shared) == waiting(shared, "north") == waiting(shared, "south") == []
    assert not (shared.shared / "rejected").exists()


def test_the_server_alone_writes_its_ledger_and_bytes_match_the_frames(shared, until):
    """Frames lie in the folder until they are taken: their sizes are what the ledger says."""
    shared.configure(sites=["a"], rounds=1, options={"hold": {"a": [1]}, "size": 20_000})
    main = server(shared)
    one = client(shared, "a")
    shared.wait_mark("a.round-1")  # the command is acknowledged only after its answer
    (frame,) = (shared.shared / "mail/a").glob("*.frame")
    size = frame.stat().st_size
    shared.open_gate()
    main.ok()
    one.ok()
    (run,) = shared.runs()
    assert sum(row["stored"] for row in run.transfers(direction="down", message="training_command")) == size
    assert [row["raw"] for row in run.transfers(direction="down", tensor="weight")] == [20_000 * 4 * 4]


def test_a_late_site_takes_part_from_the_next_round(shared):
    shared.configure(
        sites=["early", "late"], rounds=2, strategy={"min_available_clients": 1}, options={"hold": {"early": [1]}}
    )
    main, early = server(shared), client(shared, "early")
    shared.wait_mark("early.round-1")
    late = client(shared, "late")
    shared.wait_event(shared.current(), "site_joined", site="late")
    shared.open_gate()
    main.ok()
    early.ok()
    late.ok()
    (run,) = shared.runs()
    assert run.sites() == [0, 1, 2]
    assert not (shared.marks / "late.round-1").exists()
    assert [event["round"] for event in run.events("result_accepted", site="late")] == [2]


def test_a_killed_site_is_left_out_and_takes_part_again_when_it_is_started_again(shared, until):
    shared.configure(
        sites=["a", "b"],
        rounds=3,
        round_timeout=20,  # also for the second start of b, while a is held
        strategy={"min_fit_clients": 1},
        options={"hold": {"b": [1], "a": [2]}},
    )
    main, _, b = server(shared), client(shared, "a"), client(shared, "b")
    shared.wait_mark("b.round-1")
    b.kill()
    run = shared.current()
    shared.wait_event(run, "site_lost", site="b")  # nobody watches this process: it takes the timeout
    shared.wait_mark("a.round-2")
    again = client(shared, "b")
    until(lambda: len(run.events("site_joined", site="b")) == 2, "the second start's registration")
    shared.open_gate("a.go")
    main.ok()
    again.ok()
    assert run.sites()[1] == 1
    assert run.sites()[3] == 2
    assert run.reasons("site_lost", site="b") == ["no answer within 20 s"]
    assert [event["values"]["sites"] for event in run.events("round_started")] == [2, 1, 2]


def test_a_second_run_over_the_same_folder_is_not_disturbed_by_the_first(shared, until):
    """The first run is killed in the middle, the server as well as the sites."""
    shared.configure(sites=["a", "b"], rounds=2, options={"hold": {"a": [1], "b": [1]}})
    first = [server(shared), client(shared, "a"), client(shared, "b")]
    for site in "ab":
        shared.wait_mark(f"{site}.round-1")
    for command in first:
        command.kill()
    assert waiting(shared, "a")
    assert waiting(shared, "b")
    _leave_behind(shared, shared.runs()[0].folder.name)
    shared.open_gate()
    second = [server(shared), client(shared, "a"), client(shared, "b")]
    for command in second:
        command.ok()
    run = shared.runs()[1]
    assert run.sites() == [0, 2, 2]
    assert len(run.events("result_refused")) == 1
    assert len(run.events("message_refused")) == 1
    assert waiting(shared) == waiting(shared, "a") == waiting(shared, "b") == []


def _leave_behind(shared, run):
    """Answers of the first run that nobody has read."""
    from fedpost.pipeline import Pipeline
    from fedpost.protocol import Envelope, MessageType, address_message
    from fedpost.transports import open_endpoint

    endpoint = open_endpoint(shared.url, "a")
    values = {"sender": "a", "recipient": "server", "run": run}
    head = Envelope.new(MessageType.WEIGHT_UPDATE, round=1, attempt=1, **values)
    tensors = {"weight": np.full((1000, 4), 1e9, np.float32), "steps": np.array(1)}
    endpoint.send("server", address_message(head, WeightUpdate(num_examples=1), Pipeline().encode(tensors)))
    head = Envelope.new(MessageType.STATUS_UPDATE, **values)
    endpoint.send("server", address_message(head, StatusUpdate(state="leaving")))
    endpoint.close()


def test_two_good_runs_after_one_another(shared):
    for _ in range(2):
        shared.configure(sites=["a"], rounds=1)
        for command in [server(shared), client(shared, "a")]:
            command.ok()
    assert [run.sites() for run in shared.runs()] == [[0, 1], [0, 1]]
    assert not any(run.events("message_refused") + run.events("result_refused") for run in shared.runs())


def test_garbage_and_a_huge_file_in_the_server_s_mailbox(shared, until):
    shared.configure(sites=["a"], rounds=1, options={"hold": {"a": [1]}})
    main, one = server(shared), client(shared, "a")
    shared.wait_mark("a.round-1")
    mail = shared.shared / "mail/server"
    (mail / "0-garbage.frame").write_bytes(b"garbage")
    with (mail / "0-huge.frame").open("wb") as file:
        file.truncate((1 << 34) + 1)
    (mail / "0-link.frame").symlink_to("/etc/passwd")
    (mail / "0-folder.frame").mkdir()
    os.mkfifo(mail / "0-pipe.frame")
    (mail / ".hidden").write_bytes(b"x")
    (mail / "with space.frame").write_bytes(b"x")
    run = shared.current()
    until(lambda: len(run.events("message_refused")) >= 2, "two refusals")
    shared.open_gate()
    main.ok()
    one.ok()
    reasons = sorted(run.reasons("message_refused"))
    assert len(reasons) == 2
    assert any("17179869185 bytes, 17179869184 allowed" in reason for reason in reasons)
    assert any("not a fedpost frame" in reason for reason in reasons)
    assert (shared.shared / "rejected/server/0-garbage.frame.txt").is_file()
    assert (mail / "0-huge.frame").is_file()


def test_a_server_that_nobody_joins_says_what_is_missing(shared):
    shared.configure(sites=["a", "b"], register_timeout=1)
    main = server(shared)
    assert main.wait() == 1
    assert re.search(r"\b0\b.*\b2\b", main.err)
    assert "Traceback" not in main.err


def test_a_client_says_that_the_run_failed(shared):
    shared.configure("faulty", sites=["raises"], rounds=1)
    main, one = server(shared), client(shared, "raises")
    assert main.wait() == 1
    assert one.wait() == 1
    (last,) = [line for line in one.err.splitlines() if "the run failed: RunError: round 1 failed" in line]
    assert "\x1b" not in last, "a site's text reached another's terminal as it is"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_client_that_is_stopped_says_so_and_the_round_goes_on(shared, number):
    shared.configure(sites=["a", "b"], rounds=2, options={"hold": {"b": [1]}})
    main, one, other = server(shared), client(shared, "a"), client(shared, "b")
    shared.wait_mark("b.round-1")
    other.interrupt(number)
    assert other.wait() == 130
    assert "Traceback" not in other.err
    main.ok()
    one.ok()
    (run,) = shared.runs()
    assert run.sites() == [0, 1, 1]
    assert run.reasons("site_lost", site="b") == ["the site left"]


def test_a_server_that_is_stopped_tells_the_sites(shared):
    shared.configure(sites=["a", "b"], rounds=2, options={"hold": {"b": [2]}})
    main, one, _ = server(shared), client(shared, "a"), client(shared, "b")
    shared.wait_mark("b.round-2")
    main.interrupt(signal.SIGTERM)
    assert main.wait() == 130
    one.ok()
    (run,) = shared.runs()
    assert run.status == "interrupted"
    assert "interrupted" in (run.folder / "report.html").read_text()
    assert fedpost.load_tensors(run.folder / "model.fedwt")["steps"] == 1
