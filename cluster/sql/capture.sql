-- Putting tables under capture: the triggers of one relation, and the family of a root.

-- The relations that hold rows of a table: itself, its partitions, its inheritance children.
CREATE OR REPLACE FUNCTION snapring.family(root oid) RETURNS SETOF oid
    LANGUAGE sql STABLE ROWS 4 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE family(rel) AS (
        SELECT c.oid FROM pg_class AS c WHERE c.oid = root
        UNION
        SELECT i.inhrelid FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.rel)
    SELECT rel FROM family
$$;

-- The topmost relations through which rows of a relation can be written.
CREATE OR REPLACE FUNCTION snapring.tops(rel oid) RETURNS SETOF oid
    LANGUAGE sql STABLE ROWS 4 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE above(rel) AS (
        SELECT tops.rel
        UNION
        SELECT i.inhparent FROM above AS a JOIN pg_inherits AS i ON i.inhrelid = a.rel)
    SELECT a.rel FROM above AS a WHERE NOT EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = a.rel)
$$;

-- The expression of a column's text, %s standing for the column; null where rows cannot be told apart by
-- it. A virtual generated column has no value in a trigger.
CREATE OR REPLACE FUNCTION snapring.grain(rel oid, attnum integer) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE base(type, kind, below) AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
          LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
         WHERE a.attrelid = grain.rel AND a.attnum = grain.attnum AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attgenerated <> 'v' AND coalesce(l.collisdeterministic, true)
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype FROM base AS b JOIN pg_type AS t ON t.oid = b.below
         WHERE b.kind = 'd')
    SELECT g.expression FROM base AS b
      JOIN snapring.grains AS g ON g.type = b.type
     WHERE b.kind <> 'd'
$$;

-- The primary-key and foreign-key columns that have a grain, in the table's order.
CREATE OR REPLACE FUNCTION snapring.default_columns(rel oid) RETURNS name[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT coalesce(array_agg(a.attname ORDER BY a.attnum), '{}') FROM pg_attribute AS a
     WHERE a.attrelid = default_columns.rel AND snapring.grain(a.attrelid, a.attnum) IS NOT NULL
       AND EXISTS (SELECT FROM pg_constraint AS c
                    WHERE c.conrelid = a.attrelid AND c.contype IN ('p', 'f') AND a.attnum = ANY (c.conkey))
$$;

-- The body of a trigger function: static SQL, every name and operator qualified, since it runs with the
-- rights of its owner under the search_path of whoever writes.
--
-- First the common case, all rows alike in each column, which costs no hashing; then the general one.
CREATE OR REPLACE FUNCTION snapring.trigger_source(captured snapring.captured, event text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    sources text[] := CASE event WHEN 'insert' THEN '{new_rows}' WHEN 'delete' THEN '{old_rows}'
                                 ELSE '{old_rows,new_rows}' END;
    tags text[];
    listed text;
    fast text := '';
BEGIN
    IF event = 'truncate' THEN
        RETURN format(E'BEGIN\n    INSERT INTO snapring.changes (rel) VALUES (%s);\n    RETURN NULL;\nEND',
                      captured.root);
    ELSIF cardinality(captured.columns) = 0 THEN
        RETURN format(E'BEGIN\n    INSERT INTO snapring.changes (rel) SELECT %s FROM %I LIMIT 1;\n'
                      '    RETURN NULL;\nEND', captured.root, sources[1]);
    END IF;
    SELECT array_agg(format('snapring.tag(%s::pg_catalog.oid, %s, %s)', captured.root, c.attnum,
                            format(snapring.grain(captured.root, c.attnum), format('r.%I', c.name)))
                     ORDER BY c.place)
      INTO tags
      FROM unnest(captured.columns, captured.names) WITH ORDINALITY AS c(attnum, name, place);
    IF cardinality(tags) <= captured.bulk_limit THEN
        fast := snapring.alike_source(captured.root, tags, sources);
    END IF;
    -- Ordered: trigger_flaw compares this text with what is installed.
    SELECT string_agg(format('SELECT %s AS tag FROM %I AS r', t.tag, s.name), E'\n                UNION ALL '
                      ORDER BY t.tag, s.name)
      INTO listed FROM unnest(tags) AS t(tag), unnest(sources) AS s(name);
    RETURN format($body$BEGIN%1$s
    INSERT INTO snapring.changes (rel, tag)
    SELECT %2$s, pg_catalog.unnest(
               CASE WHEN u.tagged OPERATOR(pg_catalog.>) 0 AND u.tagged OPERATOR(pg_catalog.<=) %3$s
                    THEN u.tags ELSE ARRAY[NULL::bigint] END)
      FROM (SELECT pg_catalog.array_agg(d.tag) FILTER (WHERE d.tag IS NOT NULL) AS tags,
                   pg_catalog.count(d.tag) AS tagged, pg_catalog.count(*) AS touched
              FROM (SELECT DISTINCT t.tag FROM (
                %4$s
              ) AS t LIMIT %5$s) AS d) AS u
     WHERE u.touched OPERATOR(pg_catalog.>) 0;%6$s
    RETURN NULL;
END$body$, fast, captured.root, captured.bulk_limit, listed, captured.bulk_limit + 2,
           CASE WHEN fast <> '' THEN E'\n    END IF;' END);
END $$;

CREATE OR REPLACE FUNCTION snapring.alike_source(root oid, tags text[], sources text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    columns text;
    alike text;
    least text;
    rows text;
BEGIN
    SELECT string_agg(format('%s AS t%s', t.tag, t.n), ', ' ORDER BY t.n),
           string_agg(format('(pg_catalog.min(t.t%1$s) OPERATOR(pg_catalog.<>) pg_catalog.max(t.t%1$s))'
                             ' IS NOT TRUE', t.n), ' AND ' ORDER BY t.n),
           string_agg(format('pg_catalog.min(t.t%s)', t.n), ', ' ORDER BY t.n)
      INTO columns, alike, least
      FROM unnest(tags) WITH ORDINALITY AS t(tag, n);
    SELECT string_agg(format('SELECT %s FROM %I AS r', columns, s.name), E'\n            UNION ALL ' ORDER BY s.name)
      INTO rows FROM unnest(sources) AS s(name);
    RETURN format($body$
    INSERT INTO snapring.changes (rel, tag)
    SELECT %s, %s
      FROM (%s) AS t
    HAVING coalesce(%s) IS NOT NULL AND %s;
    IF NOT FOUND THEN$body$, root,
        CASE WHEN cardinality(tags) = 1 THEN least
             ELSE format('pg_catalog.unnest(pg_catalog.array_remove(ARRAY[%s], NULL))', least) END,
        rows, least, alike);
END $$;

-- What is wrong with the triggers of a relation that should be captured as told; null if nothing is.
CREATE OR REPLACE FUNCTION snapring.trigger_flaw(captured snapring.captured) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT string_agg(format('trigger %s %s', e.name, f.flaw), ', ' ORDER BY e.event)
      FROM (SELECT v.event, 'snapring_' || v.event AS name, v.bit
              FROM (VALUES ('insert', 4), ('delete', 8), ('update', 16), ('truncate', 32)) AS v(event, bit)) AS e
      LEFT JOIN pg_trigger AS g ON g.tgrelid = captured.rel AND g.tgname = e.name
      LEFT JOIN pg_proc AS p ON p.oid = g.tgfoid
     CROSS JOIN LATERAL (SELECT CASE
           WHEN g.oid IS NULL THEN 'is missing'
           WHEN g.tgenabled = 'D' THEN 'is disabled'
           WHEN g.tgenabled <> 'A' THEN 'is not ENABLE ALWAYS'
           WHEN g.tgtype <> e.bit OR g.tgqual IS NOT NULL OR g.tgattr <> ''::int2vector
             OR p.proname <> format('capture_%s_%s', captured.rel, e.event)
             OR p.pronamespace <> 'snapring'::regnamespace OR NOT p.prosecdef
             OR p.prosrc IS DISTINCT FROM snapring.trigger_source(captured, e.event) THEN 'was altered'
           END) AS f(flaw)
     WHERE f.flaw IS NOT NULL
$$;

-- What is wrong with the columns of a table under capture; null if nothing is.
CREATE OR REPLACE FUNCTION snapring.column_flaw(captured snapring.captured) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT string_agg(format('column %I %s', c.name, f.flaw), ', ' ORDER BY c.name)
      FROM unnest(captured.columns, captured.names, captured.types) AS c(attnum, name, type)
      LEFT JOIN pg_attribute AS a ON a.attrelid = captured.root AND a.attnum = c.attnum AND NOT a.attisdropped
     CROSS JOIN LATERAL (SELECT CASE
           WHEN a.attnum IS NULL THEN 'is gone'
           WHEN a.attname <> c.name THEN format('is now called %I', a.attname)
           WHEN snapring.grain(captured.root, c.attnum) IS NULL THEN 'no longer tells rows apart by its text'
           WHEN a.atttypid <> c.type THEN format('is now of type %s', format_type(a.atttypid, a.atttypmod))
           END) AS f(flaw)
     WHERE f.flaw IS NOT NULL
$$;

-- What keeps a relation from being captured exactly; null if nothing does.
CREATE OR REPLACE FUNCTION snapring.flaw(captured snapring.captured) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT CASE WHEN ARRAY[captured.root] <> array(SELECT snapring.tops(captured.rel))
                THEN format('its rows also change through %s', (
                         SELECT string_agg(t::regclass::text, ', ') FROM snapring.tops(captured.rel) AS t
                          WHERE t <> captured.root))
                WHEN EXISTS (SELECT FROM pg_subscription_rel AS s
                              WHERE captured.rel IN (SELECT snapring.family(s.srrelid)))
                THEN 'a subscription writes to it, and apply workers fire no statement triggers'
                ELSE coalesce(snapring.column_flaw(captured), snapring.trigger_flaw(captured)) END
$$;

-- What is captured exactly: a relation appears here as long as nothing about its capture is amiss, and the
-- asking role sees all of its rows (policies may read what no dependency knows).
CREATE OR REPLACE VIEW snapring.tracked AS
    SELECT c.* FROM snapring.captured AS c
     WHERE EXISTS (SELECT FROM pg_class AS t WHERE t.oid = c.rel)
       AND NOT row_security_active(c.rel) AND snapring.flaw(c) IS NULL;

-- Write functions and triggers of one relation as they should be, where they are not.
CREATE OR REPLACE FUNCTION snapring.capture(captured snapring.captured) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    event text;
    function text;
BEGIN
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        function := format('snapring.capture_%s_%s', captured.rel, event);
        EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS %L',
                       function, snapring.trigger_source(captured, event));
        EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', function);
        IF snapring.trigger_flaw(captured) LIKE format('%%trigger snapring_%s %%', event) THEN
            EXECUTE format('CREATE OR REPLACE TRIGGER snapring_%s AFTER %s ON %s %s FOR EACH STATEMENT'
                           ' EXECUTE FUNCTION %s()', event, event, captured.rel::regclass,
                           CASE event WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
                                      WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows'
                                      WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                                      ELSE '' END, function);
            EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER snapring_%s', captured.rel::regclass, event);
        END IF;
    END LOOP;
END $$;

-- Take one relation off capture; it may be gone already.
CREATE OR REPLACE FUNCTION snapring.release(captured oid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET jit = off AS $$
DECLARE
    event text;
BEGIN
    DELETE FROM snapring.captured AS t WHERE t.rel = captured;
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS snapring.capture_%s_%s() CASCADE', captured, event);
    END LOOP;
END $$;

-- Put a root and its family under capture with the given columns.
CREATE OR REPLACE FUNCTION snapring.capture_family(top oid, column_names name[], bulk_limit integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    captured snapring.captured;
    member oid;
BEGIN
    SELECT top, top, top::regclass::text, coalesce(array_agg(a.attnum ORDER BY a.attnum), '{}'),
           coalesce(array_agg(a.attname ORDER BY a.attnum), '{}'),
           coalesce(array_agg(a.atttypid ORDER BY a.attnum), '{}'), capture_family.bulk_limit
      INTO captured
      FROM pg_attribute AS a
     WHERE a.attrelid = top AND a.attname = ANY (column_names) AND NOT a.attisdropped;
    FOR member IN SELECT f FROM snapring.family(top) AS f LOOP
        captured.rel := member;
        captured.relation := format('%I.%I', c.relnamespace::regnamespace::name, c.relname)
                        FROM pg_class AS c WHERE c.oid = member;
        DELETE FROM snapring.captured AS t WHERE t.rel = member;
        INSERT INTO snapring.captured SELECT captured.*;
        PERFORM snapring.capture(captured);
    END LOOP;
END $$;

-- Put a table under capture. Null names: its key columns. Refuses what cannot be captured exactly.
CREATE OR REPLACE FUNCTION snapring.track(target regclass, column_names name[], bulk_limit integer) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    refusal record;
BEGIN
    SELECT * INTO refusal FROM snapring.refusals(target, column_names) AS r LIMIT 1;
    IF FOUND THEN
        RAISE '%', refusal.problem USING ERRCODE = '0A000', HINT = refusal.remedy;
    END IF;
    PERFORM set_config('snapring.following', 'on', true); -- see follow()
    -- Writers that began before the triggers existed must have ended before anyone relies on these.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
    PERFORM snapring.void();
    PERFORM snapring.capture_family(target, coalesce(column_names, snapring.default_columns(target)), bulk_limit);
    PERFORM set_config('snapring.following', '', true);
END $$;

CREATE OR REPLACE FUNCTION snapring.untrack(target regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    member oid;
BEGIN
    IF target = 'snapring.heads'::regclass THEN
        RAISE 'table % is part of the schema, and so is its capture', target USING ERRCODE = '0A000';
    ELSIF NOT EXISTS (SELECT FROM snapring.captured AS t WHERE t.rel = target AND t.root = target) THEN
        RAISE 'table % is not tracked', target USING ERRCODE = '42704', HINT = coalesce(
            (SELECT format('It is captured as part of another table: snapring untrack %s', t.root::regclass)
               FROM snapring.captured AS t WHERE t.rel = target), 'Nothing is to be done.');
    END IF;
    PERFORM set_config('snapring.following', 'on', true);
    PERFORM snapring.void();
    FOR member IN SELECT t.rel FROM snapring.captured AS t WHERE t.root = target LOOP
        PERFORM snapring.release(member);
    END LOOP;
    PERFORM set_config('snapring.following', '', true);
END $$;

-- Why a table cannot be tracked with these columns, and what to do instead.
CREATE OR REPLACE FUNCTION snapring.refusals(target oid, column_names name[])
    RETURNS TABLE (problem text, remedy text)
    LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT format('%s is %s', c.oid::regclass, CASE
               WHEN c.relnamespace IN ('pg_catalog'::regnamespace, 'snapring'::regnamespace)
                 OR c.relnamespace = 'information_schema'::regnamespace THEN 'not a table of yours'
               WHEN c.relpersistence = 't' THEN 'a temporary table, which only its own session sees'
               WHEN c.relkind = 'f' THEN 'a foreign table, whose changes nobody here sees'
               WHEN c.relkind = 'v' THEN 'a view: the tables behind it are what changes'
               WHEN c.relkind = 'm' THEN 'a materialized view, whose refreshing is captured without this'
               ELSE 'not a table' END),
           'Track the tables that the query reads.'
      FROM pg_class AS c
     WHERE c.oid = target
       AND (c.relkind NOT IN ('r', 'p') OR c.relpersistence = 't' OR c.relnamespace IN (
                'pg_catalog'::regnamespace, 'snapring'::regnamespace, 'information_schema'::regnamespace))
    UNION ALL
    SELECT format('%s is part of %s, through which its rows change too', target::regclass, t::regclass),
           format('Run: snapring track %s', t::regclass)
      FROM snapring.tops(target) AS t WHERE t <> target
    UNION ALL
    SELECT format('%s, a part of %s, is a foreign table, whose changes nobody here sees', f::regclass,
                  target::regclass),
           CASE WHEN c.relispartition
                THEN format('ALTER TABLE %s DETACH PARTITION %s', i.inhparent::regclass, f::regclass)
                ELSE format('ALTER TABLE %s NO INHERIT %s', f::regclass, i.inhparent::regclass) END
      FROM snapring.family(target) AS f JOIN pg_class AS c ON c.oid = f AND c.relkind = 'f'
      JOIN pg_inherits AS i ON i.inhrelid = f
    UNION ALL
    SELECT format('%s has several parents at the top: %s', f::regclass,
                  (SELECT string_agg(t::regclass::text, ', ') FROM snapring.tops(f) AS t)),
           (SELECT string_agg(format('ALTER TABLE %s NO INHERIT %s', f::regclass, i.inhparent::regclass), '; ')
              FROM pg_inherits AS i
             WHERE i.inhrelid = f AND i.inhparent NOT IN (SELECT snapring.family(target)))
      FROM snapring.family(target) AS f WHERE 1 < (SELECT count(*) FROM snapring.tops(f))
    UNION ALL
    SELECT CASE WHEN a.attnum IS NULL THEN format('%s has no column %I', target::regclass, n)
                ELSE format('the values of column %I (%s) cannot be told apart by their text', n,
                            format_type(a.atttypid, a.atttypmod)) END,
           'Leave it out of --columns: queries by it then depend on the table as a whole.'
      FROM unnest(column_names) AS n
      LEFT JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = n AND a.attnum > 0 AND NOT a.attisdropped
     WHERE snapring.grain(target, a.attnum) IS NULL
$$;
