-- Instances that move, or have moved, from legacy to the engine: the newest claim of each.
CREATE TABLE adoptions (
    family   TEXT    NOT NULL,         -- the oldest id of the route that creates them
    id       TEXT    NOT NULL,         -- a UUID in its lower-case spelling
    spelled  TEXT    NOT NULL,         -- the id as legacy spells it
    run_id   BLOB    NOT NULL,
    workflow TEXT    NOT NULL,
    state    TEXT    NOT NULL,         -- moving, unknown, adopted, given_back
    reason   TEXT,
    by       TEXT    NOT NULL,
    claimed  INTEGER NOT NULL,         -- in nanoseconds since 1970
    at       INTEGER NOT NULL,
    PRIMARY KEY (family, id)
) WITHOUT ROWID;
CREATE INDEX adoptions_open ON adoptions (family, id) WHERE state IN ('moving', 'unknown');

-- Of an instance that legacy made: moving and unknown (neither arm answers for it), or adopted.
ALTER TABLE pins ADD COLUMN adoption TEXT;
CREATE INDEX pins_adopted ON pins (run_id) WHERE adoption IS NOT NULL;
