-- The lease is judged once its row is locked: another transaction may have held the lock until after its end.
CREATE OR REPLACE FUNCTION is_in_term(of bytea, its_term bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz;
BEGIN
    SELECT alive_until INTO until FROM workers WHERE worker = of AND term = its_term FOR KEY SHARE;
    RETURN coalesce(until > clock_timestamp(), false);
END $$;

-- As before, but no number is given again that a process may have in force: a standby that took over may lack the last
-- flips, which processes follow by their numbers. Those are in the records of the processes, and `of_after` is that of
-- the process that calls.
CREATE OR REPLACE FUNCTION put_flips_after(
    of_put bytea[], of_route text[], of_record bytea[], declared_route text[], declared_record bytea[], of_after bigint
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    given bigint[];
    newest bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(20252);
    SELECT array_agg(number ORDER BY number) INTO given FROM flips WHERE put = ANY (of_put);
    IF given IS NOT NULL THEN
        RETURN given;
    END IF;
    SELECT coalesce(max(number), 0) INTO newest FROM flips;
    IF newest > of_after THEN
        RETURN NULL;
    END IF;
    SELECT greatest(of_after, max((convert_from(record, 'UTF8')::json ->> 'flips')::bigint)) INTO newest FROM workers;
    given := '{}';
    FOR i IN 1 .. cardinality(of_put) LOOP
        INSERT INTO flips (number, put, route, record) VALUES (newest + i, of_put[i], of_route[i], of_record[i]);
        given := given || (newest + i);
    END LOOP;
    IF declared_route IS NOT NULL THEN
        DELETE FROM declared WHERE route <> ALL (declared_route);
        INSERT INTO declared (route, record) SELECT * FROM unnest(declared_route, declared_record)
            ON CONFLICT (route) DO UPDATE SET record = excluded.record;
    END IF;
    RETURN given;
END $$;

-- The index is made before this, without a lock, where the tables have rows.
CREATE INDEX IF NOT EXISTS retry_keys_of_runs ON retry_keys (at, key) WHERE run_id IS NOT NULL;
