-- The record: a chain of entries, which are never changed or removed.
CREATE TABLE record_entries (
    number bigint PRIMARY KEY,
    source text   NOT NULL UNIQUE,     -- what the entry was made from
    record bytea  NOT NULL             -- JSON
);
