-- Rows come in the order of time (run ids are UUIDv7), so that both indexes grow at their end: the rate of appends
-- rests on that order more than on any pragma.
CREATE TABLE events (
    pos     INTEGER PRIMARY KEY,
    run_id  BLOB    NOT NULL,
    seq     INTEGER NOT NULL CHECK (seq >= 1),
    at      INTEGER NOT NULL,          -- nanoseconds since 1970
    kind    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    batch   BLOB    NOT NULL,          -- the append that brought it
    event   BLOB    NOT NULL,          -- JSON
    UNIQUE (run_id, seq)
);

-- A projection of events: it can be rebuilt.
CREATE TABLE runs (
    pos      INTEGER PRIMARY KEY,
    run_id   BLOB    NOT NULL UNIQUE,
    first    INTEGER NOT NULL,         -- seq of the first event of the last append
    seq      INTEGER NOT NULL,         -- seq of the last event
    ended    INTEGER NOT NULL,         -- nothing more will happen
    status   TEXT    NOT NULL,
    workflow TEXT    NOT NULL,
    route    TEXT,
    mode     TEXT    NOT NULL,
    summary  BLOB    NOT NULL          -- JSON
);
CREATE INDEX runs_open ON runs (run_id) WHERE ended = 0;

-- Events of a run are contiguous from 1: an append that leaves a gap or comes twice fails whole.
CREATE TRIGGER runs_contiguous BEFORE INSERT ON runs
WHEN NEW.first <> 1 + coalesce((SELECT seq FROM runs WHERE run_id = NEW.run_id), 0)
BEGIN
    SELECT RAISE(ABORT, 'not contiguous');
END;

CREATE TABLE plans (
    id     TEXT PRIMARY KEY,
    source BLOB NOT NULL               -- JSON
) WITHOUT ROWID;

CREATE TABLE pins (
    pos    INTEGER PRIMARY KEY,
    family TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    arm    TEXT    NOT NULL,
    run_id BLOB,
    at     INTEGER NOT NULL,
    UNIQUE (family, id)
);
CREATE INDEX pins_by_arm ON pins (family, arm, pos);

CREATE TABLE retry_keys (
    pos     INTEGER PRIMARY KEY,
    key     BLOB    NOT NULL UNIQUE,   -- hashed: no credential is kept
    arm     TEXT    NOT NULL,
    run_id  BLOB,
    request BLOB,                      -- hash of the request
    at      INTEGER NOT NULL
);
CREATE INDEX retry_keys_by_age ON retry_keys (at);

CREATE TABLE flips (
    number INTEGER PRIMARY KEY,
    route  TEXT,                       -- NULL is the kill switch
    record BLOB NOT NULL               -- JSON
);
CREATE INDEX flips_by_route ON flips (route, number);

CREATE TABLE declared (
    route  TEXT PRIMARY KEY,
    record BLOB NOT NULL               -- JSON
) WITHOUT ROWID;

CREATE TABLE samples (
    pos         INTEGER PRIMARY KEY,
    route       TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    record      BLOB NOT NULL          -- JSON, redacted before it came here
);
CREATE INDEX samples_by_fingerprint ON samples (route, fingerprint, pos);

CREATE TABLE evidence (
    route  TEXT PRIMARY KEY,
    record BLOB NOT NULL               -- JSON
) WITHOUT ROWID;

-- `secret`, `event_version` (the newest version of events that may stand here), `probe`.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
