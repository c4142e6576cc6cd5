-- Who called which service. Times are nanoseconds since 1970.
CREATE TABLE service_callers (
    service    TEXT    NOT NULL,
    source     TEXT    NOT NULL,       -- a route, a step, or the egress listener
    client     TEXT    NOT NULL,       -- empty for steps
    path       TEXT    NOT NULL,       -- the method, and the path without ids
    first_call INTEGER NOT NULL,
    last_call  INTEGER NOT NULL,
    PRIMARY KEY (service, source, client, path)
) WITHOUT ROWID;
CREATE INDEX service_callers_last ON service_callers (service, last_call);

-- When calls were noted, by process.
CREATE TABLE watched_times (
    process BLOB    PRIMARY KEY,
    since   INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    ended   INTEGER NOT NULL           -- 1: nothing was noted later
) WITHOUT ROWID;
