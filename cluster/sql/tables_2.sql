-- Version 2: the versions that `store` caches keep, and what the deleting of the past goes by.
--
-- All of it is logged: values must outlive a crash. Whatever of it survives one was written by transactions
-- that survived too, so no transaction id in it is ahead of the database.

-- The current version of each key, by its canonical text; created: the transaction that put it; version: its
-- name, a random number: transaction ids come again after a crash or failover. Captured like a user's table, by
-- key.
CREATE TABLE snapring.heads (
    key text COLLATE "C" PRIMARY KEY,
    created xid8 NOT NULL,
    version bigint NOT NULL,
    value bytea NOT NULL
) WITH (fillfactor = 90);

-- Versions that transaction expired replaced or deleted. number: their order, which is that of the commits
-- and not always that of the transaction ids.
CREATE TABLE snapring.history (
    key text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    created xid8 NOT NULL,
    expired xid8 NOT NULL,
    version bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (key, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX history_by_expired ON snapring.history (expired);

-- floor: versions that expired below it may have been deleted; swept: those that did have been, so that nobody
-- walks over their remains again.
CREATE TABLE snapring.history_floor (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    floor xid8 NOT NULL DEFAULT '0',
    swept xid8 NOT NULL DEFAULT '0'
) WITH (fillfactor = 10);
INSERT INTO snapring.history_floor DEFAULT VALUES;

-- How long anyone has been sweeping, by the monotonic clocks of those who did.
CREATE TABLE snapring.sweep_clock (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    clock_s float8 NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO snapring.sweep_clock DEFAULT VALUES;

-- At clock_s every transaction below oldest had ended, so no later snapshot has a smaller xmin.
CREATE TABLE snapring.moments (
    kind text NOT NULL CHECK (kind IN ('changes', 'history')),
    clock_s float8 NOT NULL,
    oldest xid8 NOT NULL
);

-- The same for changes: those of transactions below it are gone.
ALTER TABLE snapring.marker ADD COLUMN swept xid8 NOT NULL DEFAULT '0';
