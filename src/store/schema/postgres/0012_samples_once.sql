-- As before, but idempotent: a sample that is stored already is not stored a second time but becomes the newest, and
-- the limits apply after all samples are stored, so that a repeated call leaves the same rows. Calls wait for each
-- other: a call that is repeated because its outcome is unknown may still be executing.
CREATE OR REPLACE FUNCTION put_samples(
    of_route text[], of_fingerprint text[], of_record bytea[], per_fingerprint bigint, fingerprints bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    put_route text;
BEGIN
    PERFORM pg_advisory_xact_lock(20255);
    FOR i IN 1 .. cardinality(of_route) LOOP
        DELETE FROM samples WHERE route = of_route[i] AND fingerprint = of_fingerprint[i] AND record = of_record[i];
        INSERT INTO samples (route, fingerprint, record) VALUES (of_route[i], of_fingerprint[i], of_record[i]);
    END LOOP;
    FOR put_route IN SELECT DISTINCT unnest(of_route) LOOP
        DELETE FROM samples WHERE pos IN
            (SELECT pos FROM
                (SELECT pos, row_number() OVER (PARTITION BY fingerprint ORDER BY pos DESC) AS place
                 FROM samples WHERE route = put_route) AS places
             WHERE place > per_fingerprint);
        DELETE FROM samples WHERE route = put_route AND fingerprint NOT IN
            (SELECT fingerprint FROM samples WHERE route = put_route
             GROUP BY fingerprint ORDER BY max(pos) DESC LIMIT fingerprints);
    END LOOP;
END $$;
