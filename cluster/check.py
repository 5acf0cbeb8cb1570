"""``snapring check``: what in this database would break exactness, or cost more than it must.

Each finding carries the command or SQL that mends it. An error means that answers would be wrong or
refused; a warning, that something is lost that could be kept; a note, that nothing needs to be done, and why.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import tuple_row

from cluster.capture import READER_FUNCTIONS, READER_TABLES, VERSION, installed_version

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing amiss. ``table`` is None where it concerns all; ``remedy`` can be run as it stands."""

    severity: Severity
    table: str | None
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """A query that returns (table, problem, remedy) for each thing amiss."""

    severity: Severity
    sql: str


_RETRACK: Final = """CASE WHEN r.relation = 'snapring.heads' THEN 'snapring init'
    ELSE format('snapring track %%s%%s --bulk-limit %%s', r.relation, (
    SELECT ' --columns ' || string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = r.rel AND a.attnum = ANY (r.columns) AND snapring.grain(r.rel, a.attnum) IS NOT NULL),
    r.bulk_limit) END"""

_FLAWS: Final = _Probe(
    severity="error",
    sql=f"""
SELECT m.relation, snapring.flaw(m), CASE
       WHEN EXISTS (SELECT FROM pg_subscription_rel s WHERE m.rel IN (SELECT snapring.family(s.srrelid)))
       THEN CASE WHEN r.relation = 'snapring.heads' THEN 'leave schema snapring out of the publication'
                 ELSE 'snapring untrack ' || r.relation END
       WHEN t.top IS NOT NULL AND r.rel <> t.top
       THEN format('snapring untrack %%s, then: snapring track %%s', r.relation, t.top::regclass)
       WHEN o.parent IS NOT NULL THEN format('ALTER TABLE %%s NO INHERIT %%s', m.rel::regclass, o.parent::regclass)
       ELSE {_RETRACK} END
  FROM snapring.captured m JOIN snapring.captured r ON r.rel = m.root
 CROSS JOIN LATERAL (SELECT min(p) FILTER (WHERE n = 1) AS top
                       FROM (SELECT p, count(*) OVER () AS n FROM snapring.tops(m.rel) p) p) t
 CROSS JOIN LATERAL (SELECT min(i.inhparent) AS parent FROM pg_inherits i
                      WHERE i.inhrelid = m.rel AND i.inhparent NOT IN (SELECT snapring.family(m.root))) o
 WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = m.rel) AND snapring.flaw(m) IS NOT NULL
""",
)

_OUTSIDERS: Final = _Probe(
    severity="error",
    sql=f"""
SELECT f.rel::regclass::text, CASE WHEN c.relkind = 'f'
           THEN format('a foreign table is part of %%s: nobody here sees its rows change', r.relation)
           ELSE format('it joined %%s and is not captured', r.relation) END,
       CASE WHEN o.parent IS NOT NULL THEN format('ALTER TABLE %%s NO INHERIT %%s', f.rel::regclass, o.parent::regclass)
            WHEN c.relkind <> 'f' THEN {_RETRACK}
            WHEN c.relispartition THEN format('ALTER TABLE %%s DETACH PARTITION %%s', r.rel::regclass, f.rel::regclass)
            ELSE format('ALTER TABLE %%s NO INHERIT %%s', f.rel::regclass, r.rel::regclass) END
  FROM snapring.captured r CROSS JOIN LATERAL snapring.family(r.rel) AS f(rel)
  JOIN pg_class c ON c.oid = f.rel
 CROSS JOIN LATERAL (SELECT min(i.inhparent) AS parent FROM pg_inherits i
                      WHERE i.inhrelid = f.rel AND i.inhparent NOT IN (SELECT snapring.family(r.rel))) o
 WHERE r.rel = r.root AND NOT EXISTS (SELECT FROM snapring.captured m WHERE m.rel = f.rel)
""",
)

_GONE: Final = _Probe(
    severity="error",
    sql="""
SELECT t.relation, 'the table is gone', 'snapring init' FROM snapring.captured t
 WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.rel)
""",
)

_DDL: Final = _Probe(
    severity="warning",
    sql="""
SELECT NULL, 'event triggers do not capture DDL: every poll compares the catalog instead, which is slower; '
             'materialized views cannot be cached, new partitions wait for snapring track, and after a tracked '
             'column was renamed or dropped writes to its table fail until then',
       coalesce((SELECT string_agg(format('ALTER EVENT TRIGGER %%I ENABLE ALWAYS', e.evtname), '; ')
                   FROM pg_event_trigger e WHERE e.evtname LIKE 'snapring_ddl_%%' AND e.evtenabled <> 'A'),
                'as a superuser: snapring init')
 WHERE NOT snapring.ddl_captured()
""",
)

_HOME: Final = _Probe(
    severity="error",
    sql="""
SELECT NULL, 'the schema snapring was brought here from another database by a restore or a clone',
       'snapring init' WHERE NOT snapring.at_home()
""",
)

_ROW_SECURITY: Final = _Probe(
    severity="error",
    sql="""
SELECT t.relation, format('row security applies to role %%s: its policies may read what no dependency knows',
                          o.rolname), format('ALTER ROLE %%I BYPASSRLS', o.rolname)
  FROM snapring.captured t JOIN pg_class c ON c.oid = t.rel
  JOIN pg_roles o ON o.rolname = %(role)s
 WHERE c.relrowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls
   AND (c.relforcerowsecurity OR NOT pg_has_role(o.oid, c.relowner, 'USAGE'))
""",
)

_PRIVILEGES: Final = _Probe(
    severity="error",
    sql="""
SELECT g.relation, format('role %%s lacks %%s', %(role)s::text, g.lacks), format('GRANT %%s TO %%I', g.lacks, %(role)s::text)
  FROM (SELECT NULL::text AS relation, 'USAGE ON SCHEMA snapring' AS lacks
         WHERE NOT has_schema_privilege(%(role)s, 'snapring', 'USAGE')
        UNION ALL
        SELECT NULL, 'SELECT ON ' || r FROM unnest(%(tables)s::text[]) r
         WHERE NOT has_table_privilege(%(role)s, r::regclass, 'SELECT')
        UNION ALL
        SELECT NULL, 'EXECUTE ON FUNCTION ' || f FROM unnest(%(functions)s::text[]) f
         WHERE NOT has_function_privilege(%(role)s, f::regprocedure, 'EXECUTE')
        UNION ALL
        SELECT t.relation, 'SELECT ON ' || t.relation FROM snapring.captured t JOIN pg_class c ON c.oid = t.rel
         WHERE t.rel = t.root AND t.relation <> ALL (%(tables)s::text[])
           AND NOT has_any_column_privilege(%(role)s, t.rel, 'SELECT')
        UNION ALL
        SELECT DISTINCT NULL, format('USAGE ON SCHEMA %%I', n.nspname)
          FROM snapring.captured t JOIN pg_class c ON c.oid = t.rel JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE t.relation <> ALL (%(tables)s::text[]) AND NOT has_schema_privilege(%(role)s, n.oid, 'USAGE')) g
""",
)

_SETTINGS: Final = """
    SELECT lower(split_part(s.setting, '=', 1)) AS name, split_part(s.setting, '=', 2) AS value,
           concat_ws(' ', 'ALTER', CASE WHEN r.rolname IS NULL AND d.datname IS NOT NULL
                                        THEN format('DATABASE %%I', d.datname)
                                        WHEN r.rolname IS NULL THEN 'ROLE ALL'
                                        ELSE format('ROLE %%I', r.rolname) END,
                     CASE WHEN r.rolname IS NOT NULL AND d.datname IS NOT NULL
                          THEN format('IN DATABASE %%I', d.datname) END, 'RESET') AS reset,
           concat_ws(' in ', 'role ' || r.rolname, 'database ' || d.datname) AS level
      FROM pg_db_role_setting o LEFT JOIN pg_roles r ON r.oid = o.setrole
      LEFT JOIN pg_database d ON d.oid = o.setdatabase CROSS JOIN unnest(o.setconfig) AS s(setting)
     WHERE o.setdatabase = 0 OR d.datname = current_database()
    UNION ALL
    SELECT name, setting, 'ALTER SYSTEM RESET', 'the server' FROM pg_settings
     WHERE source IN ('configuration file', 'command line', 'environment variable')"""

_LOST_COMMITS: Final = _Probe(
    severity="warning",
    sql=f"""
SELECT NULL, format('synchronous_commit is off for %%s: a crash may take back acknowledged commits. Snapring '
                    'starts a new incarnation then, so no answer is wrong, but a write that a client was '
                    'promised can be gone', coalesce(nullif(s.level, ''), 'all roles')),
       s.reset || ' synchronous_commit'
  FROM ({_SETTINGS}) s WHERE s.name = 'synchronous_commit' AND s.value = 'off'
""",
)

_REPLICA_ROLE: Final = _Probe(
    severity="note",
    sql=f"""
SELECT NULL, format('session_replication_role is %%s for %%s: harmless to capture, whose triggers are ENABLE '
                    'ALWAYS, but foreign keys neither hold nor cascade there', s.value,
                    coalesce(nullif(s.level, ''), 'all roles')),
       s.reset || ' session_replication_role'
  FROM ({_SETTINGS}) s WHERE s.name = 'session_replication_role' AND s.value <> 'origin'
""",
)

_EVENTS_OFF: Final = _Probe(
    severity="error",
    sql=f"""
SELECT NULL, format('event_triggers is off for %%s: DDL from there is not seen', coalesce(nullif(s.level, ''), 'all roles')),
       s.reset || ' event_triggers'
  FROM ({_SETTINGS}) s WHERE s.name = 'event_triggers' AND s.value <> 'on'
""",
)

_PREPARED: Final = _Probe(
    severity="note",
    sql="""
SELECT NULL, format('transaction %%L has been prepared since %%s: changes are kept until it ends, and if the '
                    'server crashes before, its end voids everything', p.gid, p.prepared),
       format('COMMIT PREPARED %%L', p.gid)
  FROM pg_prepared_xacts p WHERE p.database = current_database()
""",
)

_UNLOGGED: Final = _Probe(
    severity="note",
    sql="""
SELECT t.relation, 'it is UNLOGGED: a crash empties it, and voids everything cached',
       format('ALTER TABLE %%s SET LOGGED', t.relation)
  FROM snapring.captured t JOIN pg_class c ON c.oid = t.rel WHERE c.relpersistence = 'u'
""",
)

_COARSE: Final = _Probe(
    severity="note",
    sql="""
SELECT t.relation, 'no column is tracked: every write to it ends every entry that reads it',
       format('snapring track %%s --columns …', t.relation)
  FROM snapring.captured t WHERE t.rel = t.root AND cardinality(t.columns) = 0
""",
)

_PROBES: Final = (
    _HOME,
    _GONE,
    _FLAWS,
    _OUTSIDERS,
    _ROW_SECURITY,
    _PRIVILEGES,
    _EVENTS_OFF,
    _DDL,
    _LOST_COMMITS,
    _REPLICA_ROLE,
    _PREPARED,
    _UNLOGGED,
    _COARSE,
)


async def check(connection: AsyncConnection[Any], role: str | None = None) -> list[Finding]:
    """Everything amiss, the worst first. ``role``: the one nodes connect as, by default the connection's."""
    cursor = AsyncCursor(connection, row_factory=tuple_row)
    await cursor.execute("SELECT pg_is_in_recovery(), current_user::text")
    row = await cursor.fetchone()
    assert row is not None, "the query returns one row"
    if row[0]:
        return [
            _error(
                "this server is a standby, whose snapshots omit running transactions",
                "connect to the primary",
            )
        ]
    version = await installed_version(connection)
    if version != VERSION:
        return list(_version_findings(version))
    role = role or row[1]
    await cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    if not cursor.rowcount:
        return [_error(f"there is no role {role}", f'CREATE ROLE "{role}" LOGIN')]
    arguments = {"role": role, "tables": list(READER_TABLES), "functions": list(READER_FUNCTIONS)}
    findings = []
    for probe in _PROBES:
        await cursor.execute(probe.sql.encode(), arguments)
        findings += [
            Finding(severity=probe.severity, table=table, problem=problem, remedy=remedy)
            for table, problem, remedy in await cursor.fetchall()
        ]
    return findings


def _version_findings(version: int | None) -> Iterator[Finding]:
    if version is None:
        yield _error("the schema snapring is not installed", "snapring init")
    elif version < VERSION:
        yield _error(f"the schema snapring is of version {version}, older than {VERSION}", "snapring init")
    else:
        yield _error(
            f"the schema snapring is of version {version}, newer than {VERSION}",
            "pip install -U snapring-node",
        )


def _error(problem: str, remedy: str) -> Finding:
    return Finding(severity="error", table=None, problem=problem, remedy=remedy)
