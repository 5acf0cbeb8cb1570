-- DDL: whatever may change what a query means voids everything, and the families of tracked tables stay
-- under capture as they grow.

-- Commands after which every query answers as before.
CREATE OR REPLACE FUNCTION snapring.is_harmless(command_tag text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN command_tag IN (
        'COMMENT', 'GRANT', 'SECURITY LABEL', 'ALTER DEFAULT PRIVILEGES', 'ALTER LARGE OBJECT',
        'CREATE INDEX', 'ALTER INDEX', 'REINDEX', 'CREATE STATISTICS', 'ALTER STATISTICS',
        'CREATE PUBLICATION', 'ALTER PUBLICATION', 'ALTER SEQUENCE');

-- Some commands commit midway: DETACH PARTITION CONCURRENTLY removes the rows from the table in a first
-- transaction, and only the second one reaches the end of the command. It cannot be part of a function or a
-- larger transaction, so the client's own text shows it.
CREATE OR REPLACE FUNCTION snapring.on_ddl_start() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    IF current_query() ~* 'detach' AND current_query() ~* 'concurrently' THEN
        PERFORM snapring.void();
    END IF;
END $$;

CREATE OR REPLACE FUNCTION snapring.on_ddl_end() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    command record;
    voids boolean := TG_TAG IN ('REASSIGN OWNED', 'REVOKE');
BEGIN
    FOR command IN SELECT c.command_tag, c.objid, c.schema_name FROM pg_event_trigger_ddl_commands() AS c LOOP
        IF command.command_tag = 'REFRESH MATERIALIZED VIEW' THEN
            INSERT INTO snapring.changes (rel) VALUES (command.objid);
        ELSIF NOT snapring.is_harmless(command.command_tag) AND command.schema_name IS DISTINCT FROM 'pg_temp' THEN
            voids := true;
        END IF;
    END LOOP;
    IF voids THEN
        PERFORM snapring.void();
        PERFORM snapring.follow();
    END IF;
END $$;

CREATE OR REPLACE FUNCTION snapring.on_ddl_drop() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() AS o
                WHERE o.original AND NOT o.is_temporary
                  AND o.object_type NOT IN ('index', 'statistics object', 'publication',
                                            'publication relation', 'publication namespace')) THEN
        PERFORM snapring.void();
        PERFORM snapring.follow();
    END IF;
END $$;

-- After DDL: capture what joined a tracked table, forget what is gone, write anew what a renamed, dropped
-- or retyped column made wrong. Triggers that someone disabled or dropped stay as they are: `snapring check`
-- tells. Never fails the user's command; what could not be followed is not captured, and so not cached.
-- Following is DDL itself: snapring.following keeps that from following in turn.
CREATE OR REPLACE FUNCTION snapring.follow() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    found record;
BEGIN
    -- Away from home the oids on record mean other tables: the names must last until init has used them.
    IF current_setting('snapring.following', true) = 'on' OR NOT snapring.at_home() THEN
        RETURN;
    END IF;
    PERFORM set_config('snapring.following', 'on', true);
    FOR found IN SELECT t.rel FROM snapring.captured AS t
                  WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.rel) LOOP
        PERFORM snapring.release(found.rel);
    END LOOP;
    FOR found IN SELECT t.rel, t.bulk_limit, array(
                            SELECT a.attname FROM pg_attribute AS a
                             WHERE a.attrelid = t.rel AND a.attnum = ANY (t.columns)
                               AND snapring.grain(t.rel, a.attnum) IS NOT NULL) AS names
                   FROM snapring.captured AS t
                  WHERE t.rel = t.root AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = t.rel)
                    AND (snapring.column_flaw(t) IS NOT NULL OR EXISTS (
                            SELECT FROM snapring.family(t.rel) AS f
                             WHERE NOT EXISTS (SELECT FROM snapring.captured AS m
                                                WHERE m.rel = f AND m.root = t.rel))) LOOP
        IF NOT EXISTS (SELECT FROM snapring.refusals(found.rel, NULL)) THEN
            PERFORM snapring.capture_family(found.rel, found.names, found.bulk_limit);
        END IF;
    END LOOP;
    PERFORM set_config('snapring.following', '', true);
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'snapring could not follow this command: %', SQLERRM USING HINT = 'Run: snapring check';
END $$;
