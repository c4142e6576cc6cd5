-- A run takes no key that legacy took within the window: it was taken over, and its retry performed twice.

-- Writes a batch of appends, all or nothing, in one round trip; gives the news of it. `PM001` is a rule that somebody
-- of the batch breaks: the caller looks which one and leaves it out. Rows of one kind come sorted by their keys, so
-- that two processes do not wait for each other in a circle. A summary that is NULL leaves the row's as it is.
CREATE OR REPLACE FUNCTION append_batch(
    origin text, window_ns bigint,
    pin_family text[], pin_id bytea[], pin_arm text[], pin_run bytea[], pin_at bigint[],
    key_key bytea[], key_run bytea[], key_request bytea[],
    run_run bytea[], run_fence bigint[], run_first bigint[], run_seq bigint[], run_ended boolean[],
    run_updated bigint[], run_status text[], run_workflow text[], run_route text[], run_mode text[], run_job bytea[],
    run_parent bytea[], run_summary bytea[], run_owner bytea[], run_turn bigint[], run_pinned boolean[],
    append_run bytea[], append_first bigint[], append_last bigint[], append_name bytea[], append_parts bigint[],
    append_events bytea[], event_version smallint,
    payload_hash bytea[], payload_body bytea[], ref_run bytea[], ref_seq bigint[], ref_path text[], ref_hash bytea[],
    lock_queue boolean[], lock_name bytea[], lock_run bytea[], lock_step text[], lock_item bigint[], lock_since bigint[],
    notice_record bytea[],
    settled_id bytea[], settled_answer bytea[], ended_answer bytea,
    birth_run bytea[], birth_parent bytea[], birth_at bigint[], birth_record bytea[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    now bigint := now_ns();
    done bigint;
    begun bigint;
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
        -- A key that has run out is taken, whoever had it; a run that takes its key again keeps the first time.
        INSERT INTO retry_keys AS held (key, arm, run_id, request, at)
            SELECT k.key, 'engine', k.run, k.request, now FROM unnest(key_key, key_run, key_request) AS k(key, run, request)
            ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id,
                request = CASE WHEN held.run_id = excluded.run_id AND held.at > now - window_ns
                               THEN held.request ELSE excluded.request END,
                at = CASE WHEN held.run_id = excluded.run_id AND held.at > now - window_ns
                          THEN held.at ELSE excluded.at END
                WHERE held.run_id = excluded.run_id OR held.at <= now - window_ns;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done <> cardinality(key_key) THEN
            RAISE EXCEPTION 'a retry key has a run, or is legacy''s' USING ERRCODE = 'PM001';
        END IF;
    END IF;

    INSERT INTO runs (run_id, fence, seq, ended, updated, last_at, status, workflow, route, mode, job, parent, summary, owner,
                      turn, pinned)
        SELECT n.run, n.fence, n.seq, n.ended, n.updated, n.updated, n.status, n.workflow, n.route, n.mode, n.job, n.parent,
               n.summary, n.owner, n.turn, n.pinned
        FROM unnest(run_run, run_fence, run_first, run_seq, run_ended, run_updated, run_status, run_workflow, run_route,
                    run_mode, run_job, run_parent, run_summary, run_owner, run_turn, run_pinned)
             AS n(run, fence, first, seq, ended, updated, status, workflow, route, mode, job, parent, summary, owner,
                  turn, pinned)
        WHERE n.first = 1
        ON CONFLICT (run_id) DO NOTHING;
    GET DIAGNOSTICS begun = ROW_COUNT;
    IF begun <> cardinality(run_run) THEN
        UPDATE runs SET seq = n.seq, ended = n.ended,
                        updated = CASE WHEN n.ended THEN n.updated ELSE runs.updated END, last_at = n.updated,
                        status = n.status, workflow = n.workflow, route = n.route, mode = n.mode, job = n.job, parent = n.parent, summary = coalesce(n.summary, runs.summary),
                        owner = n.owner, turn = n.turn, pinned = runs.pinned OR n.pinned
            FROM unnest(run_run, run_fence, run_first, run_seq, run_ended, run_updated, run_status, run_workflow,
                        run_route, run_mode, run_job, run_parent, run_summary, run_owner, run_turn, run_pinned)
                 AS n(run, fence, first, seq, ended, updated, status, workflow, route, mode, job, parent, summary, owner,
                      turn, pinned)
            WHERE n.first > 1 AND runs.run_id = n.run AND runs.seq = n.first - 1 AND runs.fence = n.fence;
        GET DIAGNOSTICS done = ROW_COUNT;
        IF begun + done <> cardinality(run_run) THEN
            RAISE EXCEPTION 'not contiguous, or another owner' USING ERRCODE = 'PM001';
        END IF;
    END IF;
    INSERT INTO appends (run_id, first, last, version, batch, parts, events)
        SELECT a.run, a.first, a.last, event_version, a.name, a.parts, a.events
        FROM unnest(append_run, append_first, append_last, append_name, append_parts, append_events)
             AS a(run, first, last, name, parts, events);
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
    IF cardinality(birth_run) > 0 THEN
        INSERT INTO births (run_id, parent, at, record)
            SELECT b.run, b.parent, b.at, b.record
            FROM unnest(birth_run, birth_parent, birth_at, birth_record) AS b(run, parent, at, record)
            WHERE NOT EXISTS (SELECT FROM runs WHERE runs.run_id = b.run)
            ON CONFLICT (run_id) DO NOTHING;
        news := news || 'birth'::text;
    END IF;
    IF begun > 0 THEN
        DELETE FROM births AS b USING unnest(run_run, run_first) AS n(run, first)
            WHERE n.first = 1 AND b.run_id = n.run;
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
