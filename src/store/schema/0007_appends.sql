-- One row per append, its events in one value: a line for each, its time in nanoseconds since 1970, a space, its JSON.
-- Rows come in the order of time (run ids are UUIDv7), so that both indexes grow at their end: the rate of appends
-- rests on that order more than on any pragma. The rows of `events` are moved here in batches, and then that table goes.
CREATE TABLE appends (
    pos     INTEGER PRIMARY KEY,
    run_id  BLOB    NOT NULL,
    first   INTEGER NOT NULL CHECK (first >= 1),    -- seq of its first event
    last    INTEGER NOT NULL CHECK (last >= first), -- seq of its last event
    at      INTEGER NOT NULL,          -- the latest time of its events
    version INTEGER NOT NULL,
    batch   BLOB    NOT NULL,          -- names the append, so that one which comes twice is recognised
    parts   INTEGER NOT NULL,          -- so many payloads belong to its events
    events  BLOB    NOT NULL,
    UNIQUE (run_id, first)
);

-- Finds events of a version that this program does not read, without reading all of them: it is empty.
CREATE INDEX appends_newer ON appends (version, run_id, first) WHERE version > 2;

-- A small batch that only carries its runs forward is one statement, and so its own transaction. A row is an append.
DROP VIEW carried;
CREATE VIEW carried AS SELECT
    NULL AS run_id, NULL AS first, NULL AS last, NULL AS at, NULL AS version, NULL AS batch, NULL AS parts,
    NULL AS events, NULL AS fence, NULL AS updated, NULL AS owner
WHERE false;

-- A row that is otherwise makes `seq` NULL, one that is not there makes the count differ; either fails whole. The summary
-- stays as it is.
CREATE TRIGGER carried_forward INSTEAD OF INSERT ON carried
BEGIN
    UPDATE runs SET first = NEW.first,
        seq = CASE WHEN NEW.first = seq + 1 AND fence = NEW.fence AND ended = 0 AND turn IS NULL AND status = 'running'
              THEN NEW.last END,
        updated = NEW.updated, owner = NEW.owner
    WHERE run_id = NEW.run_id;
    SELECT RAISE(ABORT, 'a run is not there') WHERE changes() <> 1;
    INSERT INTO appends (run_id, first, last, at, version, batch, parts, events)
    VALUES (NEW.run_id, NEW.first, NEW.last, NEW.at, NEW.version, NEW.batch, NEW.parts, NEW.events);
END;
