-- All of its rows stand in `appends`.
DROP TABLE events;
DROP FUNCTION move_events;

-- What a process of a version before reads.
CREATE VIEW events AS
    SELECT NULL::bytea AS run_id, NULL::bigint AS seq, NULL::bigint AS at, NULL::text AS kind, NULL::smallint AS version,
           NULL::bytea AS batch, NULL::bytea AS event, NULL::smallint AS parts
    FROM refuse_older() AS refused WHERE refused;
