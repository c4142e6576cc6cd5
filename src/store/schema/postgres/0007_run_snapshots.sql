-- A run as it stood after an event, so that whoever takes it need not read all of its events. Nothing is lost with a row
-- here.
CREATE TABLE run_snapshots (
    run_id bytea  PRIMARY KEY,
    seq    bigint NOT NULL,            -- of the last event that is in it
    at     bigint NOT NULL,            -- when that happened
    fold   text   NOT NULL,            -- names the rules by which events were folded: others do not read it
    hash   bytea  NOT NULL,            -- of the body
    body   bytea  NOT NULL
);
-- It is there to be read quickly, and replaced soon.
ALTER TABLE run_snapshots ALTER COLUMN body SET STORAGE EXTERNAL;

-- Drops runs that have ended, whole but for the rows of those that are pinned; says how many, and how many payloads.
CREATE OR REPLACE FUNCTION purge(gone bytea[], kept bytea[], kept_remains bytea[], OUT runs_gone bigint, OUT payloads_gone bigint)
LANGUAGE plpgsql AS $$
DECLARE
    hashes bytea[];
BEGIN
    -- Another process may have been faster with some of them.
    SELECT coalesce(array_agg(run_id), '{}'), count(*) INTO gone, runs_gone FROM
        (SELECT run_id FROM runs WHERE run_id = ANY (gone) AND ended AND NOT purged ORDER BY run_id FOR UPDATE) AS mine;
    DELETE FROM appends WHERE run_id = ANY (gone);
    DELETE FROM run_snapshots WHERE run_id = ANY (gone);
    DELETE FROM orders WHERE run_id = ANY (gone);
    UPDATE runs SET purged = true, remains = k.remains FROM unnest(kept, kept_remains) AS k(run_id, remains)
        WHERE runs.run_id = k.run_id AND runs.run_id = ANY (gone);
    DELETE FROM runs WHERE run_id = ANY (gone) AND NOT purged;
    WITH dropped AS (DELETE FROM payload_refs WHERE run_id = ANY (gone) RETURNING hash)
        SELECT array(SELECT DISTINCT hash FROM dropped) INTO hashes;
    payloads_gone := 0;
    IF cardinality(hashes) > 0 THEN
        PERFORM pg_advisory_xact_lock(20253);
        DELETE FROM payloads p WHERE p.hash = ANY (hashes)
            AND NOT EXISTS (SELECT FROM payload_refs r WHERE r.hash = p.hash);
        GET DIAGNOSTICS payloads_gone = ROW_COUNT;
    END IF;
END $$;
