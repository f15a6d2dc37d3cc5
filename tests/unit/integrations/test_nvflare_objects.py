"""NVFLARE's own types, through its own classes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import msgspec
import numpy as np
import ormsgpack
import pytest

pytest.importorskip("nvflare", reason="NVFLARE is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # NVFLARE's own
    from nvflare.apis.analytix import AnalyticsDataType, LogWriterName
    from nvflare.apis.client import Client
    from nvflare.apis.client_engine_spec import ClientEngineSpec
    from nvflare.apis.dxo import DXO, DataKind, from_shareable
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.fl_snapshot import RunSnapshot
    from nvflare.apis.job_def import JobMetaKey
    from nvflare.apis.shareable import Shareable, make_reply
    from nvflare.apis.signal import Signal
    from nvflare.apis.workspace import Workspace
    from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
    from nvflare.app_common.abstract.learnable import Learnable
    from nvflare.app_common.abstract.model import ModelLearnable, make_model_learnable
    from nvflare.app_common.abstract.statistics_spec import Bin, BinRange, DataType, Feature, Histogram, HistogramType
    from nvflare.app_common.widgets.event_recorder import ServerEventRecorder, _CtxPropReq, _EventReq, _EventStats
    from nvflare.private.admin_defs import Message
    from nvflare.private.fed.server.run_info import RunInfo

    from fedpost.integrations.nvflare_objects import SERIALIZERS

import fedpost.objects
from fedpost.compat import fobs
from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.objects.standard import STANDARD
from fedpost.objects.wire import Kind, reference


@pytest.fixture(params=["fobs", "objects"])
def again(request):
    """A round trip, through FOBS' names and through the core."""
    fobs.reset()
    module = fobs if request.param == "fobs" else fedpost.objects
    return lambda value: module.loads(module.dumps(value))


def alike(found, value):
    assert type(found) is type(value)
    assert vars(found) == vars(value)


def test_names_agree():
    """What stands in the table of lazy entries is what the module has."""
    known = names_of(STANDARD)
    assert {entry.name for entry in SERIALIZERS} == known
    assert len(known) == len(SERIALIZERS)


def names_of(registry):
    return {name for name in [*registry._lazy, *registry.names] if name.startswith("nvflare.")}


def test_shareable(again):
    value = make_reply(ReturnCode.OK, {"a": 1})
    value["w"] = {"layer": np.arange(3, dtype=np.float32)}
    value.set_header("k", ("v",))
    found = again(value)
    assert type(found) is Shareable
    assert found.get_return_code() == ReturnCode.OK
    assert found.get_header("k") == ("v",)
    assert np.array_equal(found["w"]["layer"], value["w"]["layer"])
    assert again(Shareable({"a": 1})) == Shareable({"a": 1})


def test_dxo(again):
    value = DXO(DataKind.WEIGHT_DIFF, {"layer": np.arange(5000.0)}, {"steps": 3})
    found = again(value)
    assert (type(found), found.data_kind, found.meta) == (DXO, DataKind.WEIGHT_DIFF, {"steps": 3})
    assert np.array_equal(found.data["layer"], value.data["layer"])
    found = from_shareable(again(value.to_shareable()))
    assert (found.data_kind, found.meta) == (DataKind.WEIGHT_DIFF, {"steps": 3})


def test_a_collection_of_dxos(again):
    inner = DXO(DataKind.METRICS, {"loss": 0.5})
    found = again(DXO(DataKind.COLLECTION, {"a": inner, "b": inner}))
    assert [found.data[key].data for key in "ab"] == [{"loss": 0.5}] * 2


def test_context(again):
    value = FLContext()
    value.set_prop("public", 1, private=False)
    value.set_prop("array", np.arange(3), private=True, sticky=False)
    found = again(value)
    assert type(found) is FLContext
    assert found.get_prop("public") == 1
    assert found.get_all_public_props() == value.get_all_public_props()
    assert found.get_prop("array").tolist() == [0, 1, 2]
    assert found.logger is not None


def test_client_signal_snapshot_learnable(again):
    client = Client("site-1", "token")
    client.set_prop("a", (1, 2))
    alike(again(client), client)
    signal = Signal(parent=Signal())
    signal.trigger("stop")
    found = again(signal)
    assert (found.value, found.triggered, found.trigger_time) == ("stop", True, signal.trigger_time)
    assert type(found._parent) is Signal
    snapshot = RunSnapshot("job")
    snapshot.set_component_snapshot("server", {"model": {1, 2}})
    snapshot.completed = True
    alike(again(snapshot), snapshot)
    learnable = Learnable(a=1)
    assert (type(again(learnable)), again(learnable)) == (Learnable, learnable)
    model = make_model_learnable({"w": 1}, {"m": 2})
    assert (type(again(model)), again(model)) == (ModelLearnable, model)


def test_workspace(again, tmp_path):
    for name in ("startup", "local"):
        (tmp_path / name).mkdir()
    value = Workspace(str(tmp_path), "site-1", "config")
    alike(again(value), value)


def test_a_workspace_that_is_not_here(again, tmp_path):
    for name in ("startup", "local"):
        (tmp_path / "a" / name).mkdir(parents=True)
    value = Workspace(str(tmp_path / "a"))
    (tmp_path / "a" / "startup").rmdir()
    with pytest.raises(DecodeError, match="invalid workspace"):
        again(value)


@pytest.mark.parametrize(
    "value", [*AnalyticsDataType, *LogWriterName, DataKind.WEIGHTS, JobMetaKey.JOB_ID, ParamsType.DIFF, DataType.INT]
)
def test_enumerations(again, value):
    assert again([value])[0] is value


def test_event_recorder(again):
    recorder = ServerEventRecorder()
    for event, value in recorder.event_reqs.items():
        found = again({event: value})[event]
        assert type(found) is _EventReq
        assert found.ctx_block_list == value.ctx_block_list
        assert found.ctx_reqs.keys() == value.ctx_reqs.keys()
        for name, wanted in value.ctx_reqs.items():
            alike(found.ctx_reqs[name], wanted)
    stats = _EventStats()
    stats.call_count = 5
    alike(again(stats), stats)
    alike(
        again(_CtxPropReq(ClientEngineSpec, is_private=True, is_sticky=None)), _CtxPropReq(ClientEngineSpec, True, None)
    )


def test_a_class_without_a_name(again):
    with pytest.raises(TypeError, match="no name that a reader knows"):
        again(_CtxPropReq(Frame, is_private=True, is_sticky=True))


def test_models_and_statistics(again):
    model = FLModel(ParamsType.FULL, {"w": np.ones(2)}, metrics={"a": 1.0}, current_round=2, meta={"b": (1,)})
    found = again(model)
    assert (found.params_type, found.current_round, found.metrics, found.meta) == (
        *(ParamsType.FULL, 2),
        *({"a": 1.0}, {"b": (1,)}),
    )
    value = [
        *(Feature("age", DataType.FLOAT), BinRange(0.0, 1.0)),
        Histogram(HistogramType.STANDARD, [Bin(0.0, 1.0, 5)], "name"),
    ]
    found = again(value)
    assert found == value
    assert [type(part) for part in found] == [Feature, BinRange, Histogram]


def test_messages_of_the_platform(again):
    message = Message("topic", {"a": 1})
    alike(again(message), message)
    info = RunInfo("job", "app")
    alike(again(info), info)
    assert again(Namespace(a=1)) == Namespace(a=1)


def test_subclasses_are_listed_by_themselves():
    class Mine(Shareable):
        pass

    fobs.reset()
    value = Mine({"a": 1})
    value.note = "n"
    found = fobs.loads(fobs.dumps(value))
    assert (type(found), found, found.note) == (Mine, value, "n")


def test_dumps_inside():
    value = Shareable()
    value["inner"] = fobs.dumps(DXO(DataKind.METRICS, {"loss": 1.0}))
    value["inner"] = fobs.dumps({"deeper": value["inner"]})
    found = fobs.loads(fobs.dumps(value))
    assert fobs.loads(fobs.loads(found["inner"])["deeper"]).data == {"loss": 1.0}


def test_nvflares_own_decomposers():
    """They inherit from another class of the same methods."""
    from nvflare.apis.utils.decomposers.flare_decomposers import DXODecomposer
    from nvflare.fuel.utils.fobs.decomposer import DictDecomposer

    fobs.reset()
    fobs.register(DXODecomposer)
    fobs.register(DictDecomposer(Shareable))
    value = Shareable({"dxo": DXO(DataKind.METRICS, {"loss": 1.0})})
    found = fobs.loads(fobs.dumps(value))
    assert (type(found), found["dxo"].data, found["dxo"].data_kind) == (Shareable, {"loss": 1.0}, DataKind.METRICS)
    fobs.reset()


def test_a_receiver_knows_them_at_once(tmp_path):
    """Without importing anything first: the names stand in fedpost's own table."""
    (tmp_path / "sent").write_bytes(fobs.dumps(DXO(DataKind.METRICS, {"loss": 1.0})))
    code = f"""
import sys
from fedpost.compat import fobs
assert not any(name.startswith("nvflare") for name in sys.modules)
print(fobs.loadf({str(tmp_path / "sent")!r}).data)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout == "{'loss': 1.0}\n"


def test_a_receiver_without_nvflare(tmp_path):
    (tmp_path / "sent").write_bytes(fobs.dumps(DXO(DataKind.METRICS, {"loss": 1.0})))
    code = f"""
import sys
sys.modules["nvflare"] = None
from fedpost.compat import fobs
fobs.fobs_initialize()
try:
    fobs.loadf({str(tmp_path / "sent")!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert "needs a package that is not here. pip install nvflare" in done.stdout


DECOMPOSER = """
from fedpost.compat import fobs


class Mine:
    pass


class MineDecomposer(fobs.Decomposer):
    def supported_type(self):
        return Mine

    def decompose(self, target, manager=None):
        return None

    def recompose(self, data, manager=None):
        return Mine()
"""


@pytest.mark.parametrize("meta", ['{"byoc": true}', '{"byoc": false}', '{"byoc": "true"}', "[]", "{", None])
def test_decomposers_of_sites_and_jobs(tmp_path, monkeypatch, meta):
    for name in ("startup", "local"):
        (tmp_path / name).mkdir()
    workspace = Workspace(str(tmp_path))
    site = tmp_path / "local" / "custom" / "nvflare_decomposers"
    app = tmp_path / "job-1" / "app_server" / "custom"
    workspace.site_name = "server"
    job = workspace.get_app_custom_dir("job-1") + "/nvflare_decomposers"
    assert job.startswith(str(tmp_path)), app
    number = abs(hash(str(tmp_path)))
    for folder, stem in ((str(site), f"site_{number}"), (job, f"job_{number}")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{stem}.py").write_text(DECOMPOSER)
    if meta is not None:
        Path(workspace.get_job_meta_path("job-1")).write_text(meta)
    monkeypatch.setattr(sys, "path", list(sys.path))
    fobs.reset()
    fobs.fobs_initialize(workspace)
    assert f"site_{number}" in sys.modules
    fobs.fobs_initialize(workspace, "job-1")
    assert (f"job_{number}" in sys.modules) == (meta == '{"byoc": true}')
    assert fobs.num_decomposers() == (2 if meta == '{"byoc": true}' else 1)
    fobs.reset()


# ── states that somebody made ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("entry", SERIALIZERS, ids=lambda entry: entry.name)
@pytest.mark.parametrize(
    "state", [None, [], [1] * 3, [1] * 8, {"data": {"__class__": 1}}, "text", {"dict": 1}], ids=str
)
def test_impossible_states(entry, state):
    tree = ormsgpack.packb([[[entry.name, 1, None]], [[Kind.INSTANCE, 0, state]], reference(0)])
    with pytest.raises(ValueError):
        fobs.loads(bytes(Frame.build({"object": msgspec.Raw(tree)})))


def test_a_class_that_nobody_named():
    for name in ("os.system", "eval", "type", 7):
        state = {"data": {"dtype": name, "is_private": True, "is_sticky": True, "allow_none": False}}
        kind = "nvflare.app_common.widgets.event_recorder._CtxPropReq"
        tree = ormsgpack.packb([[[kind, 1, None]], [[Kind.INSTANCE, 0, state]], reference(0)])
        with pytest.raises(ValueError, match="no class is known as"):
            fobs.loads(bytes(Frame.build({"object": msgspec.Raw(tree)})))
