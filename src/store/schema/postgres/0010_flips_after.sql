-- As `put_flips`, but records nothing and returns NULL if the newest flip has another number than `of_after`: a call that
-- reaches the server after newer flips were recorded does not come after them. A call that was performed before returns
-- the same numbers again, whatever came after it, and leaves the declarations as they are.
-- `put_flips` stays for a process of the version before that still runs on this database.
CREATE FUNCTION put_flips_after(
    of_put bytea[], of_route text[], of_record bytea[], declared_route text[], declared_record bytea[], of_after bigint
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    given bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(20252);
    SELECT array_agg(number ORDER BY number) INTO given FROM flips WHERE put = ANY (of_put);
    IF given IS NOT NULL THEN
        RETURN given;
    END IF;
    IF (SELECT coalesce(max(number), 0) FROM flips) <> of_after THEN
        RETURN NULL;
    END IF;
    RETURN put_flips(of_put, of_route, of_record, declared_route, declared_record);
END $$;
