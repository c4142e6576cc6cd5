-- Instances that move, or have moved, from legacy to the engine: the newest claim of each.
CREATE TABLE adoptions (
    family   text   NOT NULL,          -- the oldest id of the route that creates them
    id       bytea  NOT NULL,          -- a UUID in its lower-case spelling
    spelled  bytea  NOT NULL,          -- the id as legacy spells it
    run_id   bytea  NOT NULL,
    workflow text   NOT NULL,
    state    text   NOT NULL,          -- moving, unknown, adopted, given_back
    reason   bytea,
    by       bytea  NOT NULL,
    claimed  bigint NOT NULL,          -- in nanoseconds since 1970
    at       bigint NOT NULL
);
CREATE UNIQUE INDEX adoptions_by_id ON adoptions (family, sha256(id));
CREATE INDEX adoptions_open ON adoptions (family) WHERE state IN ('moving', 'unknown');

-- Of an instance that legacy made: moving and unknown (neither arm answers for it), or adopted.
ALTER TABLE pins ADD COLUMN adoption text;
CREATE INDEX pins_adopted ON pins (run_id) WHERE adoption IS NOT NULL;

-- Claims an instance, unless another claim holds or the engine has it. Of two claims at the same time, the second waits
-- for the first at the row of the adoption.
CREATE FUNCTION claim_adoption(
    in_family text, in_id bytea, in_spelled bytea, in_run bytea, in_workflow text, in_by bytea, in_at bigint,
    pin_family text[], pin_id bytea[], twin_family text[], twin_id bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
BEGIN
    IF EXISTS (SELECT FROM pins p JOIN unnest(pin_family || twin_family, pin_id || twin_id) AS k (family, id)
            ON p.family = k.family AND sha256(p.id) = sha256(k.id)
            WHERE p.arm = 'engine' AND (p.adoption IS NULL OR p.run_id <> in_run)) THEN
        RETURN;
    END IF;
    INSERT INTO adoptions AS held (family, id, spelled, run_id, workflow, state, reason, by, claimed, at)
        VALUES (in_family, in_id, in_spelled, in_run, in_workflow, 'moving', NULL, in_by, in_at, in_at)
        ON CONFLICT (family, sha256(id)) DO UPDATE SET spelled = excluded.spelled, run_id = excluded.run_id,
            workflow = excluded.workflow, state = 'moving', reason = NULL, by = excluded.by,
            claimed = excluded.claimed, at = excluded.at
            WHERE held.state = 'given_back' AND held.run_id <> excluded.run_id;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done = 0 THEN
        RETURN;
    END IF;
    DELETE FROM pins p USING unnest(pin_family || twin_family, pin_id || twin_id) AS k (family, id)
        WHERE p.family = k.family AND sha256(p.id) = sha256(k.id) AND p.arm = 'legacy';
    INSERT INTO pins (family, id, arm, run_id, at, adoption)
        SELECT k.family, k.id, 'engine', in_run, in_at, 'moving' FROM unnest(pin_family, pin_id) AS k (family, id)
        ON CONFLICT (family, sha256(id)) DO NOTHING;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done <> cardinality(pin_id) THEN
        RAISE EXCEPTION 'an instance has an owner' USING ERRCODE = 'PM001';
    END IF;
END $$;

-- Ends an adoption, or records that its outcome is unknown.
CREATE FUNCTION settle_adoption(
    in_family text, in_id bytea, in_run bytea, in_state text, in_reason bytea, in_by bytea, in_at bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
BEGIN
    UPDATE adoptions SET state = in_state, reason = in_reason, by = coalesce(in_by, by), at = in_at
        WHERE family = in_family AND sha256(id) = sha256(in_id) AND run_id = in_run
            AND state IN ('moving', 'unknown');
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done = 0 THEN
        RETURN;
    END IF;
    IF in_state = 'given_back' THEN
        DELETE FROM pins WHERE run_id = in_run AND adoption IS NOT NULL;
        RETURN;
    END IF;
    UPDATE pins SET adoption = in_state WHERE run_id = in_run AND adoption IS NOT NULL;
    UPDATE runs SET pinned = true WHERE run_id = in_run;
    IF in_state = 'adopted' THEN
        -- Also where no request has shown it yet: one that waits to be recorded is no new instance then.
        INSERT INTO legacy_instances AS known (family, id, seen, ended, incomplete)
            VALUES (in_family, in_id, in_at, in_at, false)
            ON CONFLICT (family, sha256(id)) DO UPDATE SET ended = excluded.ended WHERE known.ended IS NULL;
    END IF;
END $$;
