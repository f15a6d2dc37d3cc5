"""A round's table: every row, and every order in which three sites can answer, drop out or stay silent."""

from __future__ import annotations

import itertools

import pytest

from fedpost.errors import ProtocolError, RemoteError
from fedpost.federation.rounds import Round, RoundState

SITES = ("a", "b", "c")
DEADLINE = 10.0
GONE = RemoteError("gone")


def new(minimum=2, asked=SITES):
    return Round(3, 1, minimum, DEADLINE, frozenset(asked))


def expected(waiting: int, accepted: int, minimum: int, *, late: bool) -> RoundState:
    """Written from the prose: how a round stands by what was counted."""
    if accepted < minimum:
        return RoundState.SHORT if late or accepted + waiting < minimum else RoundState.OPEN
    if waiting == 0:
        return RoundState.COMPLETE
    return RoundState.PARTIAL if late else RoundState.OPEN


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("minimum", [1, 2, 3, 4])
def test_every_state_that_three_sites_can_be_in(minimum, late):
    for states in itertools.product(["waiting", "accepted", "dropped"], repeat=3):
        current = new(minimum)
        for site, state in zip(SITES, states, strict=True):
            if state == "accepted":
                current = current.accept(site)
            elif state == "dropped":
                current = current.drop(site, GONE)
        wanted = expected(states.count("waiting"), states.count("accepted"), minimum, late=late)
        assert current.state(DEADLINE if late else DEADLINE - 1e-9) is wanted, states
        assert current.waiting | current.accepted | set(current.dropped) == set(SITES)


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_every_interleaving_of_answers_drops_and_timeouts(minimum):
    """Whatever the order, the round ends the same, never reopens, and counts every site once."""
    ends = {}
    for fates in itertools.product(["accept", "drop", "silence"], repeat=3):
        for order in itertools.permutations(range(3)):
            current, over = new(minimum), None
            for index in order:
                if fates[index] == "accept":
                    current = current.accept(SITES[index])
                elif fates[index] == "drop":
                    current = current.drop(SITES[index], GONE)
                state = current.state(0.0)
                if over is RoundState.SHORT:
                    assert state is RoundState.SHORT, "too few became enough"
                over = state if state is not RoundState.OPEN else over
            final = current.state(DEADLINE)
            assert final is not RoundState.OPEN, "time is up, and the round is still open"
            accepted = frozenset(site for site, fate in zip(SITES, fates, strict=True) if fate == "accept")
            assert current.accepted == accepted
            assert ends.setdefault(fates, (final, accepted)) == (final, accepted)
            assert (final is RoundState.SHORT) == (len(accepted) < minimum)
            assert (final is RoundState.PARTIAL) == (len(accepted) >= minimum and "silence" in fates)


def test_an_answer_of_another_round_or_attempt_is_stale():
    for number, attempt in itertools.product(range(6), range(4)):
        if (number, attempt) == (3, 1):
            new().expect("a", number, attempt)
        else:
            with pytest.raises(
                ProtocolError, match=f"stale: the answer is for round {number}.{attempt}, now is round 3.1"
            ):
                new().expect("a", number, attempt)


@pytest.mark.parametrize("current", [new().accept("a"), new().drop("a", GONE), new(asked="bc")])
def test_only_a_site_that_is_waited_for_may_answer(current):
    with pytest.raises(ProtocolError, match="not asked, or has answered already"):
        current.expect("a", 3, 1)


def test_a_site_that_answered_is_not_dropped_any_more():
    current = new().accept("a")
    assert current.drop("a", GONE) is current
    assert new().drop("nobody", GONE) == new()


def test_the_first_reason_for_a_drop_is_kept():
    first = RemoteError("first")
    assert new().drop("a", first).drop("a", GONE).dropped == {"a": first}


def test_steps_make_new_values():
    before = new()
    before.accept("a")
    before.drop("b", GONE)
    assert before == new()


def test_a_round_that_nobody_was_asked_in_is_short():
    assert new(asked=()).state(0.0) is RoundState.SHORT
