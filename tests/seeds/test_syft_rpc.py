"""The document "Serialization" of syft-flwr: its own example, and what it lists.

Its import is replaced by one line. What else was completed, as the document leaves it undefined:

=========================  =============================================================================================
name                       completion
=========================  =============================================================================================
``register_deserializer``  imported; the document uses it and imports ``register_serializer`` only
``CustomType``             a class with ``to_bytes`` and ``from_bytes``, which is all that the example asks of it
indentation                the bodies of the two functions are indented, which the document's page has lost
=========================  =============================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass, make_dataclass

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from fedpost.compat.syft_rpc import (
    Client,
    DatasetReference,
    PrivateData,
    SyftEvents,
    deserialize,
    make_url,
    register_deserializer,
    register_serializer,
    send,
    serialize,
)
from fedpost.errors import ConfigError, DecodeError, EncodeError, IntegrityError, UnsupportedError


class CustomType:
    def __init__(self, text: str) -> None:
        self.text = text

    def to_bytes(self) -> bytes:
        return self.text.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CustomType:
        return cls(data.decode())


# Example: Custom serializer registration


@register_serializer(CustomType)
def serialize_custom(obj: CustomType) -> bytes:
    # Custom serialization logic
    return obj.to_bytes()


@register_deserializer(CustomType)
def deserialize_custom(data: bytes) -> CustomType:
    # Custom deserialization logic
    return CustomType.from_bytes(data)


def test_custom_serialization():
    found = deserialize(serialize({"nested": [CustomType("grüße")]}))["nested"][0]
    assert type(found) is CustomType
    assert found.text == "grüße"
    assert serialize_custom(CustomType("a")) == b"a"  # the decorators leave the functions as they are
    assert deserialize_custom(b"a").text == "a"


# ── supported types ──────────────────────────────────────────────────────────────────────────────────────────────────


class Address(BaseModel):
    city: str


@dataclass
class Person:
    name: str
    age: int
    homes: list[Address]


def test_pydantic_models_and_dataclasses_come_back_as_their_own_type():
    person = Person("Zoë", 30, [Address(city="Köln")])
    assert deserialize(serialize(person), with_type=Person) == person
    assert deserialize(serialize([person] * 100), with_type=list[Person]) == [person] * 100
    assert deserialize(serialize(person.homes[0]), with_type=Address) == Address(city="Köln")


@pytest.mark.parametrize(
    "value",
    [
        *({"a": [1, 2.5, None, True], "é": "grüße 🌍", "\u202e": ""}, [1, "a"], "", "grüße 🌍", 0, -1, 1 << 80, 2.5),
        *(
            math.inf,
            True,
            False,
            None,
            b"",
            b"\x00\xff" * 5000,
            (1, (2,)),
            {1, 2},
            {frozenset({1}), (2, 3)},
            {1: {2: 3}},
        ),
    ],
    ids=repr,
)
def test_standard_types(value):
    found = deserialize(serialize(value))
    assert type(found) is type(value)
    assert found == value


def test_numpy_arrays_and_torch_tensors():
    value = {
        "numpy": np.arange(6, dtype=">f4").reshape(2, 3),
        "scalar": np.float16(1.5),
        "torch": torch.arange(5000, dtype=torch.bfloat16),
    }
    found = deserialize(serialize(value))
    np.testing.assert_array_equal(found["numpy"], value["numpy"])
    assert found["numpy"].dtype == value["numpy"].dtype
    assert type(found["scalar"]) is np.float16
    assert found["torch"].dtype is torch.bfloat16
    assert torch.equal(found["torch"], value["torch"])


# ── data flow, security considerations, validation ───────────────────────────────────────────────────────────────────


class Rows(PrivateData):
    def __init__(self) -> None:
        self.rows = [[1.0, 2.0]]


@pytest.fixture
def peers(tmp_path):
    server, site = Client("server@fl.org", tmp_path), Client("site@hospital.org", tmp_path)
    box = SyftEvents("flwr", server)
    box.updates = []

    @box.on_request("/update")
    def update(model: dict) -> dict:
        box.updates.append({name: array.copy() for name, array in model.items()})
        return {name: array * 2 for name, array in model.items()}

    box.start()
    yield box, make_url("server@fl.org", "flwr", "update"), site
    box.stop()


def test_model_updates_through_the_datasite_and_back(peers, tmp_path):
    box, url, site = peers
    model = {"layer.weight": np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)}
    response = send(url, "POST", model, client=site).wait(60)
    response.raise_for_status()
    np.testing.assert_array_equal(response.value()["layer.weight"], model["layer.weight"] * 2)
    np.testing.assert_array_equal(box.updates[0]["layer.weight"], model["layer.weight"])
    folder = tmp_path / "datasites" / "server@fl.org" / "app_data" / "flwr" / "rpc" / "responses"
    assert [path.name for path in folder.iterdir()] == [f"{response.id}.response"]


def test_raw_training_data_are_never_serialized_or_sent(peers, tmp_path):
    _, url, site = peers
    with pytest.raises(EncodeError, match=r"\$\.batch\[0\].*private data do not leave the site"):
        send(url, "POST", {"batch": [Rows()]}, client=site)
    assert list(tmp_path.rglob("*.request")) == []
    reference = DatasetReference(name="mimic", size=1 << 30, digest="ab" * 32)
    assert deserialize(serialize(reference)) == reference


def test_encryption_is_refused_and_never_left_out(peers, tmp_path):
    _, url, site = peers
    with pytest.raises(ConfigError, match="sealing is not available in this version, so nothing was sent"):
        send(url, "POST", {"secret": 1}, client=site, encrypt=True)
    with pytest.raises(ConfigError, match="sealing"):
        serialize({"secret": 1}, encrypt=True, recipient="server@fl.org")
    assert list(tmp_path.rglob("*.request")) == []


def test_type_checking_schema_validation_and_integrity():
    data = bytearray(serialize(Person("A", 1, [])))
    with pytest.raises(UnsupportedError, match=r"unknown type 'Person'.*with_type="):
        deserialize(data)
    with pytest.raises(DecodeError, match=r"list of Person was expected, not .*Person"):
        deserialize(data, with_type=list[Person])
    theirs = make_dataclass("Person", [("name", str), ("age", str), ("homes", list)])  # another release's
    wrong = serialize(theirs("A", "1", []))
    with pytest.raises(DecodeError, match=r"Person\.age: int was expected, not .*str"):
        deserialize(wrong, with_type=Person)
    data[-1] ^= 1
    with pytest.raises(IntegrityError):
        deserialize(data, with_type=Person)
