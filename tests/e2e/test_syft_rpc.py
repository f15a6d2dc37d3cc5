"""Requests between real processes over a folder, and what is promised when one of them is killed.

The promise: a function is called at most once for a request, whatever happens and however often the request comes. A
process that is killed before the response was kept leaves a response with status 500; one that is killed later leaves
the response. A function that is registered as idempotent is called again instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from fedpost.compat.syft_rpc import Client, broadcast, make_url, send

OWNER, SITE = "owner@x.org", "site@y.org"
PATIENCE = 60

SERVER = """
import os, signal, sys
from pathlib import Path
from fedpost.compat.syft_rpc import Client, SyftEvents, SyftRequest

folder, plan = Path(sys.argv[1]), sys.argv[2]
box = SyftEvents("app", Client("owner@x.org", folder), workers=2)

def executed(request):
    with (folder / "executed").open("a") as file:
        file.write(f"{request.id}\\n")

def die(at):
    if plan == at:
        os.kill(os.getpid(), signal.SIGKILL)

@box.on_request("/count")
def count(request: SyftRequest):
    die("before the function")
    executed(request)
    die("between execution and reply")
    return {"double": request.value()["array"] * 2}

@box.on_request("/again", idempotent=True)
def again(request: SyftRequest):
    executed(request)
    die("between execution and reply")
    return "done"

if plan in ("after the reply was kept", "after the reply was given"):
    give, remove = box._give, box._inbox.remove
    box._give = lambda reply: die("after the reply was kept") or give(reply)
    box._inbox.remove = lambda key: die("after the reply was given") or remove(key)

box.start()
print("ready", flush=True)
sys.stdin.read()
box.stop()
"""


@pytest.fixture
def serve(tmp_path):
    """Start servers in processes of their own, and wait until they watch."""
    servers = []

    def start(plan="none"):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path), plan],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        servers.append(process)
        return process

    yield start
    for process in servers:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def site(tmp_path):
    return Client(SITE, tmp_path)


def executed(folder):
    path = folder / "executed"
    return path.read_text().split() if path.exists() else []


def ask(site, endpoint="count", size=3, **values):
    return send(
        make_url(OWNER, "app", endpoint), "POST", {"array": np.arange(size)}, client=site, cache=False, **values
    )


def test_a_request_and_its_response_between_two_processes(serve, site, tmp_path):
    early = ask(site)
    server = serve()
    assert early.wait(PATIENCE).value()["double"].tolist() == [0, 2, 4]
    late = ask(site, size=1_000_000)
    np.testing.assert_array_equal(late.wait(PATIENCE).value()["double"], np.arange(1_000_000) * 2)
    assert executed(tmp_path) == [str(early.id), str(late.id)]
    server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def test_many_requests_at_once_from_threads(serve, site, tmp_path):
    serve()
    found = {}

    def run(number):
        found[number] = ask(site, size=number).wait(PATIENCE).value()["double"].size

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(12)}
    assert len(set(executed(tmp_path))) == len(executed(tmp_path)) == 12


def test_a_broadcast_waits_for_all(serve, site):
    serve()
    urls = [make_url(OWNER, "app", "again"), make_url(OWNER, "app", "none")]
    responses = broadcast(urls, 1, client=site).gather_completed(PATIENCE)
    assert [response.status_code for response in responses] == [200, 404]


@pytest.mark.parametrize(
    ("plan", "calls", "status"),
    [
        ("before the function", 0, 500),
        ("between execution and reply", 1, 500),
        ("after the reply was kept", 1, 200),
        ("after the reply was given", 1, 200),
    ],
)
def test_a_server_that_is_killed_executes_a_request_at_most_once(serve, site, tmp_path, plan, calls, status):
    future = ask(site)
    folder = tmp_path / "datasites" / OWNER / "app_data" / "app" / "rpc"  # beside it are files that are being written
    request, reply = folder / f"requests/{future.id}.request", folder / f"responses/{future.id}.response"
    sent = request.read_bytes()
    dying = serve(plan)
    dying.wait(PATIENCE)
    assert dying.returncode == -signal.SIGKILL
    assert request.exists(), "it is still to be answered"
    serve()
    response = future.wait(PATIENCE)
    assert response.status_code == status
    assert executed(tmp_path) == [str(future.id)] * calls
    given = reply.read_bytes()
    # The request once more, and another one after it, so that it was certainly looked at.
    request.with_suffix(".unfinished").write_bytes(sent)
    request.with_suffix(".unfinished").replace(request)
    assert ask(site).wait(PATIENCE).is_success
    while request.exists():
        os.sched_yield()
    assert executed(tmp_path).count(str(future.id)) == calls
    assert reply.read_bytes() == given, "the response that was given once is the only one"


def test_an_idempotent_function_is_called_again(serve, site, tmp_path):
    future = ask(site, "again")
    assert serve("between execution and reply").wait(PATIENCE) == -signal.SIGKILL
    serve()
    assert future.wait(PATIENCE).value() == "done"
    assert executed(tmp_path) == [str(future.id)] * 2


def test_a_second_server_is_refused_and_the_first_goes_on(serve, site, tmp_path):
    first = serve()
    assert first.stdout.readline() == "ready\n"
    second = serve()
    assert second.wait(PATIENCE) == 1
    assert ask(site).wait(PATIENCE).is_success
    first.kill()
    first.wait(PATIENCE)
    serve()
    assert ask(site).wait(PATIENCE).is_success
    assert len(executed(tmp_path)) == 2
