-- The runs of which a sample keeps events: a rehearsal and the runs below it.
CREATE TABLE sample_runs (
    run BLOB NOT NULL,
    pos INTEGER NOT NULL,              -- of the sample
    PRIMARY KEY (run, pos)
) WITHOUT ROWID;
CREATE INDEX sample_runs_by_sample ON sample_runs (pos);
CREATE TRIGGER samples_removed AFTER DELETE ON samples BEGIN
    DELETE FROM sample_runs WHERE pos = OLD.pos;
END;
INSERT INTO sample_runs (run, pos)
    SELECT unhex(json_extract(CAST(record AS TEXT), '$.run'), '-'), pos FROM samples
    WHERE json_valid(CAST(record AS TEXT)) AND json_array_length(CAST(record AS TEXT), '$.events') > 0
      AND unhex(json_extract(CAST(record AS TEXT), '$.run'), '-') IS NOT NULL;
