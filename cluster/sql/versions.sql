-- The versions of `store` caches: writing them, reading them as of a snapshot, deleting the past.
--
-- Plans are made once and by index, however small the tables were at that moment; functions that read are
-- STABLE, so that all they look at is of one snapshot.

-- Write all keys or none: a null value deletes, a null version demands nothing, 0 that the key is absent, any
-- other that it is the key's current one. One row: the transaction and the version of what was put; or the first
-- key that was refused, the version it has, and the snapshot that showed it; or, without wait, a key that another
-- transaction is writing, and no version.
--
-- Writes of one key take turns, until their transactions end: locks on buckets of keys, taken in one order.
-- Each reads what the one before it left, and snapshots see them in this order, whatever their ids.
CREATE OR REPLACE FUNCTION snapring.write(
        keys text[], "values" bytea[], versions bigint[], wait boolean DEFAULT true)
    RETURNS TABLE (xid xid8, version bigint, incarnation bigint, existed integer, refused text, seen pg_snapshot)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    turns CONSTANT integer := 'snapring.heads'::regclass::oid::integer;
    bucket integer;
BEGIN
    PERFORM snapring.require_write(keys, cardinality("values"), cardinality(versions));
    incarnation := snapring.incarnation();
    IF incarnation IS NULL THEN
        RAISE 'the database has no incarnation yet: nothing was written' USING ERRCODE = '57P03',
            HINT = 'A node gives it one soon; if this lasts, run: snapring init';
    END IF;
    FOR bucket, refused IN
            SELECT (hashtextextended(w.key COLLATE "C", 0) & 1023)::integer AS bucket, min(w.key)
              FROM unnest(keys) AS w(key) GROUP BY 1 ORDER BY 1 LOOP
        IF wait THEN
            PERFORM pg_advisory_xact_lock(turns, bucket);
        ELSIF NOT pg_try_advisory_xact_lock(turns, bucket) THEN
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
    refused := NULL;
    SELECT w.key, coalesce(h.version, 0), pg_current_snapshot() INTO refused, version, seen
      FROM unnest(keys, versions) WITH ORDINALITY AS w(key, wanted, place)
      LEFT JOIN snapring.heads AS h ON h.key = w.key
     WHERE coalesce(h.version, 0) <> w.wanted ORDER BY w.place LIMIT 1;
    IF FOUND THEN
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM set_config('snapring.writing', 'on', true); -- see guard()
    xid := pg_current_xact_id();
    version := ('x1' || right(gen_random_uuid()::text, 12))::bit(52)::bigint; -- a client may read it as a float
    existed := count(*) FROM snapring.heads AS h WHERE h.key = ANY (keys);
    IF existed > 0 THEN -- what this very transaction put, no snapshot ever saw
        INSERT INTO snapring.history (key, number, created, expired, version, value)
        SELECT h.key, coalesce((SELECT max(p.number) FROM snapring.history AS p WHERE p.key = h.key), 0) + 1,
               h.created, write.xid, h.version, h.value
          FROM snapring.heads AS h WHERE h.key = ANY (keys) AND h.created <> write.xid;
        IF array_position("values", NULL) IS NOT NULL THEN
            DELETE FROM snapring.heads AS h USING unnest(keys, "values") AS w(key, value)
             WHERE h.key = w.key AND w.value IS NULL;
        END IF;
    END IF;
    INSERT INTO snapring.heads (key, created, version, value)
    SELECT w.key, write.xid, write.version, w.value
      FROM unnest(keys, "values") AS w(key, value) WHERE w.value IS NOT NULL
        ON CONFLICT (key) DO UPDATE
        SET created = excluded.created, version = excluded.version, value = excluded.value;
    PERFORM set_config('snapring.writing', '', true);
    RETURN NEXT;
END $$;

-- Refuse arguments that mean nothing, keys that no node would ask for under this spelling, and transactions that
-- look at an old snapshot: what a write demands must hold when it is done.
CREATE OR REPLACE FUNCTION snapring.require_write(keys text[], "values" integer, versions integer) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    different bigint;
    odd text;
BEGIN
    SELECT count(DISTINCT w.key COLLATE "C"), max(w.key) FILTER (
               WHERE octet_length(convert_to(w.key, 'UTF8')) > 1024 OR starts_with(w.key, 'default/') OR w.key COLLATE "C" !~ (
                         '^([A-Za-z][A-Za-z0-9_-]*/)?[A-Za-z][A-Za-z0-9_-]*'
                         '(:([^\u0001-\u001f\u007f:@{}%/]|%(0[0-9A-F]|1[0-9A-F]|25|2F|3A|40|7B|7D|7F))*)+$'))
      INTO different, odd FROM unnest(keys) AS w(key);
    IF (cardinality(keys) > 0 AND cardinality(keys) = "values" AND cardinality(keys) = versions) IS NOT TRUE THEN
        RAISE 'snapring.write takes as many values and versions as keys, one at least' USING ERRCODE = '22023';
    ELSIF cardinality(keys) <> different THEN
        RAISE 'snapring.write takes each key once, and none that is null' USING ERRCODE = '22023';
    ELSIF odd IS NOT NULL THEN
        RAISE 'no key is written so: %', left(odd, 200) USING ERRCODE = '22023',
            HINT = 'tenant/cache:argument, without the tenant if it is default, 1024 bytes at most; '
                   'of an argument : @ { } % / and control bytes, and nothing else, as %XX with capitals';
    ELSIF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE 'snapring.write needs a transaction that is READ COMMITTED, this one is %',
            upper(current_setting('transaction_isolation')) USING ERRCODE = '25001';
    END IF;
END $$;

-- The version of a key that was live at a snapshot; no row if none was.
CREATE OR REPLACE FUNCTION snapring.version_at(key text, at pg_snapshot)
    RETURNS TABLE (value bytea, version bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    PERFORM snapring.require_history(at);
    RETURN QUERY SELECT h.value, h.version FROM snapring.heads AS h
                  WHERE h.key = version_at.key AND pg_visible_in_snapshot(h.created, at);
    IF NOT FOUND THEN
        RETURN QUERY SELECT p.value, p.version FROM snapring.history AS p
                      WHERE p.key = version_at.key AND p.number = snapring.number_at(version_at.key, at);
    END IF;
END $$;

-- The keys that begin with prefix and come after "after", with their versions at a snapshot, or at present
-- where it is null; in the order of their bytes.
CREATE OR REPLACE FUNCTION snapring.listing(prefix text, after text, most integer, at pg_snapshot)
    RETURNS TABLE (key text, version bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    heads CURSOR FOR SELECT h.key, h.created, h.version FROM snapring.heads AS h
                      WHERE h.key >= prefix AND h.key > after ORDER BY h.key;
    head record;
    past text COLLATE "C";
BEGIN
    IF at IS NOT NULL THEN
        PERFORM snapring.require_history(at);
        past := p.key FROM snapring.history AS p WHERE p.key >= prefix AND p.key > after ORDER BY p.key LIMIT 1;
    END IF;
    OPEN heads;
    FETCH heads INTO head;
    WHILE most > 0 LOOP
        key := least(head.key, past);
        EXIT WHEN key IS NULL OR NOT starts_with(key, prefix);
        version := NULL;
        IF head.key = key THEN
            version := CASE WHEN at IS NULL OR pg_visible_in_snapshot(head.created, at) THEN head.version END;
            FETCH heads INTO head;
        END IF;
        IF past = key THEN
            version := coalesce(version, (SELECT p.version FROM snapring.history AS p
                                           WHERE p.key = past AND p.number = snapring.number_at(past, at)));
            past := p.key FROM snapring.history AS p WHERE p.key > past ORDER BY p.key LIMIT 1;
        END IF;
        IF version IS NOT NULL THEN
            RETURN NEXT;
            most := most - 1;
        END IF;
    END LOOP;
    CLOSE heads;
END $$;

-- Refuse a snapshot whose versions may have been deleted, or that sees what this transaction does not.
CREATE OR REPLACE FUNCTION snapring.require_history(at pg_snapshot) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    floor xid8 := (SELECT f.floor FROM snapring.history_floor AS f);
BEGIN
    IF (pg_snapshot_xmin(at) >= floor) IS NOT TRUE THEN
        RAISE 'history reaches back to transaction %, snapshot % is older', floor, at USING ERRCODE = 'SN001';
    ELSIF pg_snapshot_xmax(at) > pg_snapshot_xmax(pg_current_snapshot()) OR EXISTS (
            SELECT FROM pg_snapshot_xip(pg_current_snapshot()) AS running
             WHERE pg_visible_in_snapshot(running, at)) THEN
        RAISE 'the database has not reached snapshot %', at USING ERRCODE = 'SN002';
    END IF;
END $$;

-- Which version in the history of a key was live at a snapshot; null if none was. A snapshot sees the
-- creation of a first part of them: half the rest is ruled out with each look.
CREATE OR REPLACE FUNCTION snapring.number_at(key text, at pg_snapshot) RETURNS bigint
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    seen bigint;   -- all up to this one are seen, or gone
    unseen bigint; -- none from this one on is
    middle record;
    last record;
BEGIN
    SELECT min(p.number) - 1, max(p.number) + 1 INTO seen, unseen
      FROM snapring.history AS p WHERE p.key = number_at.key;
    WHILE unseen - seen > 1 LOOP
        SELECT p.number, p.created INTO middle FROM snapring.history AS p
         WHERE p.key = number_at.key AND p.number <= seen + (unseen - seen) / 2 AND p.number > seen
         ORDER BY p.number DESC LIMIT 1;
        IF FOUND AND NOT pg_visible_in_snapshot(middle.created, at) THEN
            unseen := middle.number;
        ELSE
            seen := seen + (unseen - seen) / 2;
        END IF;
    END LOOP;
    SELECT p.number, p.expired INTO last FROM snapring.history AS p
     WHERE p.key = number_at.key AND p.number <= seen ORDER BY p.number DESC LIMIT 1;
    RETURN CASE WHEN NOT pg_visible_in_snapshot(last.expired, at) THEN last.number END;
END $$;

-- Rows that were written in another way would be versions without a history, or a history without versions.
CREATE OR REPLACE FUNCTION snapring.guard() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE '% changes through snapring.write alone, or its history would lie', TG_RELID::regclass
        USING ERRCODE = '0A000', HINT = 'To delete a key, write null.';
END $$;
CREATE OR REPLACE TRIGGER snapring_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON snapring.heads
    FOR EACH STATEMENT WHEN (current_setting('snapring.writing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION snapring.guard();
CREATE OR REPLACE TRIGGER snapring_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON snapring.history
    FOR EACH STATEMENT WHEN (current_setting('snapring.writing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION snapring.guard();
ALTER TABLE snapring.heads ENABLE ALWAYS TRIGGER snapring_guard;
ALTER TABLE snapring.history ENABLE ALWAYS TRIGGER snapring_guard;
