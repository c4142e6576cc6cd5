-- Families of which both arms gave out the same id of an instance. Times are nanoseconds since 1970.
CREATE TABLE pin_collisions (
    family   TEXT    PRIMARY KEY,      -- the id under which its instances are pinned
    since    INTEGER NOT NULL,         -- when the first one was found after the last accepted one
    accepted INTEGER                   -- when a person accepted it; NULL: not yet
) WITHOUT ROWID;
