"""Postgres' node text is read exactly, or not at all."""

import pytest

from cluster.analysis.nodetree import NodeTextError, read


def test_fields_lists_and_nulls_are_read() -> None:
    """One node with every kind of value."""
    (node,) = read(
        '{NODE :number 7 :flag true :none <> :list (i 1 2) :sub {SUB} :subs ({SUB} {SUB}) :names ("a" "b")}'
    )
    assert node.label == "NODE"
    assert node.number("number") == 7
    assert node.flag("flag")
    assert node.node("none") is None
    assert node.nodes("none") == []
    assert node.numbers("list") == [1, 2]
    assert [sub.label for sub in node.walk()] == ["NODE", "SUB", "SUB", "SUB"]
    assert node.texts("names") == ["a", "b"]


def test_escaped_names_are_read_as_they_were() -> None:
    """Spaces, braces, quotes and backslashes in names are not structure; nor is a colon."""
    (node,) = read(r'{ALIAS :aliasname b\ \}\\\(x :colnames (":id" "a\ \"b") :next :value :empty ""}')
    assert node.text("aliasname") == "b }\\(x"
    assert node.texts("colnames") == [":id", 'a "b']
    assert node.text("next") == ":value"
    assert node.text("empty") == ""


def test_the_bytes_of_constants_are_passed_over() -> None:
    """A constant's value is not needed, and not an end of its node."""
    (node,) = read("{CONST :constvalue 4 [ 1 0 0 -1 ] :location 3}")
    assert node.number("location") == 3


def test_labels_of_older_versions_are_read_under_their_new_names() -> None:
    """PostgreSQL 14 and 15 name some nodes otherwise."""
    (node,) = read("{RTE :coalesce {COALESCE :args ({CASE} {ROW})}}")
    assert {each.label for each in node.walk()} == {"RANGETBLENTRY", "COALESCEEXPR", "CASEEXPR", "ROWEXPR"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "}",
        "{A",
        "{A :b}",
        "{A :b (1}",
        "{A b c}",
        "{A :b 1 2}",
        "{A} {B}",
        "{A :b [ 1",
        "(7)",
        "{A :b c\\",
    ],
)
def test_text_that_breaks_the_grammar_is_an_error(text: str) -> None:
    """Nothing is guessed from a text that was cut or garbled."""
    with pytest.raises(NodeTextError):
        read(text)


def test_a_field_that_is_not_what_it_must_be_is_an_error() -> None:
    """A missing field, or one of another kind, is never taken for empty."""
    (node,) = read("{A :b 1 :c {D} :e (x y)}")
    for attempt in (
        lambda: node.number("missing"),
        lambda: node.number("c"),
        lambda: node.node("b"),
        lambda: node.nodes("e"),
        lambda: node.flag("b"),
        lambda: node.numbers("e"),
        lambda: node.text("c"),
        lambda: node.texts("b"),
        lambda: node.item("e", 5),
    ):
        with pytest.raises(NodeTextError):
            attempt()


def test_nesting_without_end_is_an_error() -> None:
    """A text nested too deeply is refused instead of taking the process down."""
    with pytest.raises(NodeTextError, match="deep"):
        read("{A :b " * 100_000 + "1" + "}" * 100_000)
