-- Instances of legacy, as far as requests showed them. The row with an empty id says that there are others, whose ids
-- are not known. A row stays when the instance has ended: a later read of it is then no new instance.
CREATE TABLE legacy_instances (
    family     TEXT    NOT NULL,       -- the oldest id of the route that creates them
    id         TEXT    NOT NULL,
    seen       INTEGER NOT NULL,       -- first, in nanoseconds since 1970
    ended      INTEGER,
    incomplete INTEGER NOT NULL,       -- its twin lacks something that legacy did
    PRIMARY KEY (family, id)
) WITHOUT ROWID;
CREATE INDEX legacy_instances_alive ON legacy_instances (family, seen, incomplete) WHERE ended IS NULL;
CREATE INDEX legacy_instances_ended ON legacy_instances (family, ended) WHERE ended IS NOT NULL;

-- When the instance ended. The pin stays: requests about the instance go on to its arm.
ALTER TABLE pins ADD COLUMN ended INTEGER;
CREATE INDEX pins_alive ON pins (family, run_id, at) WHERE arm = 'engine' AND ended IS NULL;
CREATE INDEX pins_ended ON pins (family, ended) WHERE arm = 'engine' AND ended IS NOT NULL;

-- Legacy's instances that have, or had, a twin; a UUID in its lower-case spelling only.
INSERT INTO legacy_instances (family, id, seen, ended, incomplete)
    SELECT family, id, at, NULL, run_id IS NULL FROM pins WHERE arm = 'legacy' AND id <> ''
    AND NOT EXISTS (SELECT 1 FROM pins other WHERE other.family = pins.family AND other.id = lower(pins.id) AND other.id <> pins.id);
