-- A request that comes under two credentials is looked for on both sides: an append looks for legacy's key before it
-- claims the run's, and legacy, whose key is committed, looks for the run's. Neither would find the other's while the
-- append is not committed. So an append holds one of 16,384 numbers, by legacy's key, together with other appends, from
-- before it looks until it is committed; and legacy's look-up waits until no append holds the number. It does not stand
-- in the queue for it and does not keep it, so that no append waits for a look-up.
CREATE FUNCTION number_of_key(key bytea) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT (256 * get_byte(key, 0) + get_byte(key, 1)) % 16384
$$;

CREATE OR REPLACE FUNCTION refuse_legacy_keys(keys bytea[], window_ns bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(keys) = 0 THEN
        RETURN true;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(20257, number)
        FROM (SELECT DISTINCT number_of_key(key) AS number FROM unnest(keys) AS k(key)) AS numbers;
    IF EXISTS (SELECT FROM retry_keys WHERE key = ANY (keys) AND run_id IS NULL AND at > now_ns() - window_ns) THEN
        RAISE EXCEPTION 'legacy has the request' USING ERRCODE = 'PM001';
    END IF;
    RETURN true;
END $$;

-- Waits, at most so many milliseconds, for the appends that may not have found `legacy_key`, a key of legacy that is
-- committed. Says then whether a run that was not abandoned has claimed a key in this range; NULL if such an append is
-- still under way.
CREATE FUNCTION engine_took_any_after(legacy_key bytea, first bytea, last bytea, since bigint, wait_ms bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + wait_ms * interval '1 ms';
    is_free boolean;
BEGIN
    LOOP
        BEGIN
            is_free := pg_try_advisory_xact_lock(20257, number_of_key(legacy_key));
            RAISE EXCEPTION 'the number is given back' USING ERRCODE = 'PM003';
        EXCEPTION WHEN SQLSTATE 'PM003' THEN
            NULL;
        END;
        EXIT WHEN is_free;
        IF clock_timestamp() > until THEN
            RETURN NULL;
        END IF;
        PERFORM pg_sleep(0.002);
    END LOOP;
    -- Read by the primary key first: an index of the keys of runs in order of time would be read whole.
    RETURN EXISTS (
        WITH near AS MATERIALIZED (SELECT run_id, at FROM retry_keys WHERE key BETWEEN first AND last)
        SELECT FROM near AS k WHERE k.run_id IS NOT NULL
            AND (k.at > since
                OR EXISTS (SELECT FROM runs AS r WHERE r.run_id = k.run_id AND (NOT r.ended OR r.updated > since))
                OR EXISTS (SELECT FROM runs AS r WHERE r.job = k.run_id AND (NOT r.ended OR r.updated > since)))
            AND NOT EXISTS (SELECT FROM runs AS r WHERE r.run_id = k.run_id AND r.status = 'abandoned'));
END $$;

-- As `put_flips_after`, while the process `of` has its lease in this term and the announcement with this number stands in
-- its record. Its row is locked until the end of the transaction: another process sees either the announcement or the
-- flips.
CREATE FUNCTION put_announced_flips(
    of_put bytea[], of_route text[], of_record bytea[], declared_route text[], declared_record bytea[], of_after bigint,
    of bytea, its_term bigint, its_announcement bigint
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    stands boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(20252);
    SELECT alive_until > clock_timestamp() AND EXISTS (
                SELECT FROM json_array_elements_text(convert_from(record, 'UTF8')::json #> '{announced,standing}') AS s(number)
                    WHERE s.number::bigint = its_announcement)
        INTO stands FROM workers WHERE worker = of AND term = its_term FOR SHARE;
    IF NOT coalesce(stands, false) AND NOT EXISTS (SELECT FROM flips WHERE put = ANY (of_put)) THEN
        RETURN NULL;
    END IF;
    RETURN put_flips_after(of_put, of_route, of_record, declared_route, declared_record, of_after);
END $$;
