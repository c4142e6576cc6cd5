-- A run as it stood after an event, so that whoever takes it need not read all of its events. In portions, so that no
-- append waits for a long one: of one run there may be one that is whole, and another that is being written. Nothing is
-- lost with a row here.
CREATE TABLE run_snapshots (
    pos    INTEGER PRIMARY KEY,
    run_id BLOB    NOT NULL,
    put    BLOB    NOT NULL,           -- names the writing that the portion belongs to
    part   INTEGER NOT NULL,           -- from 0
    parts  INTEGER NOT NULL,           -- so many belong together
    seq    INTEGER NOT NULL,           -- of the last event that is in it
    at     INTEGER NOT NULL,           -- when that happened
    fold   TEXT    NOT NULL,           -- names the rules by which events were folded: others do not read it
    hash   BLOB    NOT NULL,           -- of all portions together
    body   BLOB    NOT NULL,
    UNIQUE (run_id, put, part)
);
