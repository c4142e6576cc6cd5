-- Whether legacy may take a request that comes under several credentials is looked up in two places: an append looks for
-- legacy's key before it claims the run's, and legacy, whose key is committed, looks for the run's. Neither would find
-- the other's while the append is not committed. So both lock one of 64 numbers, by legacy's key: the append, together
-- with others, until it is committed; the look-up of legacy alone, so that it waits for the appends before it.
CREATE OR REPLACE FUNCTION refuse_legacy_keys(keys bytea[], window_ns bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(keys) = 0 THEN
        RETURN true;
    END IF;
    -- In order, so that two processes do not wait for each other in a circle.
    PERFORM pg_advisory_xact_lock_shared(20257, number)
        FROM (SELECT DISTINCT get_byte(key, 0) % 64 AS number FROM unnest(keys) AS k(key) ORDER BY 1) AS numbers;
    IF EXISTS (SELECT FROM retry_keys WHERE key = ANY (keys) AND run_id IS NULL AND at > now_ns() - window_ns) THEN
        RAISE EXCEPTION 'legacy has the request' USING ERRCODE = 'PM001';
    END IF;
    RETURN true;
END $$;

-- Waits for the appends that may not have found `legacys`, a key of legacy that is committed. Says then whether a run
-- that was not abandoned has claimed a key in this range.
CREATE FUNCTION engine_took_any_after(legacys bytea, first bytea, last bytea, since bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(20257, get_byte(legacys, 0) % 64);
    RETURN EXISTS (
        SELECT FROM retry_keys AS k WHERE k.key BETWEEN first AND last AND k.run_id IS NOT NULL
            AND (k.at > since
                OR EXISTS (SELECT FROM runs AS r WHERE r.run_id = k.run_id AND (NOT r.ended OR r.updated > since))
                OR EXISTS (SELECT FROM runs AS r WHERE r.job = k.run_id AND (NOT r.ended OR r.updated > since)))
            AND NOT EXISTS (SELECT FROM runs AS r WHERE r.run_id = k.run_id AND r.status = 'abandoned'));
END $$;
