"""PyTorch tensors inside of objects: every element type and layout, what they share, and what is refused."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import fedpost
from fedpost.errors import EncodeError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'fedpost[torch]'")

from fedpost.integrations.torch_objects import SERIALIZERS  # noqa: E402 - it needs what was asked for just above

NAMES = sorted({str(kind) for kind in vars(torch).values() if isinstance(kind, torch.dtype)})
DTYPES = [
    name.removeprefix("torch.")
    for name in NAMES
    if not name.startswith(("torch.q", "torch.bits")) and name.rstrip("1234567") not in ("torch.int", "torch.uint")
]
DTYPES += ["int16", "int32", "int64", "uint16", "uint32", "uint64"]


def back(value):
    return fedpost.loads(fedpost.dumps(value))


def octets(tensor) -> bytes:
    return bytes(tensor.untyped_storage())


@pytest.mark.parametrize("name", sorted(set(DTYPES)))
def test_every_element_type_keeps_its_bits(name):
    whole = torch.arange(256, dtype=torch.uint8)
    tensor = (whole % 2).view(torch.bool) if name == "bool" else whole.view(getattr(torch, name))
    found = back(tensor)
    assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert octets(found) == octets(tensor)
    assert back(tensor[0]).shape == ()
    assert back(tensor[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_every_element_type_is_a_value_itself(name):
    kind = getattr(torch, name.removeprefix("torch."))
    assert back(kind) is kind


@pytest.mark.parametrize("name", ["int3", "uint7", "bits8"])
def test_elements_that_pytorch_cannot_copy_are_refused(name):
    tensor = torch.zeros(8, dtype=torch.uint8).view(getattr(torch, name))
    with pytest.raises(EncodeError, match=f"elements {name}"):
        fedpost.dumps(tensor)


LAYOUTS = {
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).t(),
    "every second": lambda: torch.arange(9.0)[::2],
    "channels last": lambda: torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "repeated": lambda: torch.ones(1).expand(5),
    "overlapping": lambda: torch.arange(5.0).unfold(0, 3, 1),
    "no dimensions": lambda: torch.tensor(3),
    "empty": lambda: torch.empty(0, 1 << 40),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_kept(layout):
    tensor = LAYOUTS[layout]()
    found = back(tensor)
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()


def test_conjugates_negatives_and_zeros_are_written_as_what_they_stand_for():
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    for lazy in (tensor.conj(), tensor.conj().imag, torch._efficientzerotensor(2)):
        found = back(lazy)
        assert torch.equal(found, lazy.clone())
        assert not found.is_conj()
        assert not found.is_neg()


def test_tensors_that_shared_memory_share_it_afterwards():
    whole = torch.arange(8.0)
    first, second, again = back([whole[:6], whole[2:], whole[2:]])
    first[2] = 70
    assert second[0] == again[0] == 70
    tied = torch.nn.Parameter(torch.ones(3))
    one, other = back([tied, tied])
    assert one is other
    assert type(one) is torch.nn.Parameter


@pytest.mark.parametrize("order", [("whole", "first"), ("first", "whole"), ("first", "last")], ids="-".join)
def test_parts_share_the_whole_in_any_order(order):
    whole = torch.arange(12.0)
    tensors = dict(zip(("first", "middle", "last"), whole.chunk(3), strict=True), whole=whole)
    one, other = back([tensors[name] for name in order])
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    assert torch.equal(one, tensors[order[0]])
    assert torch.equal(other, tensors[order[1]])
    other.zero_()
    assert bool((one == 0).all()) == ("whole" in order and order[1] == "whole")


def test_a_small_part_of_a_large_storage_is_written_alone(monkeypatch):
    whole = torch.zeros(100_000)
    assert back(whole[:100]).untyped_storage().nbytes() == 400_000
    monkeypatch.setattr("fedpost.integrations.torch_objects._MAX_WHOLE", 1000)
    assert len(fedpost.dumps(whole[:100])) < 2000
    assert back(whole[::4]).untyped_storage().nbytes() == 400_000
    assert back(whole[::10]).untyped_storage().nbytes() == 40_000


def test_what_seems_much_larger_than_its_storage_is_written_whole(monkeypatch):
    huge = torch.ones(1).expand(30, 5)
    assert back(huge).stride() == (0, 0)
    monkeypatch.setattr("fedpost.integrations.torch_objects._MAX_REPEATED", 100)
    found = back(huge)
    assert torch.equal(found, huge)
    assert found.stride() == (5, 1)


def test_gradients():
    leaf = torch.ones(2, requires_grad=True)
    for tensor in (leaf, leaf * 2):
        found = back(tensor)
        assert found.requires_grad
        assert found.is_leaf
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    assert not back(frozen).requires_grad


def test_a_module_s_state():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.LSTM(4, 2))
    state = model.state_dict()
    found = back(state)
    assert type(found) is collections.OrderedDict
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.LSTM(4, 2))
    other.load_state_dict(found)
    optimizer = torch.optim.Adam(model.parameters())
    model[:2](torch.randn(5, 3)).sum().backward()
    optimizer.step()
    torch.optim.Adam(other.parameters()).load_state_dict(back(optimizer.state_dict()))


def test_sizes_and_devices():
    values = [torch.Size([1, 2]), torch.Size([]), torch.device("cpu"), torch.device("cuda:1"), torch.device("meta")]
    found = back(values)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


class Labelled(torch.Tensor):
    """A subclass."""


REFUSED = {
    "sparse": (lambda: torch.ones(3).to_sparse(), "sparse, quantized or without values"),
    "without values": (lambda: torch.ones(3, device="meta"), "sparse, quantized or without values"),
    "subclass": (lambda: torch.ones(3).as_subclass(Labelled), "Labelled"),
    "not initialised": (torch.nn.UninitializedParameter, "UninitializedParameter"),
    "a generator": (torch.Generator, "Generator"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_says_why(what):
    make, why = REFUSED[what]
    with pytest.raises(EncodeError, match=why):
        fedpost.dumps({"model": [make()]})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_tensors_are_refused():
    with pytest.raises(EncodeError, match="quantized"):
        fedpost.dumps(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))


def test_writing_copies_nothing_and_reading_once():
    tensor = torch.zeros(1 << 16)
    storage = next(entry for entry in SERIALIZERS if entry.cls is torch.UntypedStorage)
    written = storage.take(tensor.untyped_storage())
    assert written.__array_interface__["data"][0] == tensor.data_ptr()
    data = fedpost.dumps(tensor)
    found = fedpost.loads(data)
    found[0] = 1
    assert fedpost.loads(data)[0] == 0


def test_memory_of_another_library():
    array = np.arange(4.0)
    found = back(torch.from_numpy(array))
    found[0] = 9
    assert array[0] == 0


def test_a_state_dict_keeps_its_versions():
    sent = torch.nn.BatchNorm1d(3).state_dict()
    received = fedpost.loads(fedpost.dumps(sent))
    assert received._metadata == sent._metadata
    assert sent._metadata[""]["version"] == received._metadata[""]["version"] == 2
