-- What a process says about itself, as JSON in UTF-8; NULL: it is of an earlier version. An earlier version renews its
-- lease without naming the column, so both versions may run at the same time.
ALTER TABLE workers ADD COLUMN record bytea;
