-- A small batch that only carries its runs forward is one statement, and so its own transaction: each statement of a
-- longer one wakes whoever waits for it. A row is an event; the last of an append brings what it makes of its run.
CREATE VIEW carried AS SELECT
    NULL AS run_id, NULL AS seq, NULL AS at, NULL AS kind, NULL AS version, NULL AS batch, NULL AS event,
    NULL AS first, NULL AS fence, NULL AS summary, NULL AS updated, NULL AS owner
WHERE false;

-- A row that is otherwise makes `seq` NULL, one that is not there makes the count differ; either fails whole.
CREATE TRIGGER carried_forward INSTEAD OF INSERT ON carried WHEN NEW.first IS NOT NULL
BEGIN
    UPDATE runs SET first = NEW.first,
        seq = CASE WHEN NEW.first = seq + 1 AND fence = NEW.fence AND ended = 0 AND turn IS NULL AND status = 'running'
              THEN NEW.seq END,
        summary = NEW.summary, updated = NEW.updated, owner = NEW.owner
    WHERE run_id = NEW.run_id;
    SELECT RAISE(ABORT, 'a run is not there') WHERE changes() <> 1;
END;
CREATE TRIGGER carried_events INSTEAD OF INSERT ON carried
BEGIN
    INSERT INTO events (run_id, seq, at, kind, version, batch, event)
    VALUES (NEW.run_id, NEW.seq, NEW.at, NEW.kind, NEW.version, NEW.batch, NEW.event);
END;
