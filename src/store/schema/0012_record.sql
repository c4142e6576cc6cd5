-- The record: a chain of entries, which are never changed or removed.
CREATE TABLE record_entries (
    number INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,       -- what the entry was made from
    record BLOB NOT NULL               -- JSON
);
