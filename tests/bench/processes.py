#!/usr/bin/env python3
"""Several processes on one PostgreSQL: what each request and step costs, and how long changes and failures take.

  load         1, 2 and 4 processes: requests/s in `off` without and with a new retry key each, and runs/s of ten POSTs with
               new keys in `live`; CPU time of Pointsman and of PostgreSQL per request and per step
  paced        the same below saturation: one process at a certain rate, N processes at N times that rate
  round-trips  one process: round trips to the database per keyed request in `off` and per step in `live`, with 1 and 32
               clients, counted on the wire
  flips        1, 2 and 4 processes: from a flip between `dark` and `live` until it is in force in all of them
  failover     two processes and a synchronous standby: from the end of the primary, after kill -9, until keyed requests
               succeed in `live`
  takeover     two processes: from kill -9 of one until the other one repeats the calls of its open runs
  keys         10 million retry keys and 10 million pins: start, memory, latency, table sizes, one pruning; beside empty tables

    cargo build --release && python3 tests/bench/processes.py [PART…] [--rounds 3] [--seconds 2] [--keys N] [--rows FILE]

Needs: nginx, wrk, postgresql (Debian packages of these names). Everything listens on loopback and shares the machine's
cores. There is no balancer: a wrk for each process, with 32 connections each and then with its share of 32, because a balancer
would use as much CPU time per request as Pointsman does. Pointsman's log goes to a file. 0.95 of one process's requests per
CPU second is to reach.

Unfair: on a machine with few cores more processes cannot give more requests/s, as load generator, step service, database
and all processes share them: compare the CPU time. `round-trips` counts through a relay that slows the database down, so
that with 32 clients more is committed together than without it. `failover` does not contain the time to find out that the
primary is gone: the standby is promoted at once, and then gets the primary's address. `flips` has no load beside it. `keys`
has tables that were filled at once and then vacuumed, denser than those that grew, and in the system's cache.

Exits with 1 if a request failed, or if effects were performed twice where nothing was killed; no figure passes or fails.
"""
import argparse, asyncio, concurrent.futures, contextlib, itertools, json, re, statistics, sys, threading, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig
from shared_store import SERVER_OPTIONS, Process, Relay, Server, new_keys, server_version

COUNTS, CONNECTIONS, STEPS, FLIPS, OPEN_RUNS, LEASE_MS = (1, 2, 4), 32, 10, 20, 8, 2_000
OFF, LIVE, ONE = rig.sequence(1, name="off"), rig.sequence(STEPS, name="live"), rig.sequence(1, name="one")
HELD = """workflow: held
steps:
  first: { call: 'POST ${services.steps}/first', effect: shared, body: { n: 1 } }
  second: { needs: [first], call: 'POST ${services.holding}/second', effect: shared, body: { n: 2 }, timeout: 300s }
respond: { status: 200, body: { done: true } }
"""
CREATE = """workflow: create
steps:
  made: { call: 'POST ${services.steps}/made', effect: shared, body: { n: 1 } }
respond: { status: 200, body: { id: "${run.id}" } }
"""
BODY = '{"n":1}'
# What a flip's answer says of other processes if it went on by force without them: then it did not wait as it should.
WITHOUT_OTHERS = re.compile(r"processes share the store|shares the store|the others that share the store|the store does not (answer|take)")
# Requests/s of each process in `paced`: four times this is well below what two cores can do.
PACED_PER_S = {"off": 2_500, "off, new keys": 1_000, "live, new keys": 30}
WORKS = (("off", "/off", False), ("off, new keys", "/off", True), ("live, new keys", "/live", True))


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The folder, the step service, and the rows so far."""

    def __init__(self, folder, args):
        self.folder, self.args, self.rows, self.load = Path(folder), args, [], 0
        self.steps = rig.StepService(folder)

    def emit(self, **row):
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def process(self, name, store, routes, **more):
        return Process(self.folder, name, store.port, self.steps.url, routes, **more)

    def keyed_load(self, processes, path, connections, seconds, keyed=True, pause_ms=None):
        """A wrk for each process, at the same time; returns the sums, and the latencies of the slowest process. With
        `pause_ms` each connection waits about so long before a request."""
        self.load += 1

        def one(at):
            keys = new_keys(f"load-{self.load}-{at}") if keyed else ""
            if pause_ms:
                keys += f"math.randomseed({self.load * 10 + at}) function delay() return math.random() * {2 * pause_ms} end\n"
            return rig.wrk(self.folder, f"http://127.0.0.1:{processes[at].port}{path}", BODY, connections // len(processes), seconds, keys, f"load-{at}")

        with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
            loads = list(pool.map(one, range(len(processes))))
        return {key: max(load[key] for load in loads) if key.endswith("_ms") else round(sum(load[key] for load in loads), 1) for key in loads[0]}


# --- load ----------------------------------------------------------------------------------------------------------
def spent(server, processes):
    """CPU seconds of Pointsman and of PostgreSQL so far."""
    return sum(rig.cpu_seconds(one.process.pid) for one in processes), server.cpu_seconds()


def measured(bench, server, processes, path, clients, seconds, keyed, pause_ms=None):
    """The row of one load: its rate, latencies, and CPU time per request and step."""
    if path == "/live":
        bench.steps.effects()  # those of the load before
    cpu, database = spent(server, processes)
    done = bench.keyed_load(processes, path, clients, seconds, keyed, pause_ms)
    for process in processes:
        process.wait_until_idle()
    cpu_after, database_after = spent(server, processes)
    cpu, database = cpu_after - cpu, database_after - database
    row, requests = dict(requests=done["runs"], bad=done["bad"], requests_per_s=done["runs_per_s"], p50_ms=done["p50_ms"], p99_ms=done["p99_ms"]), done["runs"]
    if path == "/live":
        effects, twice = bench.steps.effects()
        requests = effects / STEPS  # wrk does not count those that are under way when it ends, and they do end
        row.update(steps_per_s=round(done["runs_per_s"] * STEPS), effects=effects, effects_twice=twice,
                   cpu_us_per_step=round(cpu / max(1, effects) * 1e6, 1), database_cpu_us_per_step=round(database / max(1, effects) * 1e6, 1))
    row.update(cpu_us_per_request=round(cpu / max(1, requests) * 1e6, 1), database_cpu_us_per_request=round(database / max(1, requests) * 1e6, 1))
    return row


def numbers_of_processes(bench, name):
    """For each round and number of processes: the round (-1 warms up), the server, and that many running processes."""
    server, processes = Server(bench.folder, name), []
    routes = [(OFF, "", "off"), (LIVE, "", "live")]
    for n in range(-1, bench.args.rounds):
        for count in COUNTS[-1:] if n < 0 else COUNTS if n % 2 else reversed(COUNTS):
            while len(processes) > count:
                processes.pop().stop()
            while len(processes) < count:
                processes.append(bench.process(f"{name}-{n}-{count}-{len(processes)}", server, routes))
            if any(process.requested("live") != "live" for process in processes):
                sys.exit("the route is not in `live`")
            time.sleep(2)  # what a start leaves to be done afterwards
            yield n, server, processes
    for process in processes:
        process.stop()
    server.stop()


def load(bench):
    for n, server, processes in numbers_of_processes(bench, "load"):
        count = len(processes)
        (cpu, database), _, (cpu_after, database_after) = spent(server, processes), time.sleep(1), spent(server, processes)
        if n >= 0:
            bench.emit(part="load", work="idle", round=n, processes=count, cpu_ms_per_s=round((cpu_after - cpu) * 1e3), database_cpu_ms_per_s=round((database_after - database) * 1e3))
        for (work, path, keyed), clients in itertools.product(WORKS, dict.fromkeys((CONNECTIONS, CONNECTIONS * count))):
            row = measured(bench, server, processes, path, clients, 1 if n < 0 else bench.args.seconds, keyed)
            if n >= 0:
                bench.emit(part="load", work=work, round=n, processes=count, clients=clients, **row)


def paced(bench):
    for n, server, processes in numbers_of_processes(bench, "paced"):
        count = len(processes)
        for work, path, keyed in WORKS:
            pause_ms = CONNECTIONS * 1e3 / PACED_PER_S[work]
            row = measured(bench, server, processes, path, CONNECTIONS * count, 1 if n < 0 else 2 * bench.args.seconds, keyed, pause_ms)
            if n >= 0:
                bench.emit(part="paced", work=work, round=n, processes=count, clients=CONNECTIONS * count, **row)


# --- round trips ---------------------------------------------------------------------------------------------------
def round_trips(bench):
    server = Server(bench.folder, "round-trips")
    relay = Relay(server)
    process = bench.process("round-trips-1", relay, [(OFF, "", "off"), (LIVE, "", "live")])
    for path in ("/off", "/live"):  # prepares the statements
        bench.keyed_load([process], path, CONNECTIONS, 1)
    process.wait_until_idle()
    time.sleep(2)
    before, idle_s = relay.counted.total(), 5
    time.sleep(idle_s)
    idle = (relay.counted.total() - before) / idle_s
    bench.emit(part="round trips", work="idle", trips_per_s=idle)
    bench.steps.effects()
    for n in range(bench.args.rounds):
        for work, path in (("off, new keys", "/off"), ("live, new keys", "/live")):
            for connections in (1, CONNECTIONS):
                counted, begun = relay.counted.copy(), time.monotonic()
                done = bench.keyed_load([process], path, connections, bench.args.seconds)
                process.wait_until_idle()
                effects, twice = bench.steps.effects()  # waits until what follows behind is written too
                more = relay.counted - counted
                trips = more.total() - idle * (time.monotonic() - begun)
                requests = done["runs"] if path == "/off" else effects / STEPS
                row = dict(part="round trips", work=work, clients=connections, round=n, requests=done["runs"], bad=done["bad"], requests_per_s=done["runs_per_s"],
                           trips=round(trips), prepares=more["prepare"], trips_per_request=round(trips / max(1, requests), 2))
                if path == "/live":
                    row.update(effects=effects, effects_twice=twice, trips_per_step=round(trips / max(1, effects), 3), steps_per_trip=round(effects / max(1, trips), 2))
                bench.emit(**row)
    process.stop()
    server.stop()


# --- flips ---------------------------------------------------------------------------------------------------------
def flips(bench):
    server, processes = Server(bench.folder, "flips"), []
    for count in COUNTS:
        while len(processes) < count:
            processes.append(bench.process(f"flips-{len(processes)}", server, [(ONE, "", "off")]))
        if count == COUNTS[0]:
            processes[0].climb("one", "shadow", "dark")
        for n in range(2 * FLIPS):
            to = "dark" if n % 2 else "live"
            begun = time.monotonic()
            took, answer = processes[n // 2 % count].flip("one", to)
            behind, required = answer.get("not_in_force_in") or [], answer.get("still_required") or []
            forced_past = [line for line in required if WITHOUT_OTHERS.search(line)]  # the other lines are of gates that lack evidence
            for line in forced_past:
                say(f"forced to {to} although: {line}")
            while any(process.requested("one") != to for process in processes):
                behind, took = behind or ["not named"], time.monotonic() - begun
                if took > 60:
                    sys.exit(f"not in force after {took:.0f} s: {answer}")
            bench.emit(part="flips", work="up" if to == "live" else "down", processes=count, round=n // 2, in_force_ms=round(took * 1e3, 1), behind=len(behind),
                       still_required=len(required), forced_past=len(forced_past))
    for process in processes:
        process.stop()
    server.stop()


# --- failover ------------------------------------------------------------------------------------------------------
def failover(bench):
    for n in range(bench.args.rounds):
        primary = Server(bench.folder, f"failover-{n}-primary")
        relay = Relay(primary)
        processes = [bench.process(f"failover-{n}-{at}", relay, [(ONE, "", "live")]) for at in range(2)]
        standby = primary.standby(f"failover-{n}-standby")
        results, over, lock = [], threading.Event(), threading.Lock()

        def send(at, number):
            begun = time.monotonic()
            status, text = processes[at].keyed("/one", f"failover-{n}-{at}-{number}")
            with lock:
                results.append((at, begun, time.monotonic(), status == 200 and text == '{"last":1}'))

        def succeeded(at, since):
            with lock:
                return [end - since for of, begun, end, good in results if of == at and good and begun >= since]

        def wait_for(at, since):
            while not succeeded(at, since):
                if time.monotonic() - since > 60:
                    sys.exit(f"no keyed request has succeeded: {processes[at].log()[-2_000:]}")
                time.sleep(0.01)

        with concurrent.futures.ThreadPoolExecutor(256) as pool:
            def load_steadily():
                number = 0
                while not over.wait(0.05):
                    number += 1
                    for at in range(2):
                        pool.submit(send, at, number)

            sender = threading.Thread(target=load_steadily)
            sender.start()
            try:
                begun = time.monotonic()
                for at in range(2):
                    wait_for(at, begun)
                primary.kill()
                killed = time.monotonic()  # from here on no request succeeds by what the primary still did
                standby.promote()
                relay.server = standby
                promoted = time.monotonic()
                for at in range(2):
                    wait_for(at, killed)
            finally:
                over.set()
                sender.join()
        firsts = [min(succeeded(at, killed)) for at in range(2)]
        failed = [good for _, begun, _, good in results if not good]
        _, twice = bench.steps.effects()
        bench.emit(part="failover", work="kill -9 of the primary", round=n, promoted_s=round(promoted - killed, 2), one_serves_s=round(min(firsts), 2),
                   both_serve_s=round(max(firsts), 2), both_after_promotion_s=round(max(firsts) - (promoted - killed), 2), requests=len(results),
                   failed_meanwhile=len(failed), repeated_deliveries=twice)
        for process in processes:
            process.stop()
        standby.stop()


# --- takeover ------------------------------------------------------------------------------------------------------
class HoldingService:
    """Does not answer the first delivery of a key, and answers each later one."""

    def __init__(self):
        self.first, self.later, self.closed, self.port = {}, {}, {}, rig.free_port()
        self.loop, started = asyncio.new_event_loop(), threading.Event()

        async def listen():
            self.listener = await asyncio.start_server(self.connection, "127.0.0.1", self.port)
            started.set()

        def run():
            self.loop.create_task(listen())
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        started.wait()
        self.url = f"http://127.0.0.1:{self.port}"

    async def connection(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(re.search(r"content-length: (\d+)", head).group(1)))
                key = re.search(r"idempotency-key: (.*)\r", head).group(1)
                if key not in self.first:
                    self.first[key] = time.monotonic()
                    await reader.read()  # until its process is gone
                    self.closed[key] = time.monotonic()
                    break
                self.later.setdefault(key, time.monotonic())
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"ok":1}')
        writer.close()


def wait_until(what, holds, timeout_s=120, interval_s=0.005):
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"not within {timeout_s} s: {what}")
        time.sleep(interval_s)


def takeover(bench):
    server, service = Server(bench.folder, "takeover"), HoldingService()
    more = dict(services=[("holding", service.url)], limits={"lease_ms": LEASE_MS})
    processes = [bench.process(f"takeover-{at}", server, [(HELD, "", "live")], **more) for at in range(2)]
    for n in range(bench.args.rounds):
        victim = processes[n % 2]
        known = set(service.first)
        with concurrent.futures.ThreadPoolExecutor(OPEN_RUNS) as pool:
            for number in range(OPEN_RUNS):
                pool.submit(victim.keyed, "/held", f"takeover-{n}-{number}")
            wait_until("the calls to arrive", lambda: len(service.first) >= len(known) + OPEN_RUNS)
            killed = time.monotonic()
            victim.kill()
            ours = set(service.first) - known
            time.sleep(0.5)  # its connections are closed by then: those of runs that the other process has stay open
            lost = [key for key in ours if key in service.closed]
            wait_until("the calls to be repeated", lambda: all(key in service.later for key in lost))
        took = [service.later[key] - killed for key in lost]
        goes_on = dict(goes_on_s=round(statistics.median(took), 2), last_goes_on_s=round(max(took), 2)) if took else {}
        bench.emit(part="takeover", work="kill -9 of a process", round=n, open_runs=len(lost), lease_s=LEASE_MS / 1e3, **goes_on)
        victim.start()
        rig.wait_port(victim.port, "pointsman", victim.process)
    for process in processes:
        process.stop()
    server.stop()
    bench.steps.effects()


# --- keys ----------------------------------------------------------------------------------------------------------
BUILT = re.compile(r"the sets of retry keys and pins are built")
WINDOW_NS = 86_400 * 10**9
# Half of the keys are the engine's, half legacy's; all pins are the engine's. Indexes are made after the rows.
ROWS = {
    "retry_keys": """INSERT INTO retry_keys (key, arm, run_id, request, at)
    SELECT sha256(int8send(n)), CASE n % 2 WHEN 0 THEN 'engine' ELSE 'legacy' END,
           CASE n % 2 WHEN 0 THEN substr(sha256(int8send(-n)), 1, 16) END, CASE n % 2 WHEN 0 THEN sha256(int8send(-n)) END,
           now_ns() - (random() * 0.9 * {window})::bigint FROM generate_series(1, {keys}) AS n""",
    "pins": """INSERT INTO pins (family, id, arm, run_id, at)
    SELECT 'create', convert_to('order-' || n, 'UTF8'), 'engine', substr(sha256(int8send(-n)), 1, 16), now_ns() FROM generate_series(1, {keys}) AS n"""}
FILL = """SET search_path TO pointsman; SET synchronous_commit TO off; SET maintenance_work_mem TO '1GB';
BEGIN;
CREATE TEMP TABLE later ON COMMIT DROP AS
    SELECT conname AS name, 'ALTER TABLE {table} DROP CONSTRAINT ' || conname AS dropped,
           'ALTER TABLE {table} ADD ' || pg_get_constraintdef(oid) AS made FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'p'
    UNION ALL SELECT indexrelid::regclass::text, 'DROP INDEX ' || indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = '{table}'::regclass AND NOT indisprimary;
DO $$ DECLARE one record; BEGIN FOR one IN SELECT * FROM later LOOP EXECUTE one.dropped; END LOOP; END $$;
{rows};
DO $$ DECLARE one record; BEGIN FOR one IN SELECT * FROM later LOOP EXECUTE one.made; END LOOP; END $$;
COMMIT;"""
EXPIRED = """SET search_path TO pointsman; INSERT INTO retry_keys (key, arm, at)
    SELECT sha256(convert_to('expired-' || n, 'UTF8')), 'legacy', now_ns() - {window} - n FROM generate_series(1, {keys}) AS n"""


def memory(process):
    """All resident memory, and that of it which is not pages of files: the binary's own pages come and go."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return dict(rss_mb=round(rig.rss_mb(process.process.pid), 1), anonymous_mb=round(int(re.search(r"RssAnon:\s+(\d+)", status).group(1)) * 1024 / 1e6, 1))


def keys(bench):
    servers = {"empty": Server(bench.folder, "keys-empty"), "filled": Server(bench.folder, "keys-filled")}
    routes = [(OFF, "", "off"), (CREATE, ", instance: { creates: $.id }", "live")]
    count, filled = bench.args.keys, servers["filled"]
    start = lambda name, run: bench.process(f"keys-{name}-{run}", servers[name], routes)
    start("filled", "first").stop()  # makes the tables
    begun = time.monotonic()

    def fill(table):
        filled.query(FILL.format(table=table, rows=ROWS[table].format(keys=count, window=WINDOW_NS)))
        filled.query(f"VACUUM (ANALYZE) pointsman.{table}")

    with concurrent.futures.ThreadPoolExecutor(len(ROWS)) as pool:
        list(pool.map(fill, ROWS))
    filled.query("CHECKPOINT")
    say(f"filled in {time.monotonic() - begun:.0f} s")
    for table in ROWS:
        size = lambda function: round(int(filled.query(f"SELECT {function}('pointsman.{table}')")) / 1e6)
        bench.emit(part="keys", work="table", table=table, table_rows=count, table_mb=size("pg_table_size"), indexes_mb=size("pg_indexes_size"))
    processes = {}
    for name in servers:
        begun = time.monotonic()
        process = processes[name] = start(name, "measured")
        wait_until("the sets to be built", lambda: BUILT.search(process.log()), 600)
        bench.emit(part="keys", work="start", tables=name, ready_s=round(process.ready_s, 2), built_s=round(time.monotonic() - begun, 2), **memory(process))
    for n in range(-1, bench.args.rounds):  # round -1 warms up
        for name in processes if n % 2 else reversed(processes):
            for work, path in (("off, new keys", "/off"), ("live, new keys", "/create")):
                done = bench.keyed_load([processes[name]], path, 8, 1 if n < 0 else bench.args.seconds)
                processes[name].wait_until_idle()
                if n >= 0:
                    bench.emit(part="keys", work=work, tables=name, round=n, requests=done["runs"], bad=done["bad"], requests_per_s=done["runs_per_s"],
                               p50_ms=done["p50_ms"], p99_ms=done["p99_ms"], **memory(processes[name]))
    bench.steps.effects()
    expired, left = max(1, count // 100), f"SELECT count(*) FROM pointsman.retry_keys WHERE at <= pointsman.now_ns() - {WINDOW_NS}"
    filled.query(EXPIRED.format(keys=expired, window=WINDOW_NS))
    say(f"{expired} keys have expired: the next pruning begins within a minute")
    wait_until("the pruning to begin", lambda: int(filled.query(left)) < expired, 180, 0.05)
    begun, database = time.monotonic(), filled.cpu_seconds()
    wait_until("the pruning to end", lambda: int(filled.query(left)) == 0, 300, 0.2)
    bench.emit(part="keys", work="pruning", tables="filled", expired=expired, took_s=round(time.monotonic() - begun, 2),
               database_cpu_s=round(filled.cpu_seconds() - database, 2))
    for process in processes.values():
        process.stop()
    for server in servers.values():
        server.stop()


PARTS = {"load": load, "paced": paced, "round-trips": round_trips, "flips": flips, "failover": failover, "takeover": takeover, "keys": keys}


def summary(rows):
    """The medians, and what the goals are about."""
    of = lambda part: [row for row in rows if row["part"] == part]
    yield from rig.medians(of("load"), ["work", "processes", "clients"], [
        "cpu_ms_per_s", "database_cpu_ms_per_s", "requests_per_s", "cpu_us_per_request", "database_cpu_us_per_request", "steps_per_s", "cpu_us_per_step", "database_cpu_us_per_step", "p50_ms", "p99_ms"])
    for work, count, each in itertools.product((work for work, _, _ in WORKS), COUNTS[1:], (True, False)):
        cost = lambda count, clients: [row["cpu_us_per_request"] for row in of("load") if (row["work"], row["processes"], row.get("clients")) == (work, count, clients)]
        if several := cost(count, CONNECTIONS * count if each else CONNECTIONS):
            ratios = sorted(one / other for one, other in zip(cost(1, CONNECTIONS), several))
            clients = f"{CONNECTIONS} clients {'each' if each else 'in all'}"
            yield f"requests per CPU second, {work}: {count} processes against one, {clients}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}); to reach: 0.95"
    yield from rig.medians(of("paced"), ["work", "processes"], [
        "requests_per_s", "cpu_us_per_request", "database_cpu_us_per_request", "steps_per_s", "cpu_us_per_step", "database_cpu_us_per_step", "p50_ms", "p99_ms"])
    for work, count in itertools.product((work for work, _, _ in WORKS), COUNTS[1:]):
        for column, of_what in (("cpu_us_per_request", ""), ("database_cpu_us_per_request", " of PostgreSQL")):
            cost = lambda count: [row[column] for row in of("paced") if (row["work"], row["processes"]) == (work, count)]
            if (several := cost(count)) and all(several):
                ratios = sorted(one / other for one, other in zip(cost(1), several))
                yield f"requests per CPU second{of_what}, {work}, paced: {count} processes against one: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}); to reach: 0.95"
    yield from rig.medians(of("round trips"), ["work", "clients"], ["trips_per_s", "trips_per_request", "trips_per_step", "steps_per_trip"])
    for count in COUNTS:
        for work in ("up", "down"):
            made = [row for row in of("flips") if (row["work"], row["processes"]) == (work, count)]
            took = [row["in_force_ms"] for row in made if not row["forced_past"]]
            if len(took) < len(made):
                yield f"flip {work}, {count} processes: {len(made) - len(took)} of {len(made)} went on by force without other processes, and do not count"
            if took:
                yield f"flip {work}, {count} processes: in force in all after {statistics.median(took):.1f} ms (p50), {max(took):.1f} ms (max of {len(took)}); to reach: 1 s"
    yield from rig.medians(of("failover"), ["work"], ["promoted_s", "one_serves_s", "both_serve_s", "both_after_promotion_s", "failed_meanwhile"])
    yield from rig.medians(of("takeover"), ["work"], ["goes_on_s", "last_goes_on_s"])
    if not_seen := sum("goes_on_s" not in row for row in of("takeover")):
        yield f"takeover: not seen in {not_seen} of {len(of('takeover'))} rounds, in which the killed process had none of the calls"
    if of("takeover"):
        yield f"promised: {2 * LEASE_MS / 1e3:g} s, twice the lease"
    yield from rig.medians(of("keys"), ["work", "tables", "table"], [
        "ready_s", "built_s", "rss_mb", "anonymous_mb", "requests_per_s", "p50_ms", "p99_ms", "took_s", "database_cpu_s", "table_mb", "indexes_mb"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--keys", type=int, default=10_000_000, help="the rows in each of the two tables of `keys`")
    parser.add_argument("--binary", type=Path, help="another build")
    parser.add_argument("--dir", help="where the databases go: a folder on a disk that the user `postgres` reaches")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    rig.require("nginx", "wrk")
    busy = rig.busy_share()
    work_folder, disk = rig.work_folder(args.dir)
    if args.binary:
        rig.BINARY = args.binary.resolve()
    with work_folder as folder:
        fsync, bench = rig.fsync_us(folder), Bench(folder, args)
        for part in args.parts or PARTS:
            say(f"== {part}")
            begun = time.monotonic()
            PARTS[part](bench)
            say(f"== {part}: {time.monotonic() - begun:.0f} s")
    rows = bench.rows
    notes = [
        f"machine: {rig.machine()}; disk {disk}, write + fdatasync {fsync:.0f} us; {busy:.0%} of the cores busy with other load before the start",
        f"command: python3 tests/bench/processes.py {' '.join(sys.argv[1:])}",
        f"{server_version()} with {', '.join(f'{name} = {value}' for name, value in SERVER_OPTIONS.items())}, else as installed",
        f"unfair: {' '.join(__doc__.split('Unfair: ')[1].split('Exits with')[0].split())}"]
    for note in notes:
        print(note)
    for line in summary(rows):
        notes.append(line)
        print(line)
    if args.rows:
        rig.write_rows(args.rows, rows, notes)
    if any(row.get("bad") or row.get("effects_twice") for row in rows):
        sys.exit("requests failed or effects were performed twice: see `bad` and `effects_twice` in the rows")


main()
