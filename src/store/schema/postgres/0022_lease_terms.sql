-- A process whose lease was over when it renews it is in another term: what it decided before must not begin a run any
-- more, because the others no longer count it. An earlier version renews its lease without naming the column, so
-- both versions may run at the same time.
ALTER TABLE workers ADD COLUMN term bigint NOT NULL DEFAULT 0;

-- Whether the process's lease is in this term and not over. Until the transaction ends, the row stays locked against
-- those who wait for the term to end.
CREATE FUNCTION is_in_term(of bytea, its_term bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM workers WHERE worker = of AND term = its_term AND alive_until > clock_timestamp() FOR KEY SHARE;
    RETURN FOUND;
END $$;

-- Refuses a batch of appends that a process writes outside of this term; `of` is NULL where that does not matter.
CREATE FUNCTION refuse_ended_term(of bytea, its_term bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF of IS NOT NULL AND NOT is_in_term(of, its_term) THEN
        RAISE EXCEPTION 'the lease is over' USING ERRCODE = 'PM001';
    END IF;
    RETURN true;
END $$;

-- What `leave_all` does with the runs of a process, which keeps its lease.
CREATE FUNCTION release_runs(origin text, who bytea) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    news text[];
BEGIN
    WITH left_behind AS (UPDATE runs SET owner = NULL, turn = 0 WHERE owner = who AND NOT ended RETURNING run_id)
        SELECT array(SELECT 'run:' || encode(run_id, 'hex') FROM left_behind) INTO news;
    IF cardinality(news) > 0 THEN
        PERFORM tell(origin, news);
    END IF;
    RETURN news;
END $$;

-- The same for one run.
CREATE FUNCTION release_run(origin text, who bytea, run bytea, its_fence bigint) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    news text[];
BEGIN
    WITH left_behind AS (UPDATE runs SET owner = NULL, turn = 0
                         WHERE run_id = run AND owner = who AND fence = its_fence AND NOT ended RETURNING run_id)
        SELECT array(SELECT 'run:' || encode(run_id, 'hex') FROM left_behind) INTO news;
    IF cardinality(news) > 0 THEN
        PERFORM tell(origin, news);
    END IF;
    RETURN news;
END $$;
