-- An outbox of runs that are to begin. A row is written by the append that decides it, and removed by the append that
-- holds the first event of the run.
CREATE TABLE births (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id BLOB    NOT NULL UNIQUE,
    parent BLOB,                       -- the run that decided it
    at     INTEGER NOT NULL,
    record BLOB    NOT NULL            -- JSON
);
CREATE INDEX births_by_parent ON births (parent) WHERE parent IS NOT NULL;

-- A run that has events is not begun again.
CREATE TRIGGER births_of_new_runs BEFORE INSERT ON births
WHEN EXISTS (SELECT 1 FROM runs WHERE run_id = NEW.run_id)
BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER a_run_begins AFTER INSERT ON runs
BEGIN
    DELETE FROM births WHERE run_id = NEW.run_id;
END;
