-- The runs of which a sample keeps events: a rehearsal and the runs below it.
CREATE TABLE sample_runs (
    run bytea  NOT NULL,
    pos bigint NOT NULL REFERENCES samples (pos) ON DELETE CASCADE,
    PRIMARY KEY (run, pos)
);
CREATE INDEX sample_runs_by_sample ON sample_runs (pos);
-- By pattern: a record may hold characters that PostgreSQL's JSON refuses. The keys of a record stand in this order.
INSERT INTO sample_runs (run, pos)
    SELECT decode(replace(run, '-', ''), 'hex'), pos
    FROM (SELECT substring(convert_from(record, 'UTF8') from '"at":"[^"]*","run":"([0-9a-f-]{36})"') AS run, pos
          FROM samples) AS found
    WHERE run IS NOT NULL;

-- As before, and notes the runs of each sample: `of_run[i]` belongs to the sample `of_sample[i]`, counted from 1. The
-- function of before stays, for processes of the version before.
CREATE FUNCTION put_samples_of_runs(
    of_route text[], of_fingerprint text[], of_record bytea[], of_sample bigint[], of_run bytea[],
    per_fingerprint bigint, fingerprints bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    put_route text;
    put_pos bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(20255);
    FOR i IN 1 .. cardinality(of_route) LOOP
        DELETE FROM samples WHERE route = of_route[i] AND fingerprint = of_fingerprint[i] AND record = of_record[i];
        INSERT INTO samples (route, fingerprint, record) VALUES (of_route[i], of_fingerprint[i], of_record[i])
            RETURNING pos INTO put_pos;
        INSERT INTO sample_runs (run, pos)
            SELECT of_run[n], put_pos FROM generate_subscripts(of_run, 1) AS n WHERE of_sample[n] = i
            ON CONFLICT DO NOTHING;
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
