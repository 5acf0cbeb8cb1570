-- Bringing an installation to rest: this database is its home, and what it tracks is captured as this
-- release captures it.

CREATE OR REPLACE FUNCTION snapring.settle(release integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    stranger boolean := EXISTS (SELECT FROM snapring.version) AND NOT snapring.at_home();
    found record;
BEGIN
    INSERT INTO snapring.version (version, system_identifier, database)
    SELECT release, c.system_identifier, d.oid FROM pg_control_system() AS c, pg_database AS d
     WHERE d.datname = current_database()
        ON CONFLICT (one) DO UPDATE SET version = excluded.version, database = excluded.database,
                                        system_identifier = excluded.system_identifier;
    IF stranger THEN
        PERFORM snapring.rehome();
    ELSE
        PERFORM set_config('snapring.following', 'on', true);
        FOR found IN SELECT t.rel, t.names, t.bulk_limit FROM snapring.captured AS t
                       JOIN pg_class AS c ON c.oid = t.rel
                      WHERE t.rel = t.root AND NOT EXISTS (SELECT FROM snapring.refusals(t.rel, NULL)) LOOP
            PERFORM snapring.capture_family(found.rel, found.names, found.bulk_limit);
        END LOOP;
        PERFORM set_config('snapring.following', '', true);
    END IF;
    PERFORM set_config('snapring.following', 'on', true);
    PERFORM snapring.capture_family('snapring.heads'::regclass, ARRAY['key'::name], 1000);
    PERFORM set_config('snapring.following', '', true);
    PERFORM snapring.follow();
    PERFORM snapring.renew();
    PERFORM snapring.void();
    EXECUTE 'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA snapring FROM PUBLIC';
END $$;

-- The schema came here by a restore or a clone: no oid in it can be trusted, names can; no transaction id
-- either, so each key keeps its current value, as a new version.
CREATE OR REPLACE FUNCTION snapring.rehome() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET jit = off AS $$
DECLARE
    before snapring.captured[] := array(SELECT t FROM snapring.captured AS t
                                         WHERE t.rel = t.root AND t.relation <> 'snapring.heads');
    function regprocedure;
    was snapring.captured;
BEGIN
    PERFORM set_config('snapring.following', 'on', true);
    PERFORM set_config('snapring.writing', 'on', true);
    FOR function IN SELECT p.oid::regprocedure FROM pg_proc AS p
                     WHERE p.pronamespace = 'snapring'::regnamespace AND p.proname LIKE 'capture\_%\_%'
                       AND p.prorettype = 'trigger'::regtype LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', function);
    END LOOP;
    DELETE FROM snapring.captured;
    DELETE FROM snapring.marker;
    DELETE FROM snapring.changes;
    DELETE FROM snapring.ddl;
    DELETE FROM snapring.moments;
    TRUNCATE snapring.history;
    UPDATE snapring.history_floor SET floor = (pg_current_xact_id()::text::bigint + 1)::text::xid8, swept = '0';
    UPDATE snapring.heads SET created = pg_current_xact_id();
    PERFORM set_config('snapring.writing', '', true);
    FOREACH was IN ARRAY before LOOP
        IF to_regclass(was.relation) IS NULL THEN
            RAISE WARNING 'table % is tracked no more: it did not come along', was.relation;
        ELSE
            PERFORM snapring.track(was.relation::regclass, was.names, was.bulk_limit);
        END IF;
    END LOOP;
END $$;
