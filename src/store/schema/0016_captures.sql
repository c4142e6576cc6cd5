-- Captured pairs. The index has all that the bounds are computed from, so that no body is read for them.
CREATE TABLE captures (
    pos    INTEGER PRIMARY KEY AUTOINCREMENT,
    id     BLOB NOT NULL UNIQUE,
    route  TEXT NOT NULL,
    at     INTEGER NOT NULL,           -- nanoseconds
    bytes  INTEGER NOT NULL,           -- of the record
    record BLOB NOT NULL               -- JSON, redacted before it came here
);
CREATE INDEX captures_by_route ON captures (route, pos, bytes);
CREATE INDEX captures_by_age ON captures (at);
