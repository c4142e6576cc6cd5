-- Captured pairs. The index has all that the bounds are computed from, so that no body is read for them.
CREATE TABLE captures (
    pos    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id     bytea NOT NULL UNIQUE,
    route  text NOT NULL,
    at     bigint NOT NULL,            -- nanoseconds
    bytes  bigint NOT NULL,            -- of the record
    record bytea NOT NULL              -- JSON, redacted before it came here
);
CREATE INDEX captures_by_route ON captures (route, pos, bytes);
CREATE INDEX captures_by_age ON captures (at);

-- Calls wait for each other, so that a reader never skips a capture that gets a smaller position and is committed later,
-- and so that the bounds hold however many processes write.
CREATE FUNCTION put_captures(
    of_id bytea[], of_route text[], of_at bigint[], of_record bytea[], per_route bigint, bytes_per_route bigint,
    since bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    put_route text;
BEGIN
    PERFORM pg_advisory_xact_lock(20256);
    FOR i IN 1 .. cardinality(of_id) LOOP
        INSERT INTO captures (id, route, at, bytes, record)
            VALUES (of_id[i], of_route[i], of_at[i], length(of_record[i]), of_record[i]) ON CONFLICT DO NOTHING;
    END LOOP;
    DELETE FROM captures WHERE at < since;
    FOR put_route IN SELECT DISTINCT unnest(of_route) LOOP
        DELETE FROM captures WHERE pos IN
            (SELECT pos FROM
                (SELECT pos, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
                 FROM captures WHERE route = put_route
                 WINDOW newest AS (ORDER BY pos DESC ROWS UNBOUNDED PRECEDING)) AS places
             WHERE place > per_route OR total > bytes_per_route);
    END LOOP;
END $$;
