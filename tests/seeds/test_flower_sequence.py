"""The sequence diagram of Flower's proposal "Pluggable Serialization" (FED 0000), message by message."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest

from fedpost.federation import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    NumPyClient,
    Parameters,
    Server,
    ServerSettings,
    SiteHost,
    Strategy,
)
from fedpost.pipeline import Pipeline
from fedpost.protocol import decode_message
from fedpost.telemetry import Telemetry
from fedpost.transports import open_endpoint

ROUNDS = 2
PIPELINES = {
    "FitIns": Pipeline.parse("dense | numpy | zstd(3)"),
    "FitRes": Pipeline.parse("cast(bfloat16) | fedwt | none"),
    "EvaluateIns": Pipeline.parse("dense | fedwt | lz4(0)"),
}


class Recording(Strategy):
    """Writes down what it is asked, and checks what it is given."""

    min_fit_clients = 2
    min_available_clients = 2

    def __init__(self, calls):
        self.calls = calls

    def initialize_parameters(self, client_manager):
        self.calls.append("initialize_parameters")
        assert list(client_manager.all()) == ["client-1", "client-2"]
        return Parameters.of([np.zeros(3, np.float32)])

    def configure_fit(self, server_round, parameters, client_manager):
        self.calls.append(f"configure_fit {server_round}")
        return [
            (client, FitIns(parameters, {"round": server_round, "who": client.cid}))
            for client in client_manager.sample(2)
        ]

    def aggregate_fit(self, server_round, results, failures):
        self.calls.append(f"aggregate_fit {server_round}")
        assert [(client.cid, type(res)) for client, res in results] == [("client-1", FitRes), ("client-2", FitRes)]
        assert failures == []
        assert [res.num_examples for _, res in results] == [10, 20]
        self.seen = [res.parameters.to_ndarrays()[0].tolist() for _, res in results]
        return Parameters.of([np.mean([res.parameters.to_ndarrays()[0] for _, res in results], axis=0)]), {"fit": 1.0}

    def evaluate(self, server_round, parameters):
        self.calls.append(f"evaluate {server_round}")
        assert parameters.to_ndarrays()[0].tolist() == [1.5 * server_round] * 3

    def configure_evaluate(self, server_round, parameters, client_manager):
        self.calls.append(f"configure_evaluate {server_round}")
        return [(client, EvaluateIns(parameters, {"round": server_round})) for client in client_manager.sample(2)]

    def aggregate_evaluate(self, server_round, results, failures):
        self.calls.append(f"aggregate_evaluate {server_round}")
        assert [type(res) for _, res in results] == [EvaluateRes, EvaluateRes]
        return float(np.mean([res.loss for _, res in results])), {"accuracy": 0.5}


class Following(NumPyClient):
    """Writes down what it is asked."""

    def __init__(self, name, calls):
        self.name, self.number, self.calls = name, int(name[-1]), calls

    def fit(self, parameters, config):
        self.calls.append(f"{self.name} FitIns {config['round']}")
        assert config["who"] == self.name
        assert parameters[0].dtype == np.float32
        return [parameters[0] + np.float32(self.number)], 10 * self.number, {}

    def evaluate(self, parameters, config):
        self.calls.append(f"{self.name} EvaluateIns {config['round']}")
        return float(parameters[0].mean()), 1, {}


class Tapped:
    """The server's endpoint, with every frame's type and pipeline written down."""

    def __init__(self, inner, calls):
        self.inner, self.calls = inner, calls
        self.address, self.guarantees, self.close = inner.address, inner.guarantees, inner.close

    def send(self, address, frame):
        self._note("to", address, memoryview(bytes(frame)))
        return self.inner.send(address, frame)

    def receive(self, timeout):
        delivery = self.inner.receive(timeout)
        if delivery is not None:
            self._note("from", None, delivery.data)
        return delivery

    def _note(self, way, address, data):
        message = decode_message(data)
        pipeline = message.frame.section("pipeline", str) if "pipeline" in message.frame.section_names else None
        site = address if way == "to" else message.envelope.sender
        self.calls.append((way, site, message.envelope.type.value, message.envelope.round, pipeline))


@pytest.fixture
def recorded(tmp_path):
    """The calls of strategy and clients, and the server's messages, of one run."""
    url = f"memory://{uuid.uuid4().hex}"
    calls, messages = [], []
    hosts = []
    for name in ("client-1", "client-2"):
        host = SiteHost(open_endpoint(url, name), {name: lambda site: Following(site, calls)}, Telemetry())
        thread = threading.Thread(target=host.run, daemon=True)
        thread.start()
        hosts.append(thread)
    settings = ServerSettings(
        run="flower", name="flower", rounds=ROUNDS, folder=tmp_path, pipelines=PIPELINES, round_timeout=60
    )
    result = Server(Tapped(open_endpoint(url, "server"), messages), Recording(calls), settings, Telemetry()).run()
    for thread in hosts:
        thread.join(60)
        assert not thread.is_alive()
    return calls, messages, result


def test_the_calls_come_in_the_order_of_the_diagram(recorded):
    calls, _, result = recorded
    expected = ["initialize_parameters", "evaluate 0"]
    for number in range(1, ROUNDS + 1):
        expected += [f"configure_fit {number}", {f"client-1 FitIns {number}", f"client-2 FitIns {number}"}]
        expected += [f"aggregate_fit {number}", f"evaluate {number}", f"configure_evaluate {number}"]
        expected += [
            {f"client-1 EvaluateIns {number}", f"client-2 EvaluateIns {number}"},
            f"aggregate_evaluate {number}",
        ]
    position = 0
    for step in expected:
        size = len(step) if isinstance(step, set) else 1
        found = calls[position : position + size]
        assert (set(found) if isinstance(step, set) else found[0]) == step
        position += size
    assert position == len(calls)
    assert [report.loss for report in result.history] == [None, 1.5, 3.0]
    assert result.history[2].metrics == {"accuracy": 0.5}
    assert result.history[2].fit_metrics == {"fit": 1.0}


def test_the_messages_are_the_diagram_s_and_each_payload_has_its_own_serialization(recorded):
    _, messages, _ = recorded
    for number in range(1, ROUNDS + 1):
        there = [(way, kind, pipeline) for way, _, kind, where, pipeline in messages if where == number]
        assert sorted(there[:2]) == [("to", "training_command", str(PIPELINES["FitIns"]))] * 2
        assert there[2:4] == [("from", "weight_update", str(PIPELINES["FitRes"]))] * 2
        assert there[4:6] == [("to", "evaluation_command", str(PIPELINES["EvaluateIns"]))] * 2
        assert there[6:] == [("from", "evaluation_result", None)] * 2
        for first in (0, 2, 4, 6):
            pair = [site for _, site, _, where, _ in messages if where == number][first : first + 2]
            assert sorted(pair) == ["client-1", "client-2"]
    assert min(messages[-2:])[:3] == ("to", "client-1", "run_end")
