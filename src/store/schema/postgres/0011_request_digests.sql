-- From this version on, the digest of a request takes its path in the loosest spelling (`RequestDigests`), and the keys of
-- callers with several headers are derived in another way. An older program would not find either, and would take
-- retries for first tries: one that is still there is told so at its next append, and changes nothing.
DO $$
DECLARE
    newest oid := (SELECT oid FROM pg_proc WHERE proname = 'append_batch' AND pronargs = 53
                   AND pronamespace = current_schema()::regnamespace);
    arguments text := pg_get_function_identity_arguments(newest);
BEGIN
    EXECUTE format('ALTER FUNCTION append_batch(%s) RENAME TO append_runs', arguments);
    EXECUTE format('CREATE FUNCTION append_batch(%s) RETURNS text[] LANGUAGE sql AS %L', arguments,
                   'SELECT array[refuse_older()::text]');
END $$;

-- Refuses a batch of appends if legacy took one of these keys within the window: its runs do not claim them, but legacy
-- may have taken a try of the same request under them.
CREATE FUNCTION refuse_legacy_keys(keys bytea[], window_ns bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM retry_keys WHERE key = ANY (keys) AND run_id IS NULL AND at > now_ns() - window_ns) THEN
        RAISE EXCEPTION 'legacy has the request' USING ERRCODE = 'PM001';
    END IF;
    RETURN true;
END $$;
