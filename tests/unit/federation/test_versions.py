"""Versions and replicas as values: what a packet makes is the same on both sides, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.errors import DecodeError, EncodeError, FedpostError, ProtocolError
from fedpost.federation.replicas import Replicas
from fedpost.federation.versions import Versions
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline
from fedpost.protocol import MAX_PACKETS

UQ = Pipeline.parse("uq(2) | fedwt | none")
SPECS = ["uq(2)", "delta", "eden(2)", "topk(0.1)", "sign", "int8"]


def model(seed=0):
    chance = np.random.default_rng(seed)
    return {
        "w": chance.normal(size=(40, 30)).astype(np.float32),
        "b": chance.normal(size=30).astype(np.float32),
        "n": np.array(3, np.int64),
    }


def moved(tensors, seed, scale=0.1):
    chance = np.random.default_rng(seed)
    return {
        name: (array + scale * chance.normal(size=array.shape)).astype(array.dtype) for name, array in tensors.items()
    }


def history(count, pipeline=UQ):
    """Versions one after the other, each after a packet more."""
    out = [Versions(pipeline).published(model())]
    for seed in range(1, count + 1):
        out.append(out[-1].published(moved(out[-1].base.tensors.arrays(), seed)))
    return out


def bits(base):
    return {name: array.tobytes() for name, array in base.tensors.arrays().items()}


def taken(replicas, versions, way, pipeline=UQ):
    return replicas.with_packets(
        versions.base.digest, [p.base for p in way], [memoryview(p.data) for p in way], pipeline, DEFAULT_LIMITS
    )


# ── the server's ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_version_is_the_model_itself_and_nobody_changes_it():
    given = model()
    versions = Versions(UQ).published(given)
    assert bits(versions.base) == {name: array.tobytes() for name, array in given.items()}
    given["w"][:] = 0
    assert versions.base.digest == Base.of(model()).digest == Base.of(versions.base.tensors.arrays()).digest
    with pytest.raises(ValueError, match="read-only"):
        versions.base.tensors.arrays()["w"][:] = 0


@pytest.mark.parametrize("spec", SPECS)
def test_packets_make_the_same_bits_on_both_sides(spec):
    pipeline = Pipeline.parse(f"{spec} | fedwt | zstd(3)")
    first, *later = history(5, pipeline)
    replicas = Replicas().with_snapshot(first.base.digest, first.base.tensors)
    for versions in later:
        way = versions.way(replicas.digests)
        assert len(way) == 1
        replicas = taken(replicas, versions, way, pipeline)
        assert bits(replicas.models[-1]) == bits(versions.base)
    assert len(replicas.models) == 2
    behind = Replicas().with_snapshot(first.base.digest, first.base.tensors)
    assert bits(taken(behind, versions, versions.way(behind.digests), pipeline).models[-1]) == bits(versions.base)


def test_what_packets_lost_is_made_good():
    made = meant = np.zeros((40, 30))
    versions = Versions(UQ).published(model())
    for seed in range(20):
        old = versions.base.tensors.arrays()["w"].astype(float)
        new = moved(versions.base.tensors.arrays(), seed)
        versions = versions.published(new)
        meant = meant + (new["w"] - old)
        made = made + (versions.base.tensors.arrays()["w"] - old)
    np.testing.assert_allclose(made + versions.residual["w"], meant, atol=1e-4)
    assert np.abs(versions.residual["w"]).max() > 0.01


@pytest.mark.parametrize("change", ["shape", "name", "type", "fewer"])
def test_a_model_of_other_tensors_starts_over(change):
    versions = history(3)[-1]
    other = model(5)
    if change == "shape":
        other["w"] = other["w"].T.copy()
    elif change == "name":
        other["x"] = other.pop("w")
    elif change == "type":
        other["w"] = other["w"].astype(np.float64)
    else:
        del other["b"]
    after = versions.published(other)
    assert bits(after.base) == {name: array.tobytes() for name, array in other.items()}
    assert (after.packets, dict(after.residual)) == ((), {})


def test_a_model_that_did_not_change_is_no_new_version():
    versions = history(2, Pipeline.parse("delta | fedwt | none"))[-1]
    same = versions.published(versions.base.tensors.arrays())
    assert (same.base.digest, same.packets) == (versions.base.digest, versions.packets)


def test_a_model_that_comes_back_to_what_it_was_has_the_shortest_way():
    versions = history(0, Pipeline.parse("delta | fedwt | none"))[-1]
    first, other = versions.base.tensors.arrays(), moved(model(), 9)
    versions = versions.published(other).published(first).published(other)
    assert len(versions.packets) == 3
    assert len(versions.way([Base.of(first).digest])) == 1


def test_the_way_begins_at_the_nearest_version_that_a_site_holds():
    all_of_them = history(4)
    digests, last = [versions.base.digest for versions in all_of_them], all_of_them[-1]
    assert last.way([]) is None
    assert last.way([bytes(16)]) is None
    assert last.way([digests[-1], digests[0]]) == ()
    assert last.way([digests[0], digests[2]]) == last.packets[2:]
    assert last.way([digests[0]]) == last.packets


def test_packets_that_take_more_bytes_than_a_snapshot_are_let_go_of():
    versions = history(6)[-1]
    last_two = versions.packets[-1].nbytes + versions.packets[-2].nbytes
    assert versions.trimmed(last_two).packets == versions.packets[-2:]
    assert versions.trimmed(last_two - 1).packets == versions.packets[-1:]
    assert versions.trimmed(0).packets == ()
    assert versions.trimmed(1 << 30) is versions


def test_there_are_never_more_packets_than_a_message_may_bring():
    versions = history(1)[-1]
    many = replace(versions, packets=versions.packets * MAX_PACKETS)
    assert len(many.published(moved(versions.base.tensors.arrays(), 7)).packets) == MAX_PACKETS


def test_what_cannot_be_carried_names_the_tensor_and_changes_nothing():
    versions = history(1)[-1]
    bad = model()
    bad["w"][3, 4] = np.nan
    with pytest.raises(EncodeError, match="tensor 'w'"):
        versions.published(bad)


@pytest.mark.parametrize("count", [0, 3])
def test_versions_come_back_from_their_frame(count):
    versions = history(count)[-1]
    back = Versions.of(Frame.decode(bytes(versions.frame())))
    assert (back.pipeline, bits(back.base), back.base.digest) == (UQ, bits(versions.base), versions.base.digest)
    assert back.packets == versions.packets
    new = moved(versions.base.tensors.arrays(), 8)
    assert back.published(new).base.digest == versions.published(new).base.digest, "the residual is another"


def test_no_versions_come_back_as_none():
    back = Versions.of(Frame.decode(bytes(Versions(UQ).frame())))
    assert (back.base, back.packets, dict(back.residual)) == (None, (), {})


@pytest.mark.parametrize("lie", ["model", "order", "missing", "other"])
def test_a_frame_that_does_not_fit_together_is_refused(lie):
    versions = history(3)[-1]
    if lie == "model":
        versions = replace(versions, base=Base(bytes(16), versions.base.tensors))
    elif lie == "order":
        versions = replace(versions, packets=versions.packets[::-1])
    elif lie == "missing":
        versions = replace(versions, packets=versions.packets[:-1])
    frame = UQ.encode(model(), base=Base.of(model())) if lie == "other" else versions.frame()
    with pytest.raises(DecodeError):
        Versions.of(Frame.decode(bytes(frame)))


# ── a site's ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def chain():
    """Replicas at the first version, the newest version, and its packets."""
    all_of_them = history(4)
    first, last = all_of_them[0], all_of_them[-1]
    return Replicas().with_snapshot(first.base.digest, first.base.tensors), last, list(last.packets)


def test_packets_that_are_not_needed_are_not_looked_at(chain):
    replicas, last, way = chain
    up_to_date = taken(replicas, last, way)
    nonsense = [replace(packet, data=b"nonsense") for packet in way]
    assert taken(up_to_date, last, nonsense) is up_to_date
    almost = taken(replicas, history(3)[-1], way[:3])
    assert taken(almost, last, [*nonsense[:3], way[3]]).models[-1].digest == last.base.digest


def test_a_snapshot_of_what_is_there_is_not_read(chain):
    replicas, last, way = chain
    here = taken(replicas, last, way)
    assert here.with_snapshot(last.base.digest, None) is here


def test_a_snapshot_that_is_another_model_is_refused(chain):
    replicas, last, _ = chain
    with pytest.raises(DecodeError, match="said was"):
        replicas.with_snapshot(last.base.digest, Base.of(model(9)).tensors)


def _other_packet(base, pipeline=UQ, tensors=None):
    new = moved(base.tensors.arrays(), 77) if tensors is None else tensors
    return bytes(pipeline.encode(new, base=base))


def unchained(replicas, way):
    return [way[0], way[2], way[1], way[3]]


def skipped(replicas, way):
    return [way[0], *way[2:]]


def another_result(replicas, way):
    return [replace(way[0], data=_other_packet(replicas.models[0])), *way[1:]]


def another_last_result(replicas, way):
    return [*way[:3], replace(way[3], data=way[2].data)]


def truncated(replicas, way):
    return [replace(way[0], data=way[0].data[:-70]), *way[1:]]


def no_frame(replicas, way):
    return [replace(way[0], data=b""), *way[1:]]


def other_pipeline(replicas, way):
    return [replace(way[0], data=_other_packet(replicas.models[0], Pipeline.parse("uq(3) | fedwt | none"))), *way[1:]]


def other_checksum(replicas, way):
    pipeline = Pipeline.parse("uq(2) | fedwt | none", checksum="xxh3")
    return [replace(way[0], data=_other_packet(replicas.models[0], pipeline)), *way[1:]]


def fewer_tensors(replicas, way):
    less = dict(list(model(3).items())[:2])
    return [replace(way[0], data=_other_packet(replicas.models[0], tensors=less)), *way[1:]]


def a_huge_tensor(replicas, way):
    more = model(3) | {"more": np.zeros(1 << 20, np.float32)}
    return [replace(way[0], data=_other_packet(replicas.models[0], tensors=more)), *way[1:]]


def unknown_bases(replicas, way):
    return way[1:]


ATTACKS = [
    unchained,
    skipped,
    another_result,
    another_last_result,
    truncated,
    no_frame,
    other_pipeline,
    other_checksum,
    fewer_tensors,
    a_huge_tensor,
    unknown_bases,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_packets_that_do_not_lead_to_the_version_named_change_nothing(chain, attack):
    replicas, last, way = chain
    with pytest.raises((DecodeError, ProtocolError)) as caught:
        taken(replicas, last, attack(replicas, way))
    assert isinstance(caught.value, FedpostError)
    assert len(replicas.models) == 1
    if attack is not unknown_bases:
        assert "packet" in str(caught.value)
    assert taken(replicas, last, way).models[-1].digest == last.base.digest


# ── what a version is not ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_is_no_view_of_the_strategys_arrays():
    versions = Versions(UQ).published(model())
    given = {**moved(model(), 1), "n": np.array(4, np.int64)}
    after = versions.published(given)
    digest = after.base.digest
    for array in given.values():
        np.add(array, 1, out=array)
    assert Base.of(after.base.tensors.arrays()).digest == digest
    assert not any(array.flags.writeable for array in after.base.tensors.arrays().values())


def test_the_order_of_tensors_is_that_of_the_first_version():
    first = Versions(UQ).published(model())
    given = moved(model(), 1)
    after = first.published({name: given[name] for name in reversed(given)})
    assert list(after.base.tensors.arrays()) == list(model())
    assert after.base.digest == first.published(given).base.digest
    replicas = taken(Replicas().with_snapshot(first.base.digest, first.base.tensors), after, after.packets)
    assert list(replicas.models[-1].tensors.arrays()) == list(model())


def test_a_strategy_with_a_model_of_its_own_goes_on_from_what_was_published():
    """Server momentum: told what was published it arrives; going on from its own it adds what is missing again."""

    def distance(*, told):
        chance = np.random.default_rng(0)
        aim = chance.normal(size=(60, 50)).astype(np.float32)
        own, momentum = np.zeros_like(aim), np.zeros_like(aim)
        versions = Versions(UQ).published({"w": own})
        for _ in range(40):
            seen = versions.base.tensors.arrays()["w"]
            mean = seen - np.float32(0.3) * (seen - aim)
            momentum = np.float32(0.9) * momentum + (own - mean)
            own = own - np.float32(0.3) * momentum
            versions = versions.published({"w": own})
            if told:
                own = versions.base.tensors.arrays()["w"]
        return float(np.sqrt(np.mean((versions.base.tensors.arrays()["w"] - aim) ** 2)))

    assert distance(told=True) < 0.2
    assert distance(told=False) > 1


def test_nearly_nothing_of_a_large_model_changed():
    pipeline = Pipeline.parse("delta | fedwt | zstd(3)")
    tight = replace(DEFAULT_LIMITS, free_raw=1 << 16, max_swell=2)
    tensors = {"w": np.zeros((2000, 2000), np.float32)}
    first = Versions(pipeline).published(tensors)
    after = first.published({"w": tensors["w"] + np.eye(2000, dtype=np.float32)})
    replicas = Replicas().with_snapshot(first.base.digest, first.base.tensors)
    (packet,) = after.packets
    here = replicas.with_packets(after.base.digest, [packet.base], [memoryview(packet.data)], pipeline, tight)
    assert bits(here.models[-1]) == bits(after.base)
