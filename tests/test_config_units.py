"""How people write sizes, durations, numbers and lists."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.settings.units import (
    Setting,
    Unit,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
    read,
    show,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("256MiB", 2**28), ("1.5 KiB", 1536), ("2GB", 2 * 10**9), ("0B", 0), ("1TiB", 2**40)],
)
def test_sizes_are_read_with_binary_and_decimal_units(text: str, size: int) -> None:
    """KiB is 1,024 bytes, kB is 1,000."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "1M", "-1MiB", "0.3B", "1e6", "1 MiB 2 KiB", "9" * 100, "\u0661MiB"]
)
def test_anything_else_is_not_a_size(text: str) -> None:
    """A unit is never guessed, and a size is a whole number of bytes."""
    with pytest.raises(ValueError, match="not a"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("25ms", 0.025), ("5s", 5.0), ("1h30m", 5400.0), ("0.5 s", 0.5), ("7d", 604_800.0), ("250us", 0.00025)],
)
def test_durations_are_read_exactly(text: str, seconds: float) -> None:
    """The result is the float nearest to what was written, not a sum of rounded parts."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5 minutes", "-5s", "1h!", "s", "1e3s", "9" * 100 + "s", "nan s", "0.5us"]
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    """A bare number has no meaning: 25 might be seconds or milliseconds."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@settings(deadline=None)
@given(st.integers(0, 2**60))
def test_a_size_shown_is_read_back(size: int) -> None:
    """What `snapring config` prints can be written into a file."""
    assert parse_bytes(format_bytes(size)) == size


@settings(deadline=None)
@given(st.integers(0, 10**10).map(lambda us: us / 10**6))
def test_a_duration_shown_is_read_back(seconds: float) -> None:
    """What `snapring config` prints can be written into a file."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("unit", "raw", "value"),
    [
        (Unit.COUNT, 10_000, 10_000),
        (Unit.COUNT, "10_000", 10_000),
        (Unit.FLAG, True, True),
        (Unit.FLAG, "false", False),
        (Unit.FRACTION, "0.25", 0.25),
        (Unit.FRACTION, 0, 0.0),
        (Unit.BYTES, 1024, 1024),
        (Unit.TEXTS, ["a", "b"], ("a", "b")),
        (Unit.TEXTS, "a, b", ("a", "b")),
        (Unit.TEXTS, '["a,b", "c"]', ("a,b", "c")),
        (Unit.TEXTS, "", ()),
    ],
)
def test_typed_and_textual_values_mean_the_same(unit: Unit, raw: object, value: object) -> None:
    """A file holds typed values; the environment and flags hold their text."""
    assert read(Setting(doc="", unit=unit), raw) == value


@pytest.mark.parametrize(
    ("unit", "raw"),
    [
        (Unit.COUNT, True),
        (Unit.COUNT, 1.5),
        (Unit.COUNT, "1.5"),
        (Unit.COUNT, "9" * 5000),
        (Unit.FLAG, "yes"),
        (Unit.FLAG, 1),
        (Unit.FRACTION, float("nan")),
        (Unit.FRACTION, 10**400),
        (Unit.BYTES, True),
        (Unit.DURATION, 25),
        (Unit.TEXT, 5),
        (Unit.TEXT, "a\0b"),
        (Unit.TEXT, "\udcff"),
        (Unit.TEXTS, ["a", 1]),
        (Unit.TEXTS, "[" * 5000),
        (Unit.TEXTS, {"a": 1}),
    ],
)
def test_a_value_of_another_kind_is_refused(unit: Unit, raw: object) -> None:
    """Whatever a TOML document can hold is either understood or a ValueError."""
    with pytest.raises(ValueError, match=r"expected|contains|must be"):
        read(Setting(doc="", unit=unit), raw)


@pytest.mark.parametrize("unit", [Unit.URL, Unit.SECRETS])
@pytest.mark.parametrize("raw", [{"hunter2": "hunter2"}, ["hunter2", ["hunter2"]]])
def test_a_refusal_never_repeats_what_may_be_secret(unit: Unit, raw: object) -> None:
    """Messages end up in logs."""
    with pytest.raises(ValueError, match="expected a") as refused:
        read(Setting(doc="", unit=unit), raw)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [("1ms", "at least 2ms"), ("2h", "at most 1h"), ("9" * 38 + "d", "at most 1h"), ("1m", "below 1m")],
)
def test_bounds_are_named_in_the_unit_people_write(raw: str, complaint: str) -> None:
    """The message says which bound was passed, as it would be written."""
    most, below = (inf, 60.0) if "below" in complaint else (3600.0, inf)
    with pytest.raises(ValueError, match=complaint):
        read(Setting(doc="", unit=Unit.DURATION, least=0.002, most=most, below=below), raw)


def test_an_optional_setting_that_is_off_is_shown_as_none() -> None:
    """`ttl = "none"` is how one turns it off, so that is how it is shown."""
    assert show(Setting(doc="", unit=Unit.DURATION), None) == "none"
