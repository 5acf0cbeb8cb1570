-- Where the database stands: incarnation, trim position, catalog version; and what maintains them.

-- The key tag of one value of one column. Inlined into triggers and loads alike.
CREATE OR REPLACE FUNCTION snapring.tag(rel oid, attnum integer, value text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN pg_catalog.hashtextextended(value COLLATE "C", rel::bigint * 65536 + attnum);

-- Whether the schema was installed in this very database, not brought here by a restore or a clone.
CREATE OR REPLACE FUNCTION snapring.at_home() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM snapring.version AS v, pg_control_system() AS c, pg_database AS d
         WHERE d.datname = current_database() AND v.database = d.oid
           AND v.system_identifier = c.system_identifier);
END $$;

-- 64 bits that change whenever transaction ids may have been reused; null where nothing can be said:
-- no marker yet (call renew), a standby, a schema that is not at home.
CREATE OR REPLACE FUNCTION snapring.incarnation() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    answer bigint;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    SELECT hashtextextended(concat_ws(':', v.system_identifier, v.database, m.marker,
                                      left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
                                      current_setting('server_version_num')) COLLATE "C", 0)
      INTO answer
      FROM snapring.marker AS m, snapring.version AS v
     WHERE snapring.at_home();
    RETURN answer;
END $$;

-- Everything that is remembered of this database is void once this transaction commits.
CREATE OR REPLACE FUNCTION snapring.void() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM snapring.changes WHERE xid = pg_current_xact_id() AND rel = 0) THEN
        INSERT INTO snapring.changes (rel) VALUES (0);
        INSERT INTO snapring.ddl DEFAULT VALUES;
    END IF;
END $$;

-- Make a marker where there is none; the incarnation. A prepared transaction outlives the crash that
-- emptied the changes, so its commit must void everything: nobody knows any more what it touched.
CREATE OR REPLACE FUNCTION snapring.renew() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE 'snapring needs the primary: this server is a standby' USING ERRCODE = '25006';
    ELSIF NOT snapring.at_home() THEN
        RAISE 'the schema snapring was brought here from another database' USING ERRCODE = '55000',
            HINT = 'Run: snapring init';
    END IF;
    INSERT INTO snapring.marker DEFAULT VALUES ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO snapring.changes (xid, rel)
        SELECT snapring.full_xid(p.transaction), 0 FROM pg_prepared_xacts AS p
         WHERE p.database = current_database();
    END IF;
    RETURN snapring.incarnation();
END $$;

-- The 64 bits of a transaction id that is still running.
CREATE OR REPLACE FUNCTION snapring.full_xid(running xid) RETURNS xid8
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest numeric := pg_current_xact_id()::text::numeric;
    epoch numeric := div(newest, 4294967296);
    low numeric := running::text::numeric;
BEGIN
    IF low > mod(newest, 4294967296) THEN
        epoch := epoch - 1;
    END IF;
    RETURN (epoch * 4294967296 + low)::text::xid8;
END $$;

CREATE OR REPLACE FUNCTION snapring.trimmed() RETURNS xid8
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT m.trimmed FROM snapring.marker AS m);
END $$;

-- Delete at most "most" changes of transactions below "before"; how many. 0 if another session is at it.
-- Never past the oldest running transaction: what a prepared orphan stands for must outlive its commit. So no
-- change ever comes in below what was deleted, and the next call need not walk over the remains.
CREATE OR REPLACE FUNCTION snapring.trim(before xid8, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    position xid8 := least(before, pg_snapshot_xmin(pg_current_snapshot()));
    start xid8 := coalesce((SELECT m.swept FROM snapring.marker AS m), '0');
    doomed tid[];
    deleted bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock('snapring.marker'::regclass::oid::bigint) THEN
        RETURN 0;
    END IF;
    SELECT array_agg(o.ctid), coalesce((array_agg(o.xid ORDER BY o.xid DESC))[1], start) INTO doomed, start
      FROM (SELECT c.ctid, c.xid FROM snapring.changes AS c WHERE c.xid >= start AND c.xid < position
             ORDER BY c.xid LIMIT most) AS o;
    UPDATE snapring.marker AS m SET trimmed = greatest(m.trimmed, position), swept = start
     WHERE m.trimmed < position OR m.swept < start;
    DELETE FROM snapring.changes AS c WHERE c.ctid = ANY (doomed);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF EXISTS (SELECT FROM snapring.ddl WHERE xid < position) THEN
        WITH folded AS (DELETE FROM snapring.ddl AS d WHERE d.xid < position RETURNING 1)
        UPDATE snapring.marker AS m SET ddl = m.ddl + (SELECT count(*) FROM folded);
    END IF;
    RETURN deleted;
END $$;

-- Whether DDL is captured by event triggers; if not, catalog_version compares the catalog itself.
CREATE OR REPLACE FUNCTION snapring.ddl_captured() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN 3 = (SELECT count(*) FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
                 WHERE e.evtname IN ('snapring_ddl_start', 'snapring_ddl_end', 'snapring_ddl_drop')
                   AND e.evtenabled = 'A' AND p.pronamespace = 'snapring'::regnamespace)
        AND coalesce(current_setting('event_triggers', true), 'on') = 'on';
END $$;

-- Two snapshots with the same version have the same catalog, as far as answers depend on it.
CREATE OR REPLACE FUNCTION snapring.catalog_version() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT concat_ws(':', m.marker, m.ddl + (SELECT count(*) FROM snapring.ddl),
                   (SELECT string_agg(concat(e.evtname, e.evtenabled, e.xmin, e.ctid), ',' ORDER BY e.evtname)
                      FROM pg_event_trigger AS e WHERE e.evtname LIKE 'snapring_ddl_%'),
                   CASE WHEN NOT snapring.ddl_captured() THEN snapring.catalog_fingerprint() END)
              FROM snapring.marker AS m);
END $$;

-- The catalog's version, null while DDL that it counts has not yet told other sessions. A commit shows in
-- snapshots before it sends its invalidation messages; until then another session may still use what it
-- remembers of a function. The lock on its own transaction id is what a commit gives up last.
CREATE OR REPLACE FUNCTION snapring.settled_catalog_version() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT snapring.catalog_version() WHERE NOT EXISTS (
        SELECT FROM snapring.ddl AS d JOIN pg_locks AS l ON l.transactionid = d.xid::xid
         WHERE l.locktype = 'transactionid' AND l.granted));
END $$;

-- A checksum of the places of the catalog's rows: any change of one of them writes it anew elsewhere.
CREATE OR REPLACE FUNCTION snapring.catalog_fingerprint() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT concat(count(*), '/', sum(hashtextextended(concat(f.kind, f.row, f.xmin, f.ctid), 0)))
          FROM (SELECT 1 AS kind, c.oid AS row, c.xmin, c.ctid FROM pg_class AS c
                 WHERE c.relpersistence <> 't' AND c.relkind NOT IN ('i', 'I', 't') AND c.oid >= 16384
                UNION ALL
                SELECT 2, a.attrelid, a.xmin, a.ctid FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                 WHERE c.relpersistence <> 't' AND c.relkind NOT IN ('i', 'I', 't') AND c.oid >= 16384
                UNION ALL
                SELECT 3, g.oid, g.xmin, g.ctid FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
                 WHERE c.relpersistence <> 't'
                UNION ALL
                SELECT 4, r.oid, r.xmin, r.ctid FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
                 WHERE c.relpersistence <> 't' AND c.oid >= 16384
                UNION ALL SELECT 5, p.oid, p.xmin, p.ctid FROM pg_proc AS p WHERE p.oid >= 16384
                UNION ALL SELECT 6, p.oid, p.xmin, p.ctid FROM pg_policy AS p
                UNION ALL SELECT 7, i.inhrelid, i.xmin, i.ctid FROM pg_inherits AS i
                UNION ALL SELECT 16, t.oid, t.xmin, t.ctid FROM pg_ts_config AS t WHERE t.oid >= 16384
                UNION ALL SELECT 17, t.mapcfg, t.xmin, t.ctid FROM pg_ts_config_map AS t
                UNION ALL SELECT 18, t.oid, t.xmin, t.ctid FROM pg_ts_dict AS t WHERE t.oid >= 16384
                UNION ALL SELECT 8, e.oid, e.xmin, e.ctid FROM pg_enum AS e
                UNION ALL SELECT 9, t.oid, t.xmin, t.ctid FROM pg_type AS t
                           WHERE t.oid >= 16384 AND t.typtype IN ('d', 'e', 'r', 'm')
                UNION ALL SELECT 10, o.oid, o.xmin, o.ctid FROM pg_operator AS o WHERE o.oid >= 16384
                UNION ALL SELECT 11, k.oid, k.xmin, k.ctid FROM pg_cast AS k WHERE k.oid >= 16384
                UNION ALL SELECT 12, l.oid, l.xmin, l.ctid FROM pg_collation AS l WHERE l.oid >= 16384
                UNION ALL SELECT 13, n.oid, n.xmin, n.ctid FROM pg_namespace AS n
                           WHERE n.nspname !~ '^pg_(toast_)?temp_'
                UNION ALL SELECT 14, s.subid, s.xmin, s.ctid FROM (
                                  SELECT s.srsubid AS subid, '0'::xid AS xmin, '(0,0)'::tid AS ctid
                                    FROM pg_subscription_rel AS s) AS s
                UNION ALL SELECT 15, v.adrelid, v.xmin, v.ctid FROM pg_attrdef AS v
                            JOIN pg_class AS c ON c.oid = v.adrelid WHERE c.relpersistence <> 't'
               ) AS f);
END $$;
