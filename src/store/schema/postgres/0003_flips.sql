-- Flips that are recorded together, and what the files declare from then on (NULL leaves what is remembered as it is): one
-- transaction. `put` names each flip, so that a call whose reply was lost and that is repeated records nothing twice.
-- `put_flip` stays for a process of the version before that still runs on this database.
CREATE FUNCTION put_flips(
    of_put bytea[], of_route text[], of_record bytea[], declared_route text[], declared_record bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
    numbers bigint[] := '{}';
BEGIN
    -- Numbers count up without a gap: flips are few, and wait for each other.
    PERFORM pg_advisory_xact_lock(20252);
    FOR i IN 1 .. cardinality(of_put) LOOP
        SELECT number INTO given FROM flips WHERE put = of_put[i];
        IF given IS NULL THEN
            INSERT INTO flips (number, put, route, record)
                SELECT coalesce(max(number), 0) + 1, of_put[i], of_route[i], of_record[i] FROM flips
                RETURNING number INTO given;
        END IF;
        numbers := numbers || given;
    END LOOP;
    IF declared_route IS NOT NULL THEN
        DELETE FROM declared WHERE route <> ALL (declared_route);
        INSERT INTO declared (route, record) SELECT * FROM unnest(declared_route, declared_record)
            ON CONFLICT (route) DO UPDATE SET record = excluded.record;
    END IF;
    RETURN numbers;
END $$;
