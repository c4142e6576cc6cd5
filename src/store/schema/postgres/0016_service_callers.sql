-- Who called which service. Times are nanoseconds since 1970.
CREATE TABLE service_callers (
    service    text   NOT NULL,
    source     text   NOT NULL,        -- a route, a step, or the egress listener
    client     text   NOT NULL,        -- empty for steps
    path       text   NOT NULL,        -- the method, and the path without ids
    first_call bigint NOT NULL,
    last_call  bigint NOT NULL,
    PRIMARY KEY (service, source, client, path)
);
CREATE INDEX service_callers_last ON service_callers (service, last_call);

-- When calls were noted, by process.
CREATE TABLE watched_times (
    process bytea  PRIMARY KEY,
    since   bigint NOT NULL,
    until   bigint NOT NULL,
    ended   boolean NOT NULL           -- nothing was noted later
);
