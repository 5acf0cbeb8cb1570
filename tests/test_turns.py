"""Whose turn it is: no key is written twice at once, nobody waits for a key that is free, nobody is forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.turns import Turns
from snapring.keys import Key

KEYS = [Key(tenant="t", cache="c", args=(letter,)) for letter in "abcd"]
SOME = st.frozensets(st.sampled_from(KEYS), min_size=1, max_size=3)
ANY = st.integers(0, 2**16)


@dataclass(eq=False)
class Write:
    """A write, by its keys."""

    keys: frozenset[Key]


def test_two_that_want_each_others_key_do_not_wait_for_ever() -> None:
    """Each came back for a key that the other wants too: one lets go of its own."""
    turns: Turns[Write] = Turns()
    writes = [Write(frozenset(KEYS[:2])) for _ in range(2)]
    for write in writes:
        turns.add(write)
    assert turns.take(1, 2) == writes
    for write, key in zip(writes, KEYS, strict=False):
        assert turns.came_back(write, key)
    turns.done(writes)
    for write in writes:
        turns.again(write)
    assert turns.any()


class Waiting(RuleBasedStateMachine):
    """Writes come, are taken, come back, rest, leave and are done, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[Write] = Turns()
        self.waiting: list[Write] = []
        self.resting: list[Write] = []
        self.under_way: list[Sequence[Write]] = []

    @rule(keys=SOME)
    def comes(self, keys: frozenset[Key]) -> None:
        write = Write(keys)
        self.waiting.append(write)
        self.turns.add(write)

    @rule(workers=st.integers(1, 3), most=st.integers(1, 4))
    def is_taken(self, workers: int, most: int) -> None:
        sendable = self.turns.any()
        taken = self.turns.take(workers, most)
        assert bool(taken) == sendable
        assert len(taken) <= most
        busy = {key for batch in self.under_way for write in batch for key in write.keys}
        assert not any(write.keys & busy for write in taken)
        for write in taken:
            self.waiting.remove(write)
        self.under_way += [taken] if taken else []

    @precondition(lambda self: self.under_way)
    @rule(which=ANY, back=st.lists(st.booleans(), max_size=4), key=ANY)
    def is_done(self, which: int, back: list[bool], key: int) -> None:
        batch = self.under_way.pop(which % len(self.under_way))
        for write, came_back in zip(batch, back, strict=False):
            if came_back:
                self.waiting.append(write)
                busy = sorted(write.keys, key=str)[key % len(write.keys)]
                if self.turns.came_back(write, busy):
                    self.resting.append(write)
        self.turns.done(batch)

    @precondition(lambda self: self.resting)
    @rule(which=ANY)
    def has_rested(self, which: int) -> None:
        self.turns.again(self.resting.pop(which % len(self.resting)))

    @precondition(lambda self: self.waiting)
    @rule(which=ANY)
    def leaves(self, which: int) -> None:
        write = self.waiting.pop(which % len(self.waiting))
        assert self.turns.withdraw(write)
        assert not self.turns.withdraw(write)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert set(self.turns) == set(self.waiting)
        assert 0 <= self.turns.held_up <= len(self.turns) == len(self.waiting)

    @invariant()
    def who_could_go_may(self) -> None:
        """What nobody under way or resting has to do with is not held up."""
        resting = {key for write in self.resting if write in self.waiting for key in write.keys}
        busy = {key for batch in self.under_way for write in batch for key in write.keys} | resting
        if any(not write.keys & busy for write in self.waiting):
            assert self.turns.any()

    def teardown(self) -> None:
        while self.waiting or self.under_way:
            for write in self.resting:
                self.turns.again(write)
            self.resting.clear()
            for batch in self.under_way:
                self.turns.done(batch)
            self.under_way.clear()
            before = len(self.waiting)
            self.is_taken(1, 4)
            assert len(self.waiting) < before or not before, "nothing moves any more"
        assert not self.turns._held, "a key is still held"


TestTurns = Waiting.TestCase
TestTurns.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
