-- Listings by any mixture of filters read these narrow rows in the order of ids, those of open runs or all, and nothing
-- else until they have found what they show. A run is put in at its birth, and moved when its status changes: appends
-- that only carry it forward do not touch them.
DROP INDEX runs_open;
CREATE INDEX runs_open   ON runs (run_id, status, mode, workflow, route) WHERE ended = 0;
CREATE INDEX runs_listed ON runs (run_id, status, mode, workflow, route);

-- Finds events of a version that this program does not read, without reading all of them: it is empty.
CREATE INDEX events_newer ON events (version, run_id, seq) WHERE version > 2;
