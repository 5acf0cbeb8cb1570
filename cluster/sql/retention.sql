-- Deleting the past: changes that every node has seen, versions that no token in use can name.

-- One step of a node that sweeps, elapsed_s after its previous one by its own clock (0 if there was none): at
-- most "most" changes older than changes_s and "most" versions that expired before history_s. How many went,
-- and whether there are more.
--
-- The clock only runs while someone sweeps, and no wall clock matters: time that nobody counted keeps things for
-- longer. What is cut off is what no snapshot taken within the time kept can miss.
CREATE OR REPLACE FUNCTION snapring.sweep(elapsed_s float8, changes_s float8, history_s float8, most integer)
    RETURNS TABLE (changes bigint, history bigint, more boolean)
    LANGUAGE plpgsql SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp SET jit = off
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    now_s float8;
    kept snapring.history_floor;
    cut xid8;
    doomed tid[];
BEGIN
    changes := 0;
    UPDATE snapring.sweep_clock AS c SET clock_s = c.clock_s + greatest(elapsed_s, 0)
        RETURNING c.clock_s INTO now_s;
    cut := snapring.cut('changes', now_s, changes_s);
    IF cut IS NOT NULL THEN
        changes := snapring.trim(cut, most);
    END IF;
    SELECT * INTO kept FROM snapring.history_floor;
    kept.floor := greatest(kept.floor, snapring.cut('history', now_s, history_s));
    -- Values may be large: what they weigh bounds the step as well.
    SELECT array_agg(o.place), coalesce((array_agg(o.expired ORDER BY o.expired DESC))[1], kept.swept)
      INTO doomed, kept.swept
      FROM (SELECT p.ctid AS place, p.expired,
                   sum(pg_column_size(p.value)) OVER (
                       ORDER BY p.expired ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_bytes
              FROM (SELECT v.ctid, v.value, v.expired FROM snapring.history AS v
                     WHERE v.expired >= kept.swept AND v.expired < kept.floor
                     ORDER BY v.expired LIMIT most) AS p) AS o
     WHERE o.before_bytes IS NULL OR o.before_bytes < 16777216;
    PERFORM set_config('snapring.writing', 'on', true); -- see guard()
    DELETE FROM snapring.history AS p WHERE p.ctid = ANY (doomed);
    GET DIAGNOSTICS history = ROW_COUNT;
    PERFORM set_config('snapring.writing', '', true);
    UPDATE snapring.history_floor AS f SET floor = kept.floor, swept = kept.swept
     WHERE f.floor < kept.floor OR f.swept < kept.swept;
    more := changes = most OR EXISTS (SELECT FROM snapring.history AS p
                                       WHERE p.expired >= kept.swept AND p.expired < kept.floor);
    RETURN NEXT;
END $$;

-- The xmin of the newest snapshot that is at least kept_s old; null where none is known. Remembers the present
-- one, often enough that nothing is kept for much longer than asked, and forgets those that are too old.
CREATE OR REPLACE FUNCTION snapring.cut(kind text, now_s float8, kept_s float8) RETURNS xid8
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    found snapring.moments;
BEGIN
    SELECT * INTO found FROM snapring.moments AS m
     WHERE m.kind = cut.kind AND m.clock_s <= now_s - kept_s ORDER BY m.clock_s DESC LIMIT 1;
    DELETE FROM snapring.moments AS m WHERE m.kind = cut.kind AND m.clock_s < found.clock_s;
    INSERT INTO snapring.moments
    SELECT cut.kind, now_s, pg_snapshot_xmin(pg_current_snapshot())
     WHERE NOT EXISTS (SELECT FROM snapring.moments AS m
                        WHERE m.kind = cut.kind AND m.clock_s >= now_s - kept_s / 64);
    RETURN found.oldest;
END $$;
