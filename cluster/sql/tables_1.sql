-- Version 1 of what the schema keeps. Later versions add files; they never edit this one.
--
-- What a crash or a promotion empties is emptied together: with the changes goes the marker, and a new
-- marker is a new incarnation, which voids everything that anyone remembers of the old one.

CREATE SCHEMA snapring;
COMMENT ON SCHEMA snapring IS 'Change capture of Snapring: see snapring.version';

-- The one row also says which database this is: after a dump was restored elsewhere, or the database was
-- cloned, table oids, and with them tags, no longer mean what they did.
CREATE TABLE snapring.version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    system_identifier bigint NOT NULL,
    database oid NOT NULL
);

-- Transaction xid touched table rel: the rows that tag stands for, or any (bulk) where tag is null.
-- rel 0 is the entire database.
CREATE UNLOGGED TABLE snapring.changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    rel oid NOT NULL,
    tag bigint
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = -1);
CREATE INDEX changes_by_xid ON snapring.changes (xid);

-- marker: what distinguishes incarnations. trimmed: changes below it may have been deleted.
-- ddl: how many rows of snapring.ddl have been folded into this number.
CREATE UNLOGGED TABLE snapring.marker (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    marker uuid NOT NULL DEFAULT gen_random_uuid(),
    trimmed xid8 NOT NULL DEFAULT '0',
    ddl bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- A row per transaction that may have changed what queries mean. Only ever inserted into, so that
-- concurrent DDL never waits for it.
CREATE UNLOGGED TABLE snapring.ddl (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT now()
);

-- A table under capture, and each partition or child of it. columns: the root's column numbers that have
-- tags, names and types: theirs, as captured. relation: the name, for a database restored elsewhere.
CREATE TABLE snapring.captured (
    rel oid PRIMARY KEY,
    root oid NOT NULL,
    relation text NOT NULL,
    columns smallint[] NOT NULL,
    names name[] NOT NULL,
    types oid[] NOT NULL,
    bulk_limit integer NOT NULL CHECK (bulk_limit > 0)
);

-- The types whose values are equal exactly if their texts are, with the expression of that text, %s
-- standing for the value. Written by the installer from cluster/tags.py.
CREATE TABLE snapring.grains (
    type oid PRIMARY KEY,
    expression text NOT NULL
);
