"""A model's state goes to named arrays, through a frame and back, bit for bit."""

from __future__ import annotations

import importlib
import sys

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import EncodeError, MissingExtraError, RefusedResultError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fedpost[torch]'")

from fedpost.integrations.torch import get_state, set_state  # noqa: E402 - it needs what was asked for just above

FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
ML_DTYPES = ["bfloat16", *FLOAT8]
NUMPY_DTYPES = ["float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64", "complex64"]


def torch_type(name: str):
    """The element type of that name, where this version of PyTorch has it."""
    if not hasattr(torch, name):
        pytest.skip(f"this version of PyTorch has no {name}")
    return getattr(torch, name)


class Holder(torch.nn.Module):
    """A module that holds the tensors it is given."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def every_bit_pattern(name: str):
    """A tensor whose values, NaNs and infinities among them, take each byte: 4 x 16 of them or more."""
    octets = torch.arange(256, dtype=torch.uint8)
    if name == "bool":
        return (octets % 2).view(torch.bool).reshape(16, 16)
    return octets.view(torch_type(name)).reshape(4, -1)


def bits(tensor) -> bytes:
    """A tensor's bytes in C order, so that NaN equals NaN."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def mixed_model(seed: int):
    """A small network with what models hold: batch statistics, their int64 count, halves, doubles, a scalar, a view."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 3)
    )
    model(torch.randn(5, 1, 4, 4)).sum().backward()
    model.append(torch.nn.Linear(3, 2, dtype=torch.bfloat16))
    model.append(torch.nn.Linear(2, 2, dtype=torch.float16))
    model.append(torch.nn.Linear(2, 2, dtype=torch.float64))
    small = torch.randn(3, 4).to(torch.float8_e4m3fn)
    transposed = torch.randn(3, 4).to(torch.bfloat16).t()
    model.append(Holder(temperature=torch.randn(()), small=small, transposed=transposed, empty=torch.empty(0, 7)))
    return model


def through_a_frame(arrays, spec: str = "dense | fedwt | none"):
    """Encode, write down as bytes, and read back."""
    return decode_tensors(Frame.decode(bytes(Pipeline.parse(spec).encode(arrays)))).arrays()


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*ML_DTYPES, *NUMPY_DTYPES])
def test_every_element_type_keeps_its_name_and_its_bits(name):
    tensor = every_bit_pattern(name)
    array = get_state(Holder(x=tensor))["x"]
    assert array.dtype == np.dtype(getattr(ml_dtypes, name, name))
    assert array.shape == tuple(tensor.shape)
    assert array.tobytes() == bits(tensor)
    other = Holder(x=torch.zeros(tensor.shape, dtype=tensor.dtype))
    set_state(other, {"x": array})
    assert bits(other.x) == bits(tensor)


@pytest.mark.parametrize("spec", ["dense | fedwt | none", "dense | fedwt | zstd", "dense | numpy | none"])
def test_a_model_goes_through_a_frame(spec):
    model, other = mixed_model(0), mixed_model(1)
    arrays = through_a_frame(get_state(model), spec)
    set_state(other, arrays)
    expected, found = model.state_dict(), other.state_dict()
    assert list(arrays) == list(expected)
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in expected.items()}
    assert {name: bits(tensor) for name, tensor in found.items()} == {n: bits(t) for n, t in expected.items()}
    assert found["1.num_batches_tracked"].dtype == torch.int64
    assert found["7.temperature"].shape == ()


def test_arrays_in_order_do_as_well_as_by_name():
    model, other = mixed_model(0), mixed_model(1)
    set_state(other, list(get_state(model).values()))
    assert [bits(t) for t in other.state_dict().values()] == [bits(t) for t in model.state_dict().values()]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2"])
def test_a_tensor_need_not_be_contiguous(name):
    tensor = torch.arange(24.0).reshape(4, 6).to(torch_type(name))[::2, 1::2].t()
    array = get_state(Holder(x=tensor))["x"]
    assert not array.flags.c_contiguous
    assert np.array_equal(array.astype(np.float32), tensor.to(torch.float32).numpy())
    assert through_a_frame({"x": array})["x"].tobytes() == bits(tensor)
    other = Holder(x=torch.zeros_like(tensor))
    assert not other.x.is_contiguous()
    set_state(other, {"x": array})
    assert bits(other.x) == bits(tensor)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "int64"])
def test_a_scalar_stays_a_scalar(name):
    array = get_state(Holder(x=torch.tensor(2).to(torch_type(name))))["x"]
    assert (array.shape, float(array)) == ((), 2.0)
    other = Holder(x=torch.tensor(1).to(torch_type(name)))
    set_state(other, through_a_frame({"x": array}))
    assert other.x.item() == 2


def test_a_conjugate_view_gives_its_values():
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    state = get_state(Holder(x=tensor.conj(), y=tensor.conj().imag))
    assert state["x"].tolist() == [1 - 2j, 3 + 4j]
    assert state["y"].tolist() == [-2.0, 4.0]


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_get_state_copies_nothing_on_the_cpu():
    model = mixed_model(0)
    state = get_state(model)
    for name, tensor in model.state_dict().items():
        assert state[name].__array_interface__["data"][0] == tensor.data_ptr() or not tensor.numel(), name
    with torch.no_grad():
        model[3].bias.fill_(7)
        model[4].bias.fill_(7)
    assert state["3.bias"].tolist() == [7.0] * 3
    assert state["4.bias"].astype(np.float32).tolist() == [7.0] * 2


def test_set_state_keeps_the_models_own_memory():
    model = mixed_model(0)
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    arrays = {name: np.array(array) for name, array in get_state(model).items()}
    set_state(model, arrays)
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    arrays["3.bias"][:] = 9
    assert model[3].bias.tolist() != [9.0] * 3
    assert model[3].bias.requires_grad


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def renamed(arrays):
    arrays["8.other"] = arrays.pop("7.temperature")


def missing(arrays):
    del arrays["7.temperature"]


def extra(arrays):
    arrays["8.other"] = np.zeros(2)


def replaced(array):
    """Something else in the last tensor's place, so that every other one fits."""

    def change(arrays):
        arrays["7.transposed"] = array

    return change


BFLOAT16 = ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (renamed, "7.temperature"),
        (missing, "7.temperature"),
        (extra, "8.other"),
        (replaced(np.zeros((3, 4), BFLOAT16)), "7.transposed"),
        (replaced(np.zeros((4, 3, 1), BFLOAT16)), "7.transposed"),
        (replaced(np.zeros((4, 3), np.float32)), "7.transposed"),
        (replaced(np.zeros((4, 3), np.int16)), "7.transposed"),
        (replaced(np.zeros((4, 3), ml_dtypes.int4)), "7.transposed"),
        (replaced(np.zeros((4, 3), np.longdouble)), "7.transposed"),
        (replaced(np.zeros((4, 3), ">f4")), "7.transposed"),
        (replaced(np.full((4, 3), "text")), "7.transposed"),
    ],
)
def test_what_does_not_fit_changes_nothing(change, where):
    model = mixed_model(0)
    before = {name: bits(tensor) for name, tensor in model.state_dict().items()}
    arrays = {name: np.ones(array.shape, array.dtype) for name, array in get_state(model).items()}
    change(arrays)
    with pytest.raises(RefusedResultError) as caught:
        set_state(model, arrays)
    assert caught.value.where == f"tensor {where!r}"
    assert {name: bits(tensor) for name, tensor in model.state_dict().items()} == before


def test_another_number_of_arrays_changes_nothing():
    model = mixed_model(0)
    before = [bits(tensor) for tensor in model.state_dict().values()]
    with pytest.raises(RefusedResultError, match=r"^1 arrays for a model of "):
        set_state(model, [np.ones((4, 1, 3, 3), np.float32)])
    assert [bits(tensor) for tensor in model.state_dict().values()] == before


class Note(torch.nn.Module):
    """A module whose state is no tensor."""

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        raise AssertionError(state)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (Note(), "dict is not a dense tensor"),
        (Holder(x=torch.eye(3).to_sparse()), "Tensor is not a dense tensor"),
        (Holder(x=torch.empty(3, device="meta")), "it has no values yet. Initialize the model first."),
        (torch.nn.LazyLinear(3, bias=False), "it has no values yet. Initialize the model first."),
    ],
)
def test_a_state_without_arrays_is_refused_by_name(model, what):
    name = next(iter(model.state_dict()))
    for call in (lambda: get_state(model), lambda: set_state(model, {name: np.zeros(3, np.float32)})):
        with pytest.raises(EncodeError) as caught:
            call()
        assert str(caught.value) == f"state_dict entry {name!r}: {what}"


def test_an_element_type_that_numpy_has_not_is_refused():
    kind = torch_type("float4_e2m1fn_x2")
    with pytest.raises(EncodeError, match=r"^state_dict entry 'x': NumPy has no torch\.float4_e2m1fn_x2$"):
        get_state(Holder(x=torch.zeros(4, dtype=torch.uint8).view(kind)))


def test_without_pytorch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fedpost.integrations.torch")
    with pytest.raises(MissingExtraError, match=r"pip install 'fedpost\[torch\]'"):
        importlib.import_module("fedpost.integrations.torch")
