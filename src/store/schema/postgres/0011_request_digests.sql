-- From this version on, the digest of a request takes its path in the loosest spelling (`RequestDigests`). An older
-- program would not find such digests, and would take retries for first tries: it refuses tables of a version that it
-- does not know.

-- Refuses a batch of appends if legacy took one of these keys within the window: its runs do not claim them, but legacy
-- may have taken a try of the same request under them.
CREATE FUNCTION refuse_legacy_keys(keys bytea[], window_ns bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM retry_keys WHERE key = ANY (keys) AND run_id IS NULL AND at > now_ns() - window_ns) THEN
        RAISE EXCEPTION 'legacy has the request' USING ERRCODE = 'PM001';
    END IF;
    RETURN true;
END $$;
