"""Whether a query's answer is a function of its arguments and of captured tables alone. Pure.

Everything else that an answer may depend on is refused, each with its remedy: the clock, the session,
randomness, row security, tables that nobody watches. What is not known to be harmless is refused too.
Settings that change the form of values (DateStyle, TimeZone, …) are pinned on every connection that
loads, so functions that depend on nothing else are harmless.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cluster.analysis.nodetree import Node
from cluster.analysis.scopes import FUNCTION, GROUP
from cluster.analysis.statement import literal_reads_clock
from snapring.errors import CacheRefused

_TIMETZ: Final = 1266
_CLOCK: Final = frozenset((1082, 1083, 1114, 1184, _TIMETZ))
"""date, time, timestamp, timestamptz, timetz: their input functions know 'now'."""
_NAMES: Final = frozenset((24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191))
"""The reg… types: their input functions look names up."""
_TABLEOID: Final = -6
_TABLEFUNC, _NAMED_STORE = 4, 7  # kinds of range table entries
_SELECT: Final = "1"

_VALUE_FUNCTIONS: Final = (
    "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIME", "CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP", "LOCALTIME",
    "LOCALTIME", "LOCALTIMESTAMP", "LOCALTIMESTAMP", "CURRENT_ROLE", "CURRENT_USER", "USER", "SESSION_USER",
    "CURRENT_CATALOG", "CURRENT_SCHEMA",
)  # fmt: skip

_TYPE_FIELDS: Final = {
    "CONST": "consttype",
    "PARAM": "paramtype",
    "FUNCEXPR": "funcresulttype",
    "COERCEVIAIO": "resulttype",
    "COERCETODOMAIN": "resulttype",
}
"""Where the type stands whose contents matter, by label."""

_HARMLESS_LABELS: Final = frozenset(
    """QUERY RANGETBLENTRY RANGETBLFUNCTION RANGETBLREF RTEPERMISSIONINFO ALIAS FROMEXPR JOINEXPR TARGETENTRY
    COMMONTABLEEXPR CTESEARCHCLAUSE CTECYCLECLAUSE SETOPERATIONSTMT SORTGROUPCLAUSE GROUPINGSET WINDOWCLAUSE
    VAR CONST PARAM AGGREF GROUPINGFUNC WINDOWFUNC SUBSCRIPTINGREF FUNCEXPR NAMEDARGEXPR OPEXPR DISTINCTEXPR
    NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR SUBLINK FIELDSELECT RELABELTYPE COERCEVIAIO ARRAYCOERCEEXPR
    CONVERTROWTYPEEXPR COLLATEEXPR CASEEXPR CASEWHEN CASETESTEXPR ARRAYEXPR ROWEXPR ROWCOMPAREEXPR COALESCEEXPR
    MINMAXEXPR XMLEXPR NULLTEST BOOLEANTEST COERCETODOMAIN COERCETODOMAINVALUE JSONCONSTRUCTOREXPR
    JSONISPREDICATE JSONVALUEEXPR JSONFORMAT JSONRETURNING""".split()  # noqa: SIM905 - so many quoted names would hide the list
)
_OTHER_LABELS: Final = {
    "SQLVALUEFUNCTION": "",
    "TABLESAMPLECLAUSE": "TABLESAMPLE picks rows at random: take it out",
    "ROWMARKCLAUSE": "FOR UPDATE and FOR SHARE lock rows: a cache only reads, take the clause out",
    "TABLEFUNC": "XMLTABLE and JSON_TABLE are not followed: use jsonb_array_elements, xpath or the like",
    "JSONEXPR": "JSON_VALUE, JSON_QUERY and JSON_EXISTS are not followed: use ->>, #>> or jsonb_path_query",
    "JSONBEHAVIOR": "JSON_VALUE, JSON_QUERY and JSON_EXISTS are not followed: use ->>, #>> or jsonb_path_query",
    "NEXTVALUEEXPR": "nextval writes: a cache only reads",
}

_HARMLESS_STABLE: Final = frozenset(
    """anytextcat textanycat array_to_json array_to_string concat concat_ws convert convert_from convert_to
    length date date_add date_subtract date_part date_trunc extract date_cmp_timestamptz date_eq_timestamptz
    date_ge_timestamptz date_gt_timestamptz date_le_timestamptz date_lt_timestamptz date_ne_timestamptz
    enum_first enum_last enum_range format generate_series in_range interval_pl_timestamptz json_agg
    json_agg_strict json_build_array json_build_object json_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict jsonb_agg jsonb_agg_strict jsonb_build_array
    jsonb_build_object jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique
    jsonb_object_agg_unique_strict json_to_tsvector jsonb_to_tsvector make_timestamptz money numeric overlaps
    phraseto_tsquery plainto_tsquery quote_literal quote_nullable row_to_json time timestamp
    timestamp_cmp_timestamptz timestamp_eq_timestamptz timestamp_ge_timestamptz timestamp_gt_timestamptz
    timestamp_le_timestamptz timestamp_lt_timestamptz timestamp_ne_timestamptz timestamptz
    timestamptz_cmp_date timestamptz_cmp_timestamp timestamptz_eq_date timestamptz_eq_timestamp
    timestamptz_ge_date timestamptz_ge_timestamp timestamptz_gt_date timestamptz_gt_timestamp
    timestamptz_le_date timestamptz_le_timestamp timestamptz_lt_date timestamptz_lt_timestamp
    timestamptz_mi_interval timestamptz_ne_date timestamptz_ne_timestamp timestamptz_pl_interval timezone
    to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector ts_headline ts_match_tq
    ts_match_tt websearch_to_tsquery""".split()  # noqa: SIM905 - so many quoted names would hide the list
)
"""STABLE functions of pg_catalog that depend on their arguments, on pinned settings and on the catalog."""

_INTO_TYPES: Final = frozenset(
    """json_populate_record json_populate_recordset json_to_record json_to_recordset jsonb_populate_record
    jsonb_populate_recordset jsonb_to_record jsonb_to_recordset""".split()  # noqa: SIM905 - so many quoted names would hide the list
)
"""The same, but they read text as values of the types that they return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the catalog. ``volatility`` is i, s or v; ``types``: its arguments and its result."""

    signature: str
    schema: str
    name: str
    volatility: str
    types: frozenset[int]
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What of the catalog a query's expressions use.

    ``operators``: the function behind an operator. ``contents``: the types within a type, itself
    included (elements, fields, the base of a domain). ``io``: the functions that read and write a type made
    by a user. ``checks``: the conditions of a domain.
    """

    functions: Mapping[int, Function]
    operators: Mapping[int, int]
    contents: Mapping[int, frozenset[int]]
    io: Mapping[int, tuple[int, ...]]
    checks: Mapping[int, tuple[Node, ...]]

    def holds(self, type_oid: int, sought: frozenset[int]) -> bool:
        """Whether values of the type have one of the types ``sought`` in them."""
        return not sought.isdisjoint(self.contents.get(type_oid, frozenset((type_oid,))))


def require_pure(query: Node, library: Library, sql: str, *, trust_stable: bool) -> None:
    """Raise `CacheRefused` if anything but arguments and tables can change the answer of ``query``.

    ``trust_stable``: functions of users that are STABLE may read tables, for what they read is told.
    """
    for node in query.walk():
        _require_known(node)
        _require_reading(node)
        _require_timeless(node, library, sql)
    checks = [check for type_oid in types_used(query) for check in library.checks.get(type_oid, ())]
    for oid in _with_parts(functions_used((query, *checks), library), library):
        reason = _refusal(library.functions[oid], trust_stable=trust_stable)
        if reason is not None:
            raise CacheRefused(reason)


def clock_parameters(query: Node, library: Library, types: tuple[int, ...]) -> tuple[int, ...]:
    """The parameters (from 1) whose argument is read as a date or time, so must not be 'now' or the like.

    Raises `CacheRefused` where even other arguments would be read by the clock.
    """
    found = {number for number, type_oid in enumerate(types, 1) if library.holds(type_oid, _CLOCK)}
    zoned = [
        number for number, type_oid in enumerate(types, 1) if library.holds(type_oid, frozenset((_TIMETZ,)))
    ]
    if zoned:
        raise CacheRefused(f"${zoned[0]} is a time with time zone, read by today's offset: use another type")
    for node in query.walk():
        if node.label == "COERCEVIAIO" and library.holds(node.number("resulttype"), _CLOCK):
            parameter = _parameter_below(node)
            found.update([] if parameter is None else [parameter])
    return tuple(sorted(found))


def functions_used(trees: Iterable[Node], library: Library) -> Iterator[int]:
    """The functions that the trees call, operators and casts included."""
    for tree in trees:
        for node in tree.walk():
            for field in ("funcid", "aggfnoid", "winfnoid"):
                if field in node and node.number(field):
                    yield node.number(field)
            for operator in operators_of(node):
                yield library.operators[operator]
            if node.label in ("COERCEVIAIO", "PARAM"):
                target = node.number("resulttype" if node.label == "COERCEVIAIO" else "paramtype")
                for part in library.contents.get(target, ()):
                    yield from library.io.get(part, ())


def operators_of(node: Node) -> list[int]:
    """The operators that one node applies."""
    named = [node.number(field) for field in ("opno", "eqop", "sortop") if field in node]
    listed = node.numbers("opnos") if "opnos" in node else []
    return [operator for operator in (*named, *listed) if operator]


def types_used(tree: Node) -> frozenset[int]:
    """The types that a tree mentions where it matters what is in them."""
    found: set[int] = set()
    for node in tree.walk():
        if node.label in _TYPE_FIELDS:
            found.add(node.number(_TYPE_FIELDS[node.label]))
        elif node.label == "RANGETBLFUNCTION":
            found.update(node.numbers("funccoltypes"))
    return frozenset(found)


def _with_parts(oids: Iterable[int], library: Library) -> Iterator[int]:
    for oid in dict.fromkeys(oids):
        yield oid
        yield from library.functions[oid].parts


def _require_known(node: Node) -> None:
    if node.label == "SQLVALUEFUNCTION":
        name = _VALUE_FUNCTIONS[node.number("op")]
        raise CacheRefused(f"{name} depends on the clock or the session: pass the value as an argument ($n)")
    if node.label in _OTHER_LABELS:
        raise CacheRefused(_OTHER_LABELS[node.label])
    if node.label not in _HARMLESS_LABELS:
        raise CacheRefused(f"the query has a part that Snapring does not know ({node.label})")


def _require_reading(node: Node) -> None:
    if node.label == "QUERY":
        if node.text("commandType") != _SELECT or node.flag("hasModifyingCTE"):
            raise CacheRefused("the query writes: a cache only reads")
        if node.flag("hasForUpdate"):
            raise CacheRefused(_OTHER_LABELS["ROWMARKCLAUSE"])
    if node.label == "RANGETBLENTRY":
        if node.nodes("securityQuals"):
            raise CacheRefused(
                "row security applies to the role that loads, and its policies are not followed: "
                "let a role with BYPASSRLS load, and put the condition into the query"
            )
        if node.number("rtekind") == _TABLEFUNC:
            raise CacheRefused(_OTHER_LABELS["TABLEFUNC"])
        if node.number("rtekind") > GROUP or node.number("rtekind") == _NAMED_STORE:
            raise CacheRefused(f"the query reads from something that Snapring does not know ({node!r})")


def _require_timeless(node: Node, library: Library, sql: str) -> None:
    match node.label:
        case "VAR" if node.number("varattno") < 0 and node.number("varattno") != _TABLEOID:
            raise CacheRefused("system columns (ctid, xmin, …) change without a write: take them out")
        case "CONST" if library.holds(node.number("consttype"), _CLOCK):
            _require_timeless_literal(node, library, sql)
        case "COERCEVIAIO":
            _require_timeless_cast(node, library)
        case "RANGETBLENTRY" if node.number("rtekind") == FUNCTION:
            for function in node.nodes("functions"):
                _require_timeless_record(function, library)
        case "FUNCEXPR":
            _require_timeless_result(node, library)


def _require_timeless_literal(const: Node, library: Library, sql: str) -> None:
    if const.flag("constisnull"):
        return
    if library.holds(const.number("consttype"), frozenset((_TIMETZ,))):
        raise CacheRefused("a time with time zone is read by today's offset: use another type")
    location = const.number("location")
    if location >= 0 and literal_reads_clock(sql, location):
        raise CacheRefused(
            "a date or time literal is relative to now, or not written plainly: "
            "write the moment itself, or pass it as an argument ($n)"
        )


def _require_timeless_cast(cast: Node, library: Library) -> None:
    target = cast.number("resulttype")
    if library.holds(target, frozenset((_TIMETZ,))):
        raise CacheRefused("text is read as a time with time zone by today's offset: use another type")
    if library.holds(target, _CLOCK) and _parameter_below(cast) is None:
        raise CacheRefused(
            "text is cast to a date or time, and may say 'now': use to_date or to_timestamp with a format"
        )
    if library.holds(target, _NAMES):
        raise CacheRefused("text is cast to the name of a database object: compare with text instead")


def _require_timeless_record(function: Node, library: Library) -> None:
    if any(library.holds(column, _CLOCK | _NAMES) for column in function.numbers("funccoltypes")):
        raise CacheRefused("JSON text is read as a date or time, and may say 'now': read it as text")


def _require_timeless_result(call: Node, library: Library) -> None:
    function = library.functions[call.number("funcid")]
    if function.name in _INTO_TYPES and library.holds(call.number("funcresulttype"), _CLOCK | _NAMES):
        raise CacheRefused("JSON text is read as a date or time, and may say 'now': read it as text")


def _parameter_below(cast: Node) -> int | None:
    below = cast.node("arg")
    while below is not None and below.label in ("RELABELTYPE", "COLLATEEXPR"):
        below = below.node("arg")
    if below is not None and below.label == "PARAM" and below.number("paramkind") == 0:
        return below.number("paramid")
    return None


def _refusal(function: Function, *, trust_stable: bool) -> str | None:
    if function.volatility == "i":
        return None
    if function.volatility == "v":
        return f"{function.signature} is volatile: its answer changes by itself; take it out of the query"
    if function.schema == "pg_catalog":
        harmless = function.name in _HARMLESS_STABLE | _INTO_TYPES and _TIMETZ not in function.types
        if harmless:
            return None
        return (
            f"{function.signature} depends on the clock, the session or the state of the server: "
            "pass its value as an argument ($n)"
        )
    if trust_stable:
        return None
    return (
        f"{function.signature} is STABLE, so it may read tables that are not seen here: declare it IMMUTABLE if "
        "it reads none, or say with depends = [...] what the query depends on"
    )
