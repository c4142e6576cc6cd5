-- What opens the sealed credentials of a run; itself sealed with the store key. It goes in the commit that ends the
-- run, and what is left in the run's events opens no more.
CREATE TABLE run_keys (
    run_id BLOB PRIMARY KEY,
    key    BLOB NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER run_keys_go_with_a_new_run AFTER INSERT ON runs WHEN NEW.ended = 1
BEGIN
    DELETE FROM run_keys WHERE run_id = NEW.run_id;
END;

CREATE TRIGGER run_keys_go_with_their_run AFTER UPDATE ON runs WHEN NEW.ended = 1
BEGIN
    DELETE FROM run_keys WHERE run_id = NEW.run_id;
END;
