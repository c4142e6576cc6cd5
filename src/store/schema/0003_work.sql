-- Who moves a run. A run that is open here was left by a process that knew of no owners: its turn has come.
ALTER TABLE runs ADD COLUMN fence   INTEGER NOT NULL DEFAULT 1; -- whoever takes it has the next; an append under another is refused
ALTER TABLE runs ADD COLUMN owner   BLOB;                       -- NULL is nobody
ALTER TABLE runs ADD COLUMN turn    INTEGER;                    -- of one that is nobody's: when it wants to be taken
ALTER TABLE runs ADD COLUMN job     BLOB;                       -- NULL is its own
ALTER TABLE runs ADD COLUMN parent  BLOB;
ALTER TABLE runs ADD COLUMN updated INTEGER NOT NULL DEFAULT 0; -- when its last event happened
ALTER TABLE runs ADD COLUMN pinned  INTEGER NOT NULL DEFAULT 0; -- it created something that is followed up
ALTER TABLE runs ADD COLUMN remains BLOB;                       -- JSON: what is kept of it, where its events are gone
UPDATE runs SET turn = CASE WHEN ended = 0 THEN 0 END,
    pinned = run_id IN (SELECT run_id FROM pins),
    updated = coalesce((SELECT at FROM events WHERE events.run_id = runs.run_id AND events.seq = runs.seq), 0);

-- Each holds only rows that are few at any time, or is touched once in a run's life: appends do not pay for them.
CREATE INDEX runs_waiting   ON runs (turn, run_id) WHERE turn IS NOT NULL;
CREATE INDEX runs_old       ON runs (status, updated, run_id) WHERE ended = 1 AND remains IS NULL;
CREATE INDEX runs_seldom    ON runs (status, run_id) WHERE status NOT IN ('running', 'completed');
CREATE INDEX runs_by_job    ON runs (job, run_id) WHERE job IS NOT NULL;
CREATE INDEX runs_by_parent ON runs (parent, run_id) WHERE parent IS NOT NULL;

-- Events of a run are contiguous from 1 and come from its owner: an append that leaves a gap, comes twice or comes
-- under another number fails whole.
DROP TRIGGER runs_contiguous;
CREATE TRIGGER runs_in_order BEFORE INSERT ON runs
WHEN coalesce((SELECT NEW.first <> seq + 1 OR NEW.fence <> fence FROM runs WHERE run_id = NEW.run_id), NEW.first <> 1)
BEGIN
    SELECT RAISE(ABORT, 'not contiguous, or of another owner');
END;

CREATE TABLE orders (
    pos    INTEGER PRIMARY KEY,
    id     BLOB NOT NULL UNIQUE,
    run_id BLOB NOT NULL,
    record BLOB NOT NULL,              -- JSON
    answer BLOB                        -- JSON
);
CREATE INDEX orders_open ON orders (run_id, pos) WHERE answer IS NULL;
CREATE INDEX orders_by_run ON orders (run_id);

-- Queues of locks: the lowest place of a name holds it. A place is given once.
CREATE TABLE locks (
    place  INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id BLOB    NOT NULL,
    name   TEXT    NOT NULL,
    step   TEXT    NOT NULL,
    item   INTEGER NOT NULL,           -- -1 is none
    since  INTEGER NOT NULL,
    UNIQUE (run_id, name, step, item)
);
CREATE INDEX locks_by_name ON locks (name, place);

CREATE TABLE notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    record BLOB NOT NULL               -- JSON
);

-- What a run's end takes with it.
DROP TRIGGER run_keys_go_with_a_new_run;
DROP TRIGGER run_keys_go_with_their_run;
CREATE TRIGGER a_new_run_ends AFTER INSERT ON runs WHEN NEW.ended = 1
BEGIN
    DELETE FROM run_keys WHERE run_id = NEW.run_id;
    DELETE FROM locks WHERE run_id = NEW.run_id;
END;
CREATE TRIGGER a_run_ends AFTER UPDATE OF ended ON runs WHEN NEW.ended = 1
BEGIN
    DELETE FROM run_keys WHERE run_id = NEW.run_id;
    DELETE FROM locks WHERE run_id = NEW.run_id;
    UPDATE orders SET answer = CAST('{"refused":"the run has ended"}' AS BLOB)
        WHERE run_id = NEW.run_id AND answer IS NULL;
END;

-- Large parts of events, once, by the hash of their bytes; and where they belong.
CREATE TABLE payloads (
    pos  INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL                 -- JSON
);
CREATE TABLE payload_refs (
    run_id BLOB    NOT NULL,
    seq    INTEGER NOT NULL,
    path   TEXT    NOT NULL,           -- JSON pointer into the event
    hash   BLOB    NOT NULL,
    PRIMARY KEY (run_id, seq, path)
) WITHOUT ROWID;
CREATE INDEX payload_refs_by_hash ON payload_refs (hash);

-- Runs that are purged and whose rows are not all gone yet: nobody sees what is left of them.
CREATE TABLE purging (
    run_id BLOB PRIMARY KEY
) WITHOUT ROWID;
