-- All of its rows stand in `appends`.
DROP TABLE events;
