"""NVFLARE's own types inside of objects: what controllers and executors exchange.

Rules: an FLContext comes back without its engine's logger, a Workspace only where its folders are; a DXO and an FLModel
are checked by their own constructors. The class of ``_CtxPropReq.dtype`` is written by its name in a fixed table.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final

from fedpost.errors import DecodeError, MissingExtraError
from fedpost.objects import Serializer
from fedpost.objects.attributes import describe_attributes, make_attributes, take_attributes
from fedpost.objects.classes import describe_class
from fedpost.objects.types import qualified_name

try:
    from nvflare.apis.analytix import AnalyticsDataType, LogWriterName
    from nvflare.apis.client import Client
    from nvflare.apis.client_engine_spec import ClientEngineSpec
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.fl_snapshot import RunSnapshot
    from nvflare.apis.job_def import JobMetaKey
    from nvflare.apis.server_engine_spec import ServerEngineSpec
    from nvflare.apis.shareable import Shareable
    from nvflare.apis.signal import Signal
    from nvflare.apis.workspace import Workspace
    from nvflare.app_common.abstract import statistics_spec
    from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
    from nvflare.app_common.abstract.learnable import Learnable
    from nvflare.app_common.abstract.model import ModelLearnable
    from nvflare.app_common.widgets.event_recorder import _CtxPropReq, _EventReq, _EventStats
    from nvflare.private.admin_defs import Message
    from nvflare.private.fed.server.run_info import RunInfo
    from nvflare.private.fed.server.server_state import HotState
except ImportError as error:
    raise MissingExtraError("objects with NVFLARE's types need NVFLARE", hint="pip install nvflare") from error

__all__ = ["SERIALIZERS"]

_STATISTICS: Final = ("Bin", "BinRange", "Feature", "Histogram", "StatisticConfig")
_MODEL: Final = (
    *("params_type", "params", "optimizer_params", "metrics"),
    *("start_round", "current_round", "total_rounds", "meta"),
)


def _state(state: Any, *kinds: type | tuple[type, ...]) -> list[Any]:
    """The state, when it is a list of values of these types."""
    if type(state) is not list or len(state) != len(kinds) or not all(map(isinstance, state, kinds)):
        raise DecodeError(f"a state of {len(kinds)} parts was expected")
    return state


def _take(names: tuple[str, ...], value: Any) -> list[Any]:
    return [getattr(value, name) for name in names]


def _make_dxo(state: Any) -> Any:
    kind, data, meta = _state(state, str, object, dict)
    return DXO(data_kind=kind, data=data, meta=meta)


def _make_context(state: Any) -> Any:
    model, props = _state(state, object, dict)
    out = FLContext()
    out.model, out.props = model, props
    return out


def _make_workspace(state: Any) -> Any:
    return Workspace(*_state(state, str, (str, type(None)), str))


def _make_model(state: Any) -> Any:
    values = dict(zip(_MODEL, _state(state, *[object] * len(_MODEL)), strict=True))
    return FLModel(**values)


# ── classes as values ────────────────────────────────────────────────────────────────────────────────────────────────

_CLASSES: Final[dict[str, type]] = {
    kind.__name__: kind for kind in (str, int, float, bool, bytes, list, dict, tuple, set, object)
} | {
    qualified_name(kind): kind
    for kind in (
        *(Client, ClientEngineSpec, DXO, FLContext, FLModel, Learnable, ModelLearnable, RunSnapshot),
        *(ServerEngineSpec, Shareable, Signal, Workspace),
    )
}


def _take_requirement(value: Any) -> dict[str, Any]:
    state = take_attributes(value)
    kind = value.dtype
    if kind is not None:
        name = next((name for name, known in _CLASSES.items() if known is kind), None)
        if name is None:
            raise TypeError(f"the class {kind!r} has no name that a reader knows")
        state["data"] = {**state["data"], "dtype": name}
    return state


def _make_requirement(state: Any) -> Any:
    out = make_attributes(_CtxPropReq, state)
    kind = getattr(out, "dtype", None)
    if kind is not None:
        if type(kind) is not str or kind not in _CLASSES:
            raise DecodeError(f"no class is known as {str(kind)[:80]!r}")
        out.dtype = _CLASSES[kind]
    return out


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of(cls: type, take: Callable[[Any], Any], make: Callable[[Any], Any]) -> Serializer:
    return Serializer(cls=cls, name=qualified_name(cls), take=take, make=make)


def _by_definition(cls: type) -> Serializer:
    found = describe_class(cls, qualified_name(cls))
    if found is None:
        raise AssertionError(cls)  # enumerations and named tuples only
    return found


_ENUMERATIONS: Final[tuple[type[Enum], ...]] = (
    *(AnalyticsDataType, LogWriterName, DataKind, JobMetaKey, ParamsType),
    *(statistics_spec.DataType, statistics_spec.HistogramType),
)
_BY_ATTRIBUTES: Final[tuple[type, ...]] = (
    *(Client, RunSnapshot, Signal, Shareable, Learnable, ModelLearnable),
    *(_EventReq, _EventStats, Message, RunInfo, HotState),
)

SERIALIZERS: Final[tuple[Serializer, ...]] = (
    _of(DXO, partial(_take, ("data_kind", "data", "meta")), _make_dxo),
    _of(FLContext, partial(_take, ("model", "props")), _make_context),
    _of(Workspace, partial(_take, ("root_dir", "site_name", "config_folder")), _make_workspace),
    _of(FLModel, partial(_take, _MODEL), _make_model),
    _of(_CtxPropReq, _take_requirement, _make_requirement),
    *(describe_attributes(cls, qualified_name(cls)) for cls in _BY_ATTRIBUTES),
    *(_by_definition(cls) for cls in _ENUMERATIONS),
    *(_by_definition(getattr(statistics_spec, name)) for name in _STATISTICS),
)
