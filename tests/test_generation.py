"""What follows from a view of the membership and from peers' hellos."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from peer_process import hello
from peers.generation import Heard, Outlook
from peers.members import Address, Member, Members

ME, ONE, TWO = (Member(name=f"snapring-{number}") for number in range(3))


def at(number: int) -> Address:
    return Address(host=f"10.0.0.{number}", port=7946)


VIEW: Members = {ME: at(0), ONE: at(1), TWO: at(2)}


def said(name: str, where: Address, *, draining: bool = True) -> dict[str, Heard]:
    return {name: Heard(hello=hello(name, draining=draining), address=where)}


def names(outlook: Outlook) -> str:
    return " ".join(sorted(member.name.removeprefix("snapring-") for member in outlook.members()))


def test_a_node_that_has_seen_no_view_is_alone() -> None:
    """Even if it drains."""
    assert names(Outlook(me=ME)) == names(Outlook(me=ME, draining=True)) == "0"
    assert Outlook(me=ME).others() == frozenset()


def test_a_node_counts_itself_in_where_no_view_names_it() -> None:
    """It serves whoever asks it."""
    assert names(Outlook(me=ME, view={ONE: at(1)})) == "0 1"


def test_what_a_view_says_of_a_node_outweighs_what_it_believes() -> None:
    """Or its ring would differ from everybody else's for ever; there is one member of the name."""
    believed = Member(name=ME.name, zone="a", weight=3)
    assert Outlook(me=believed, view=VIEW).members() == {ME, ONE, TWO}
    assert Outlook(me=believed).members() == {believed}


def test_who_says_that_it_drains_is_left_out() -> None:
    """Who has said nothing, or something else, is in."""
    heard = said(ONE.name, at(1)) | said(TWO.name, at(2), draining=False)
    assert names(Outlook(me=ME, view=VIEW, heard=heard)) == "0 2"
    assert names(Outlook(me=ME, view=VIEW)) == "0 1 2"


def test_who_is_found_elsewhere_has_not_said_that_it_drains() -> None:
    """It was another life that did."""
    assert names(Outlook(me=ME, view=VIEW, heard=said(ONE.name, at(9)))) == "0 1 2"


def test_a_node_that_drains_leaves_its_own_ring_to_those_who_stay() -> None:
    """And to them alone."""
    assert names(Outlook(me=ME, draining=True, view=VIEW)) == "1 2"
    assert names(Outlook(me=ME, draining=True, view=VIEW, heard=said(ONE.name, at(1)))) == "2"


def test_where_nobody_stays_everybody_does() -> None:
    """The ring of a whole cluster that ends is the one it had."""
    heard = said(ONE.name, at(1)) | said(TWO.name, at(2))
    assert names(Outlook(me=ME, draining=True, view=VIEW, heard=heard)) == "0 1 2"
    assert names(Outlook(me=ME, draining=True, view={ME: at(0)})) == "0"


def test_everybody_else_has_a_channel() -> None:
    """Those who drain too: they still answer what was theirs."""
    outlook = Outlook(me=ME, view=VIEW, heard=said(ONE.name, at(1)))
    assert outlook.addresses(before={}, asked=()) == {ONE.name: at(1), TWO.name: at(2)}


def test_who_has_left_is_found_where_it_was_while_it_may_be_asked() -> None:
    """The view outweighs what was; who is not to be asked any more is forgotten, and nobody asks himself."""
    outlook = Outlook(me=ME, view={ME: at(0), ONE: at(1)})
    before = {ONE.name: at(9), TWO.name: at(2), "snapring-3": at(3)}
    asked = [member.name for member in (ME, ONE, TWO)]
    assert outlook.addresses(before=before, asked=asked) == {ONE.name: at(1), TWO.name: at(2)}
    assert outlook.addresses(before=before, asked=()) == {ONE.name: at(1)}


CAST = [Member(name=f"n{number}", zone=zone) for number in range(5) for zone in ("", "a")]


@given(
    st.lists(st.sampled_from(CAST), min_size=1, unique_by=lambda member: member.name),
    st.sets(st.sampled_from([member.name for member in CAST])),
)
def test_nodes_that_know_the_same_agree(listed: list[Member], leaving: set[str]) -> None:
    """Each of the view, whatever it believes of itself: the members are those who stay, or all if none does."""
    view = {member: at(number) for number, member in enumerate(listed)}
    stay = {member for member in listed if member.name not in leaving} or set(listed)
    for me in listed:
        believed = Member(name=me.name, zone="believed")
        others: Mapping[str, Heard] = {
            member.name: Heard(hello=hello(member.name, draining=member.name in leaving), address=where)
            for member, where in view.items()
            if member is not me
        }
        outlook = Outlook(me=believed, draining=me.name in leaving, view=view, heard=others)
        assert outlook.members() == stay
        assert outlook.others() == {member for member in stay if member is not me}
