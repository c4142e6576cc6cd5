-- All of it stands in a schema of its own, which the connection names. Times are nanoseconds since 1970; records are
-- JSON in UTF-8 (`convert_from(record, 'UTF8')` shows them).

-- The clock that decides between processes is this server's.
CREATE FUNCTION now_ns() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint * 1000 $$;

CREATE TABLE events (
    run_id  bytea    NOT NULL,
    seq     bigint   NOT NULL CHECK (seq >= 1),
    at      bigint   NOT NULL,
    kind    text     NOT NULL,
    version smallint NOT NULL,
    batch   bytea    NOT NULL,         -- the append that brought it
    event   bytea    NOT NULL,
    parts   smallint NOT NULL,         -- so many payloads belong to it
    PRIMARY KEY (run_id, seq)
);

-- Large parts of events, once, by the hash of their bytes; and where they belong. Whoever refers to one holds lock 20253
-- shared, whoever sweeps what nobody refers to holds it alone: none is swept that is just referred to.
CREATE TABLE payloads (
    hash bytea PRIMARY KEY,
    body bytea NOT NULL
);
CREATE TABLE payload_refs (
    run_id bytea  NOT NULL,
    seq    bigint NOT NULL,
    path   text   NOT NULL,            -- JSON pointer into the event
    hash   bytea  NOT NULL,
    PRIMARY KEY (run_id, seq, path)
);
CREATE INDEX payload_refs_by_hash ON payload_refs (hash);

-- What a run has come to (it can be rebuilt from its events), and who moves it. A row changes with every append, so it
-- has room to change in place.
CREATE TABLE runs (
    run_id   bytea   PRIMARY KEY,
    seq      bigint  NOT NULL,         -- of the last event
    ended    boolean NOT NULL,         -- nothing more will happen
    updated  bigint  NOT NULL,         -- at its birth, and when it ended: no index changes with what is between
    status   text    NOT NULL,
    workflow text    NOT NULL,
    route    text,
    mode     text    NOT NULL,
    job      bytea,                    -- NULL is its own
    parent   bytea,
    summary  bytea   NOT NULL,
    fence    bigint  NOT NULL,         -- whoever takes it has the next; an append under another is refused
    owner    bytea,                    -- NULL is nobody
    turn     bigint,                   -- of one that is nobody's: when it wants to be taken
    taken    bytea,                    -- names the asking that took it, so that one whose reply was lost finds it again
    pinned   boolean NOT NULL,         -- it created something that is followed up
    purged   boolean NOT NULL DEFAULT false,  -- its events are gone; it is kept because it is pinned
    remains  bytea
) WITH (fillfactor = 70);
CREATE INDEX runs_open ON runs (run_id) WHERE NOT ended;
CREATE INDEX runs_owned ON runs (owner) WHERE NOT ended AND owner IS NOT NULL;
CREATE INDEX runs_waiting ON runs (turn, run_id) WHERE NOT ended AND owner IS NULL AND turn IS NOT NULL;
CREATE INDEX runs_old ON runs (status, updated) WHERE ended AND NOT purged;
CREATE INDEX runs_by_job ON runs (job) WHERE job IS NOT NULL;
CREATE INDEX runs_by_parent ON runs (parent) WHERE parent IS NOT NULL;

CREATE TABLE workers (
    worker      bytea       PRIMARY KEY,
    name        text        NOT NULL,
    alive_until timestamptz NOT NULL
);

CREATE TABLE plans (
    id     text  PRIMARY KEY,
    source bytea NOT NULL
);

-- What opens the sealed credentials of a run; itself sealed with the store key. It goes in the commit that ends the
-- run, and what is left in the run's events opens no more.
CREATE TABLE run_keys (
    run_id bytea PRIMARY KEY,
    key    bytea NOT NULL
);

-- Ids of instances and names of locks are whatever people's services say, of any length: they are bytes, and indexed by
-- their hash.
CREATE TABLE pins (
    pos    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    family text   NOT NULL,
    id     bytea  NOT NULL,
    arm    text   NOT NULL,
    run_id bytea,
    at     bigint NOT NULL
);
CREATE UNIQUE INDEX pins_by_id ON pins (family, sha256(id));
CREATE INDEX pins_by_arm ON pins (family, arm, pos);

CREATE TABLE retry_keys (
    key     bytea  PRIMARY KEY,        -- hashed: no credential is kept
    arm     text   NOT NULL,
    run_id  bytea,
    request bytea,                     -- hash of the request
    at      bigint NOT NULL
);
CREATE INDEX retry_keys_by_age ON retry_keys (at);

CREATE TABLE orders (
    number bigint GENERATED ALWAYS AS IDENTITY,
    id     bytea  PRIMARY KEY,
    run_id bytea  NOT NULL,
    record bytea  NOT NULL,
    answer bytea
);
CREATE INDEX orders_open ON orders (run_id, number) WHERE answer IS NULL;
CREATE INDEX orders_by_run ON orders (run_id);

-- Queues of locks: the lowest place of a name holds it.
CREATE TABLE locks (
    place  bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name   bytea   NOT NULL,
    run_id bytea   NOT NULL,
    step   text    NOT NULL,
    item   bigint  NOT NULL,           -- -1 is none
    since  bigint  NOT NULL
);
CREATE UNIQUE INDEX locks_by_step ON locks (run_id, sha256(name), step, item);
CREATE INDEX locks_by_name ON locks (sha256(name), place);

CREATE TABLE notices (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record bytea  NOT NULL
);

CREATE TABLE flips (
    number bigint PRIMARY KEY,
    put    bytea  NOT NULL UNIQUE,     -- names the writing, so that one whose reply was lost is not repeated
    route  text,                       -- NULL is the kill switch
    record bytea  NOT NULL
);
CREATE INDEX flips_by_route ON flips (route, number);

CREATE TABLE declared (
    route  text  PRIMARY KEY,
    record bytea NOT NULL
);

CREATE TABLE samples (
    pos         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    route       text   NOT NULL,
    fingerprint text   NOT NULL,
    record      bytea  NOT NULL        -- redacted before it came here
);
CREATE INDEX samples_by_fingerprint ON samples (route, fingerprint, pos);

CREATE TABLE evidence (
    route  text  PRIMARY KEY,
    record bytea NOT NULL
);

-- `secret`, `event_version` (the newest version of events that may stand here), `probe`.
CREATE TABLE meta (
    key   text  PRIMARY KEY,
    value bytea NOT NULL
);

-- Tells the processes that listen, in messages that are short enough. Whoever wrote it is told by its own process.
CREATE FUNCTION tell(origin text, news text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    item text;
    part text[] := '{}';
    size integer := 0;
BEGIN
    FOREACH item IN ARRAY news LOOP
        CONTINUE WHEN octet_length(item) > 6000;
        IF size + octet_length(item) > 6000 THEN
            PERFORM pg_notify('pointsman', json_build_object('from', origin, 'news', part)::text);
            part := '{}';
            size := 0;
        END IF;
        part := part || item;
        size := size + octet_length(item) + 4;
    END LOOP;
    IF cardinality(part) > 0 THEN
        PERFORM pg_notify('pointsman', json_build_object('from', origin, 'news', part)::text);
    END IF;
END $$;

-- Writes a batch of appends, all or nothing, in one round trip; gives the news of it. `PM001` is a rule that somebody
-- of the batch breaks: whoever called looks which one and leaves it out. Rows of one kind come sorted by their keys, so
-- that two processes do not wait for each other in a circle.
CREATE FUNCTION append_batch(
    origin text, window_ns bigint,
    pin_family text[], pin_id bytea[], pin_arm text[], pin_run bytea[], pin_at bigint[],
    key_key bytea[], key_run bytea[], key_request bytea[],
    run_run bytea[], run_fence bigint[], run_first bigint[], run_seq bigint[], run_ended boolean[],
    run_updated bigint[], run_status text[], run_workflow text[], run_route text[], run_mode text[], run_job bytea[],
    run_parent bytea[], run_summary bytea[], run_owner bytea[], run_turn bigint[], run_pinned boolean[],
    event_run bytea[], event_seq bigint[], event_at bigint[], event_kind text[], event_batch bytea[],
    event_event bytea[], event_parts smallint[], event_version smallint,
    payload_hash bytea[], payload_body bytea[], ref_run bytea[], ref_seq bigint[], ref_path text[], ref_hash bytea[],
    lock_queue boolean[], lock_name bytea[], lock_run bytea[], lock_step text[], lock_item bigint[], lock_since bigint[],
    notice_record bytea[],
    settled_id bytea[], settled_answer bytea[], ended_answer bytea
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    now bigint := now_ns();
    done bigint;
    births bigint;
    ended bytea[] := '{}';
    news text[] := '{}';
BEGIN
    IF cardinality(lock_name) > 0 THEN
        -- Places of one name are committed in the order in which they are given out: else two could come first.
        PERFORM pg_advisory_xact_lock(hash)
            FROM (SELECT DISTINCT hashtextextended(encode(name, 'hex'), 20251) AS hash
                  FROM unnest(lock_name, lock_queue) AS n(name, queue) WHERE queue ORDER BY 1) AS names;
    END IF;
    IF cardinality(pin_id) > 0 THEN
        INSERT INTO pins (family, id, arm, run_id, at)
            SELECT * FROM unnest(pin_family, pin_id, pin_arm, pin_run, pin_at)
            ON CONFLICT (family, sha256(id)) DO NOTHING;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done <> cardinality(pin_id) THEN
            RAISE EXCEPTION 'an instance has an owner' USING ERRCODE = 'PM001';
        END IF;
    END IF;
    IF cardinality(key_key) > 0 THEN
        -- A key that legacy noted, or that has run out, is taken; a run that takes its key again keeps the first time.
        INSERT INTO retry_keys AS held (key, arm, run_id, request, at)
            SELECT k.key, 'engine', k.run, k.request, now FROM unnest(key_key, key_run, key_request) AS k(key, run, request)
            ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id,
                request = CASE WHEN held.run_id = excluded.run_id AND held.at > now - window_ns
                               THEN held.request ELSE excluded.request END,
                at = CASE WHEN held.run_id = excluded.run_id AND held.at > now - window_ns
                          THEN held.at ELSE excluded.at END
                WHERE held.run_id IS NULL OR held.run_id = excluded.run_id OR held.at <= now - window_ns;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done <> cardinality(key_key) THEN
            RAISE EXCEPTION 'a retry key has a run' USING ERRCODE = 'PM001';
        END IF;
    END IF;

    INSERT INTO runs (run_id, fence, seq, ended, updated, status, workflow, route, mode, job, parent, summary, owner,
                      turn, pinned)
        SELECT n.run, n.fence, n.seq, n.ended, n.updated, n.status, n.workflow, n.route, n.mode, n.job, n.parent,
               n.summary, n.owner, n.turn, n.pinned
        FROM unnest(run_run, run_fence, run_first, run_seq, run_ended, run_updated, run_status, run_workflow, run_route,
                    run_mode, run_job, run_parent, run_summary, run_owner, run_turn, run_pinned)
             AS n(run, fence, first, seq, ended, updated, status, workflow, route, mode, job, parent, summary, owner,
                  turn, pinned)
        WHERE n.first = 1
        ON CONFLICT (run_id) DO NOTHING;
    GET DIAGNOSTICS births = ROW_COUNT;
    IF births <> cardinality(run_run) THEN
        UPDATE runs SET seq = n.seq, ended = n.ended,
                        updated = CASE WHEN n.ended THEN n.updated ELSE runs.updated END,
                        status = n.status, workflow = n.workflow, route = n.route, mode = n.mode, job = n.job, parent = n.parent, summary = n.summary,
                        owner = n.owner, turn = n.turn, pinned = runs.pinned OR n.pinned
            FROM unnest(run_run, run_fence, run_first, run_seq, run_ended, run_updated, run_status, run_workflow,
                        run_route, run_mode, run_job, run_parent, run_summary, run_owner, run_turn, run_pinned)
                 AS n(run, fence, first, seq, ended, updated, status, workflow, route, mode, job, parent, summary, owner,
                      turn, pinned)
            WHERE n.first > 1 AND runs.run_id = n.run AND runs.seq = n.first - 1 AND runs.fence = n.fence;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF births + done <> cardinality(run_run) THEN
            RAISE EXCEPTION 'not contiguous, or another owner' USING ERRCODE = 'PM001';
        END IF;
    END IF;
    INSERT INTO events (run_id, seq, at, kind, version, batch, event, parts)
        SELECT e.run, e.seq, e.at, e.kind, event_version, e.batch, e.event, e.parts
        FROM unnest(event_run, event_seq, event_at, event_kind, event_batch, event_event, event_parts)
             AS e(run, seq, at, kind, batch, event, parts);
    IF cardinality(ref_hash) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(20253);
        INSERT INTO payloads (hash, body) SELECT * FROM unnest(payload_hash, payload_body) ON CONFLICT DO NOTHING;
        INSERT INTO payload_refs (run_id, seq, path, hash) SELECT * FROM unnest(ref_run, ref_seq, ref_path, ref_hash);
    END IF;

    FOR i IN 1 .. cardinality(lock_name) LOOP
        IF lock_queue[i] THEN
            INSERT INTO locks (name, run_id, step, item, since)
                VALUES (lock_name[i], lock_run[i], lock_step[i], lock_item[i], lock_since[i])
                ON CONFLICT (run_id, sha256(name), step, item) DO NOTHING;
        ELSE
            DELETE FROM locks WHERE run_id = lock_run[i] AND sha256(name) = sha256(lock_name[i])
                AND step = lock_step[i] AND item = lock_item[i];
            news := news || ('lock:' || encode(lock_name[i], 'hex'));
        END IF;
    END LOOP;
    IF cardinality(notice_record) > 0 THEN
        INSERT INTO notices (record) SELECT * FROM unnest(notice_record);
        news := news || 'notice'::text;
    END IF;
    FOR i IN 1 .. cardinality(settled_id) LOOP
        UPDATE orders SET answer = settled_answer[i] WHERE id = settled_id[i] AND answer IS NULL;
        IF FOUND THEN
            news := news || ('order:' || encode(settled_id[i], 'hex'));
        END IF;
    END LOOP;
    FOR i IN 1 .. cardinality(run_run) LOOP
        IF run_ended[i] THEN
            ended := ended || run_run[i];
        ELSIF run_turn[i] <= now THEN
            news := news || ('run:' || encode(run_run[i], 'hex'));
        END IF;
    END LOOP;
    IF cardinality(ended) > 0 THEN
        DELETE FROM run_keys WHERE run_id = ANY (ended);
        WITH gone AS (DELETE FROM locks WHERE run_id = ANY (ended) RETURNING name),
             refused AS (UPDATE orders SET answer = ended_answer
                         WHERE run_id = ANY (ended) AND answer IS NULL RETURNING id)
            SELECT news || array(SELECT 'lock:' || encode(name, 'hex') FROM gone)
                        || array(SELECT 'order:' || encode(id, 'hex') FROM refused)
                        || array(SELECT 'ended:' || encode(run, 'hex') FROM unnest(ended) AS run) INTO news;
    END IF;
    IF cardinality(news) > 0 THEN
        PERFORM tell(origin, news);
    END IF;
    RETURN news;
END $$;

-- What is asked of a run. Its row is held meanwhile: it cannot end between the look and the asking.
CREATE FUNCTION put_order(origin text, of bytea, of_run bytea, of_record bytea, no_run bytea, has_ended bytea)
RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    over boolean;
    refused bytea;
    news text[];
BEGIN
    SELECT ended INTO over FROM runs WHERE run_id = of_run FOR SHARE;
    refused := CASE WHEN over IS NULL THEN no_run WHEN over THEN has_ended END;
    INSERT INTO orders (id, run_id, record, answer) VALUES (of, of_run, of_record, refused) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    news := CASE WHEN refused IS NULL THEN array['run:' || encode(of_run, 'hex')]
                 ELSE array['order:' || encode(of, 'hex')] END;
    PERFORM tell(origin, news);
    RETURN news;
END $$;

CREATE FUNCTION settle_order(origin text, of bytea, with_answer bytea) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    news text[] := array['order:' || encode(of, 'hex')];
BEGIN
    UPDATE orders SET answer = with_answer WHERE id = of AND answer IS NULL;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    PERFORM tell(origin, news);
    RETURN news;
END $$;

CREATE FUNCTION leave_all(origin text, who bytea) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    news text[];
BEGIN
    DELETE FROM workers WHERE worker = who;
    WITH left_behind AS (UPDATE runs SET owner = NULL, turn = 0 WHERE owner = who AND NOT ended RETURNING run_id)
        SELECT array(SELECT 'run:' || encode(run_id, 'hex') FROM left_behind) INTO news;
    IF cardinality(news) > 0 THEN
        PERFORM tell(origin, news);
    END IF;
    RETURN news;
END $$;

-- Numbers count up without a gap: flips are few, and wait for each other.
CREATE FUNCTION put_flip(of_put bytea, of_route text, of_record bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(20252);
    SELECT number INTO given FROM flips WHERE put = of_put;
    IF given IS NULL THEN
        INSERT INTO flips (number, put, route, record)
            SELECT coalesce(max(number), 0) + 1, of_put, of_route, of_record FROM flips RETURNING number INTO given;
    END IF;
    RETURN given;
END $$;

CREATE FUNCTION put_samples(
    of_route text[], of_fingerprint text[], of_record bytea[], per_fingerprint bigint, fingerprints bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. cardinality(of_route) LOOP
        INSERT INTO samples (route, fingerprint, record) VALUES (of_route[i], of_fingerprint[i], of_record[i]);
        DELETE FROM samples WHERE route = of_route[i] AND fingerprint = of_fingerprint[i] AND pos NOT IN
            (SELECT pos FROM samples WHERE route = of_route[i] AND fingerprint = of_fingerprint[i]
             ORDER BY pos DESC LIMIT per_fingerprint);
        DELETE FROM samples WHERE route = of_route[i] AND fingerprint NOT IN
            (SELECT fingerprint FROM samples WHERE route = of_route[i]
             GROUP BY fingerprint ORDER BY max(pos) DESC LIMIT fingerprints);
    END LOOP;
END $$;

-- Drops runs that have ended, whole but for the rows of those that are pinned; says how many, and how many payloads.
CREATE FUNCTION purge(gone bytea[], kept bytea[], kept_remains bytea[], OUT runs_gone bigint, OUT payloads_gone bigint)
LANGUAGE plpgsql AS $$
DECLARE
    hashes bytea[];
BEGIN
    -- Another process may have been faster with some of them.
    SELECT coalesce(array_agg(run_id), '{}'), count(*) INTO gone, runs_gone FROM
        (SELECT run_id FROM runs WHERE run_id = ANY (gone) AND ended AND NOT purged ORDER BY run_id FOR UPDATE) AS mine;
    DELETE FROM events WHERE run_id = ANY (gone);
    DELETE FROM orders WHERE run_id = ANY (gone);
    UPDATE runs SET purged = true, remains = k.remains FROM unnest(kept, kept_remains) AS k(run_id, remains)
        WHERE runs.run_id = k.run_id AND runs.run_id = ANY (gone);
    DELETE FROM runs WHERE run_id = ANY (gone) AND NOT purged;
    WITH dropped AS (DELETE FROM payload_refs WHERE run_id = ANY (gone) RETURNING hash)
        SELECT array(SELECT DISTINCT hash FROM dropped) INTO hashes;
    payloads_gone := 0;
    IF cardinality(hashes) > 0 THEN
        PERFORM pg_advisory_xact_lock(20253);
        DELETE FROM payloads p WHERE p.hash = ANY (hashes)
            AND NOT EXISTS (SELECT FROM payload_refs r WHERE r.hash = p.hash);
        GET DIAGNOSTICS payloads_gone = ROW_COUNT;
    END IF;
END $$;
