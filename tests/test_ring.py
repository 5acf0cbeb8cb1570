"""The ring: a function of the member set that shares slots fairly and moves no more of them than it must."""

from bisect import insort
from collections import Counter
from random import Random

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from uhashring import HashRing

from peers.dealing import PLACES, deal
from peers.members import MAX_WEIGHT, Member
from peers.preferences import MAX_NUMBER, POINTS, Preferences, _point
from peers.ring import Ring, allowance
from snapring.keys import SLOTS

few = settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ANYONE = st.builds(
    Member,
    name=NAMES,
    zone=st.sampled_from(["", "a", "b", "c"]),
    weight=st.integers(min_value=1, max_value=4),
)
ANY = st.lists(ANYONE, min_size=1, max_size=12, unique_by=lambda member: member.name)
CASTS = st.one_of(ANY, st.integers(min_value=1, max_value=20).map(lambda count: numbered(range(count))))


def numbered(numbers: range | list[int], zones: int = 1) -> list[Member]:
    return [
        Member(name=f"snapring-{number}", zone=f"zone-{number % zones}" if zones > 1 else "")
        for number in numbers
    ]


def named(count: int, weights: int = 1) -> list[Member]:
    return [
        Member(name=f"node {chr(97 + i % 26)}{chr(97 + i // 26)}", weight=1 + i % weights)
        for i in range(count)
    ]


def balance(holders: tuple[str | None, ...], members: list[Member]) -> float:
    """The most slots that a member holds, against its share."""
    total, held = sum(member.weight for member in members), Counter(holders)
    return max(held[member.name] * total / (member.weight * SLOTS) for member in members)


def moved(before: Ring, after: Ring) -> list[int]:
    return [slot for slot in range(SLOTS) if before.owner(slot) != after.owner(slot)]


@few
@given(CASTS, st.randoms())
def test_the_order_of_members_does_not_matter(members: list[Member], random: Random) -> None:
    """Any order gives the same tables and the same hash."""
    shuffled = random.sample(members, len(members))
    assert Ring.of(shuffled) == Ring.of(iter(members))


@few
@given(CASTS)
def test_the_tables_agree(members: list[Member]) -> None:
    """Every slot is in the list of its owner and of nobody else, and its backup is another member."""
    ring = Ring.of(members)
    listed = {slot: member.name for member in members for slot in ring.slots(member.name)}
    assert [listed[slot] for slot in range(SLOTS)] == [ring.owner(slot) for slot in range(SLOTS)]
    assert sum(len(ring.slots(member.name)) for member in members) == SLOTS
    backups = {(ring.owner(slot), ring.backup(slot)) for slot in range(SLOTS)}
    assert all(backup != owner for owner, backup in backups)
    assert {backup for _, backup in backups} <= {None} | {member.name for member in members}
    assert (None in {backup for _, backup in backups}) == (len(members) == 1)


@few
@given(CASTS)
@example(named(20))
@example(named(100, weights=3))
def test_nobody_owns_more_than_its_allowance(members: list[Member]) -> None:
    """Whatever the names and the weights."""
    assert balance(Ring.of(members).owners, members) <= allowance(len(members))


@few
@given(CASTS)
def test_the_backup_is_in_another_zone_if_there_is_one(members: list[Member]) -> None:
    """Unknown zones count as one."""
    ring = Ring.of(members)
    zones = {member.name: member.zone for member in members}
    if len(set(zones.values())) > 1:
        assert all(zones[ring.owner(slot)] != zones[ring.backup(slot) or ""] for slot in range(SLOTS))


@few
@given(
    st.integers(min_value=3, max_value=20),
    st.sets(st.integers(min_value=0, max_value=19), max_size=2),
    st.data(),
)
def test_little_but_what_the_leaver_had_moves(count: int, gone: set[int], data: st.DataObject) -> None:
    """Of numbered members; where some are missing already, the bound on what each owns may move a few more."""
    there = [0, *(number for number in range(1, count) if number not in gone)] if count > 3 else [0, 1, 2]
    leaver = data.draw(st.sampled_from(there))
    before, after = Ring.of(numbered(there)), Ring.of(numbered([n for n in there if n != leaver]))
    moves, own = moved(before, after), before.slots(f"snapring-{leaver}")
    assert set(own) <= set(moves)
    assert len(moves) <= (1.05 if gone & set(range(1, max(there))) else 1.0) * len(own)


@pytest.mark.parametrize("count", [*range(3, 21), 100])
def test_numbered_members_share_to_the_slot(count: int) -> None:
    """Owners differ by one slot at most, and a newcomer takes its share, from whoever was there, and nothing else moves."""
    ring, larger = Ring.of(numbered(range(count))), Ring.of(numbered(range(count + 1)))
    sizes = {len(ring.slots(member.name)) for member in ring.members}
    assert max(sizes) - min(sizes) <= 1
    taken = larger.slots(f"snapring-{count}")
    assert moved(ring, larger) == list(taken)
    assert len({ring.owner(slot) for slot in taken}) == count
    assert balance(ring.backups, numbered(range(count))) <= (1.02 if count <= 20 else 1.10)


@pytest.mark.parametrize("leaver", [0, 1, 9, 18, 19])
def test_a_gap_is_shared_by_all(leaver: int) -> None:
    """Who leaves from the middle is replaced by its backups, and these are everybody alike."""
    whole, rest = Ring.of(numbered(range(20))), numbered([n for n in range(20) if n != leaver])
    ring = Ring.of(rest)
    assert all(ring.owner(slot) == whole.backup(slot) for slot in whole.slots(f"snapring-{leaver}"))
    assert balance(ring.owners, rest) <= 1.02
    assert balance(ring.backups, rest) <= 1.05


@pytest.mark.parametrize(("count", "factor"), [(3, 1.05), (8, 1.05), (20, 1.05), (100, 1.15)])
def test_unnumbered_members_move_little(count: int, factor: float) -> None:
    """On the average of who leaves, little more than the leaver's slots; and the backup is nearly always the next owner."""
    members = named(count)
    whole = Ring.of(members)
    moves = became = lost = 0
    leavers = members[:: max(1, count // 6)]
    for leaver in leavers:
        ring = Ring.of(member for member in members if member != leaver)
        moves += len(moved(whole, ring))
        lost += len(whole.slots(leaver.name))
        became += sum(ring.owner(slot) == whole.backup(slot) for slot in whole.slots(leaver.name))
    assert moves <= factor * len(leavers) * SLOTS / count
    assert became >= 0.97 * lost


def test_weights_are_shares() -> None:
    """A member of weight 3 owns three times what one of weight 1 does, within the allowance."""
    members = named(12, weights=3)
    ring = Ring.of(members)
    for member in members:
        share = SLOTS * member.weight / sum(each.weight for each in members)
        assert 0.8 * share <= len(ring.slots(member.name)) <= allowance(12) * share


def test_backups_are_spread_over_equal_zones() -> None:
    """Three zones of three: within the allowance, and the next owner as often as balance lets it be."""
    members = numbered(range(9), zones=3)
    whole, ring = Ring.of(members), Ring.of(members[:4] + members[5:])
    assert balance(whole.backups, members) <= 1.05
    lost = whole.slots("snapring-4")
    became = sum(ring.owner(slot) == whole.backup(slot) for slot in lost)
    assert became == pytest.approx(6 / 8 * len(lost), rel=0.05)


@few
@given(st.integers(min_value=1, max_value=24), st.integers(min_value=1, max_value=24))
def test_who_joins_a_table_changes_no_order_there(one: int, other: int) -> None:
    """Of those who were there before, a larger table knows the same order, as far as it is dealt."""
    small, large = sorted((one, other))
    for before, after in zip(deal(small), deal(large), strict=True):
        kept = [player for player in after if player < small]
        assert kept == before[: len(kept)]
        assert len(after) == len(set(after)) == min(large, PLACES)


@few
@given(st.lists(NAMES, min_size=1, max_size=8, unique=True), st.integers(min_value=0, max_value=SLOTS - 1))
def test_the_walk_meets_who_uhashring_says(names: list[str], first: int) -> None:
    """In the order in which the library itself goes round."""
    members = [Member(name=name, weight=1 + len(name) % 2) for name in sorted(names)] + [Member(name="~")]
    members = list({member.name: member for member in members}.values())
    preferences = Preferences(members)
    ring = HashRing(
        {member.name: member.weight for member in members},
        vnodes=POINTS,
        hash_fn=lambda key: preferences._starts[key] if isinstance(key, int) else _point(key),
    )
    for slot in range(first, SLOTS, 997):
        walked = [members[place].name for place in preferences._met(slot)]
        assert walked == list(ring.iterate_nodes(slot))


@few
@given(ANY, st.integers(min_value=0))
def test_owners_are_the_stable_matching(members: list[Member], seed: int) -> None:
    """Slots that ask one after the other, in any order, and are put out by earlier wishes, end up there."""
    members.sort()
    preferences = Preferences(members)
    share = allowance(len(members)) * SLOTS / sum(member.weight for member in members)
    wishes = [enumerate(preferences.of(slot)) for slot in range(SLOTS)]
    held: list[list[tuple[int, int]]] = [[] for _ in members]
    waiting = Random(seed).sample(range(SLOTS), SLOTS)
    while waiting:
        slot = waiting.pop()
        wish, member = next(wishes[slot])
        insort(held[member], (wish, slot))
        if len(held[member]) > int(share * members[member].weight):
            waiting.append(held[member].pop()[1])
    ring = Ring.of(members)
    for owner, slots in zip(members, held, strict=True):
        assert ring.slots(owner.name) == tuple(sorted(slot for _, slot in slots))


def test_the_hash_tells_every_difference() -> None:
    """Another name, zone, weight or number of members, even where the tables are the same."""
    casts = [
        numbered(range(3)),
        numbered(range(4)),
        numbered([0, 1, 3]),
        numbered(range(3), zones=3),
        [Member(name=f"other-{number}") for number in range(3)],
        [Member(name=f"snapring-{number}", weight=2) for number in range(3)],
    ]
    hashes = {Ring.of(cast).hash for cast in casts}
    assert len(hashes) == len(casts)
    assert all(len(each) == 8 for each in hashes)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (numbered(range(5)), "4089e856fc75eb6c"),
        (named(5), "7a325209cf487907"),
        (numbered(range(7), zones=3), "3c7ad41e8901d5b6"),
    ],
)
def test_the_ring_is_the_same_everywhere(members: list[Member], expected: str) -> None:
    """On every machine and in every version: who changes the ring on purpose changes these too."""
    assert Ring.of(members).hash.hex() == expected


def test_numbers_beyond_the_bound_are_names_like_others() -> None:
    """They are not dealt to, and the ring keeps its promises."""
    members = numbered([0, 1, MAX_NUMBER + 1])
    assert balance(Ring.of(members).owners, members) <= allowance(3)
    assert Preferences(members)._dealt is None
    assert Ring.of(numbered([MAX_NUMBER])).owner(0) == f"snapring-{MAX_NUMBER}"


@pytest.mark.parametrize("members", [[], [Member(name="a", zone="x"), Member(name="a", zone="y")]])
def test_no_members_and_two_of_a_name_are_refused(members: list[Member]) -> None:
    """There is no ring of them."""
    with pytest.raises(ValueError, match="members of a ring"):
        Ring.of(members)


def test_who_is_no_member_has_no_slots() -> None:
    """Nor is the question answered."""
    with pytest.raises(KeyError):
        Ring.of(numbered(range(2))).slots("snapring-2")


@pytest.mark.parametrize(("name", "weight"), [("", 1), ("a", 0), ("a", MAX_WEIGHT + 1)])
def test_a_member_that_is_none_is_refused(name: str, weight: int) -> None:
    """It has a name and a weight within bounds."""
    with pytest.raises(ValueError, match=r"weight|name"):
        Member(name=name, weight=weight)
