#!/usr/bin/env python3
"""The engine by itself: how time and memory grow with the load, and what waiting runs cost.

  in-flight   1, 10, 100, 1,000 runs of ten POSTs in flight: runs/s, p50, p99
  for-each    one run whose `for_each` has 10,000 items, and one of 5,000 (10,000 events), 64 calls at a time; then each
              is read over the API (to measure reading and folding alone, leave the database with --keep FOLDER and give it
              to `src/store/tests/benchmarks.rs`)
  children    one run that starts 1,000 children, and one that starts 2,000, 64 at a time: twice as many should take
              twice as long
  undo        one run that undoes 1,000 calls, then 2,000 and 4,000, 64 at a time: twice as many should take twice as long
  waiting     10,000 runs that wait for a person: CPU and system calls of the idle process, memory per run
  finished    100,000 finished runs in the store: seconds until /readyz after a start, `runs list` over the API and by
              the command

    cargo build --release && python3 tests/bench/engine_alone.py [BENCHMARK…] [--rounds 3] [--seconds 5] [--rows FILE]

Needs: nginx, wrk (Debian packages of these names), and strace to count the store's system calls of the idle process. The
step service (nginx) and the load generator run on the same machine and share its cores. No figure passes or fails.
"""
import argparse, asyncio, json, statistics, subprocess, shutil, sys, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig

RUNS_WAITING, RUNS_WARM_UP, RUNS_FINISHED, ITEMS = 10_000, 500, 100_000, 10_000

WAITING = """workflow: waits-for-a-person
steps:
  before: { call: 'POST ${services.steps}/before', effect: shared, body: { n: "${request.body.n}" } }
  person: { needs: [before], checkpoint: { question: 'Shall it go on?' } }
  after: { needs: [person], call: 'POST ${services.steps}/after', effect: shared, body: { n: "${request.body.n}" } }
respond: { status: 200, body: { id: "${run.id}" } }
"""
SMALL = """workflow: computes
steps:
  sum: { set: "${request.body.n + 1}" }
respond: { status: 200, body: { sum: "${steps.sum.output}" } }
"""
EACH = """workflow: each
steps:
  item: { for_each: "${request.body.items}", concurrency: 64, call: 'POST ${services.steps}/item', effect: shared, body: { n: "${item}" } }
respond: { status: 200, body: { done: true } }
"""
UNDO = """workflow: undo
steps:
  item: { for_each: "${request.body.items}", concurrency: 64, call: 'POST ${services.steps}/item', effect: shared, body: { n: "${item}" }, undo: 'POST ${services.steps}/undo/${index}' }
  stop: { needs: [item], fail: { status: 409, body: { undone: true } } }
respond: { status: 200, body: { done: true } }
"""
CHILD = """workflow: child
steps:
  done: { call: 'POST ${services.steps}/child', effect: shared, body: { n: "${request.body.n}" } }
respond: { status: 200, body: { n: "${request.body.n}" } }
"""
PARENT = """workflow: parent
steps:
  each: { for_each: "${request.body.items}", concurrency: 64, run: child, input: { n: "${item}" } }
respond: { status: 200, body: { done: true } }
"""


async def post_many(url, body_of, count, connections):
    """Sends exactly this many POSTs over this many connections; returns the number of replies by status."""
    host, port = url.split("/")[2].split(":")
    path = "/" + url.split("/", 3)[3]
    numbers, statuses = iter(range(count)), {}

    async def one():
        reader, writer = await asyncio.open_connection(host, int(port))
        for n in numbers:
            body = body_of(n).encode()
            writer.write(f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split(" ", 2)[1])
            statuses[status] = statuses.get(status, 0) + 1
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            if "content-length" in fields:
                await reader.readexactly(int(fields["content-length"]))
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return statuses


def list_runs(pointsman, query):
    status, text = rig.http(f"{pointsman.admin}/api/v2/orchestrate/runs?{query}")
    if status != 200:
        sys.exit(f"runs?{query}: {status} {text}")
    found = json.loads(text)
    return found.get("runs", found.get("data", []))


def start_many(pointsman, workflow, by, count, connections, row):
    url, _ = pointsman.target(workflow, by)
    body = (lambda n: json.dumps({"workflow": workflow, "input": {"n": n}})) if by == "api" else (lambda n: f'{{"n":{n}}}')
    start_time = time.monotonic()
    statuses = asyncio.run(post_many(url, body, count, connections))
    row.update(runs=sum(statuses.values()), took_s=round(time.monotonic() - start_time, 2), statuses=json.dumps(statuses))


def in_flight(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [rig.sequence(10)], name="in-flight")
    by = pointsman.start_method(args.by)
    for n in range(-1, args.rounds):
        for count in (1, 10, 100, 1_000):
            before = rig.cpu_seconds(pointsman.process.pid)
            load = rig.wrk(folder, *pointsman.target("sequence-10", by), count, 2 if n < 0 else args.seconds)
            spent = rig.cpu_seconds(pointsman.process.pid) - before
            pointsman.wait_until_idle()
            effects, twice = steps.effects()
            if n >= 0:
                emit(dict(work="in flight", round=n, count=count, by=by, **load, effects=effects, effects_twice=twice, steps_per_s=round(load["runs_per_s"] * 10),
                          cpu_us_per_step=round(spent / max(1, load["runs"] * 10) * 1e6, 1), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1)))
    rig.stop(pointsman.process)


def for_each(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [EACH], limits={"answer_ms": 600_000}, name="for-each")
    by = pointsman.start_method(args.by)
    for n, count in ((n, count) for n in range(args.rounds) for count in (ITEMS, ITEMS // 2)):
        items = list(range(count))
        url, _ = pointsman.target("each", by)
        cpu, start_time = rig.cpu_seconds(pointsman.process.pid), time.monotonic()
        status, text = rig.http(url, {"workflow": "each", "input": {"items": items}} if by == "api" else {"items": items}, timeout_s=600)
        took = time.monotonic() - start_time
        spent = rig.cpu_seconds(pointsman.process.pid) - cpu
        effects, twice = steps.effects()
        runs = list_runs(pointsman, "limit=1")
        start_time = time.monotonic()
        shown, text_of_run = rig.http(f"{pointsman.admin}/api/v2/orchestrate/run/{runs[0]['run_id']}")
        emit(dict(work="for each", round=n, count=count, by=by, status=status, run_status=runs[0]["status"], took_s=round(took, 2), items_per_s=round(count / took),
                  effects=effects, effects_twice=twice, cpu_us_per_step=round(spent / count * 1e6, 1), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1),
                  show_ms=round((time.monotonic() - start_time) * 1e3, 1), show_status=shown))
    rig.stop(pointsman.process)
    if args.keep:
        shutil.copy(pointsman.folder / "bench.db", Path(args.keep) / "for-each.db")


def children(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [CHILD, PARENT], limits={"answer_ms": 600_000, "runs_in_flight_max": 20_000}, name="children")
    by = pointsman.start_method(args.by)
    for n, count in ((n, count) for n in range(args.rounds) for count in (1_000, 2_000)):
        items = list(range(count))
        url, _ = pointsman.target("parent", by)
        cpu, start_time = rig.cpu_seconds(pointsman.process.pid), time.monotonic()
        status, text = rig.http(url, {"workflow": "parent", "input": {"items": items}} if by == "api" else {"items": items}, timeout_s=600)
        pointsman.wait_until_idle(600)
        took = time.monotonic() - start_time
        spent = rig.cpu_seconds(pointsman.process.pid) - cpu
        effects, twice = steps.effects()
        emit(dict(work="children", round=n, count=count, by=by, status=status, took_s=round(took, 2), items_per_s=round(count / took), effects=effects,
                  effects_twice=twice, cpu_us_per_step=round(spent / count * 1e6, 1), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1)))
    rig.stop(pointsman.process)


def undo(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [UNDO], limits={"answer_ms": 600_000}, name="undo")
    by = pointsman.start_method(args.by)
    for n, count in ((n, count) for n in range(args.rounds) for count in (1_000, 2_000, 4_000)):
        items = list(range(count))
        url, _ = pointsman.target("undo", by)
        cpu, start_time = rig.cpu_seconds(pointsman.process.pid), time.monotonic()
        status, text = rig.http(url, {"workflow": "undo", "input": {"items": items}} if by == "api" else {"items": items}, timeout_s=600)
        pointsman.wait_until_idle(600)
        took = time.monotonic() - start_time
        spent = rig.cpu_seconds(pointsman.process.pid) - cpu
        effects, twice = steps.effects()
        emit(dict(work="undo", round=n, count=count, by=by, status=status, took_s=round(took, 2), items_per_s=round(count / took), effects=effects,
                  effects_twice=twice, cpu_us_per_step=round(spent / count / 2 * 1e6, 1), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1)))
    rig.stop(pointsman.process)


def waiting(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [WAITING], limits={"runs_in_flight_max": 20_000, "answer_ms": 2_000}, name="waiting")
    by, pid = pointsman.start_method(args.by), pointsman.process.pid
    warm_up_row = {}
    start_many(pointsman, "waits-for-a-person", by, RUNS_WARM_UP, 50, warm_up_row)  # fills pools, caches and buffers before memory is measured
    time.sleep(2)
    before = rig.rss_mb(pid)
    row = dict(work="waiting", by=by)
    start_many(pointsman, "waits-for-a-person", by, RUNS_WAITING, 50, row)
    time.sleep(5)
    row.update(rss_mb=round(rig.rss_mb(pid), 1), kb_per_run=round((rig.rss_mb(pid) - before) * 1e3 / RUNS_WAITING, 2))
    row["waiting"] = int(pointsman.metrics()["pointsman_checkpoints_open"]) - RUNS_WARM_UP
    # No request is sent while this is measured: all activity is the process's own.
    appended = pointsman.metrics()["pointsman_append_batch_events_count"]
    time.sleep(2)
    lines = lambda: (line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    io_counts = lambda: {key: int(value) for key, value in lines()}
    cpu, calls, start_time = rig.cpu_seconds(pid), io_counts(), time.monotonic()
    time.sleep(args.idle)
    took = time.monotonic() - start_time
    after = io_counts()
    row.update(idle_s=round(took, 1), cpu_share=round((rig.cpu_seconds(pid) - cpu) / took, 5), reads=after["syscr"] - calls["syscr"],
               writes=after["syscw"] - calls["syscw"])
    if shutil.which("strace"):
        # SQLite takes its locks with fcntl: even a query that reads only cached pages is seen there.
        traced = subprocess.run(["timeout", "-s", "INT", "10", "strace", "-f", "-c", "-e", "trace=fcntl,pread64,pwrite64,fsync,fdatasync", "-p", str(pid)],
                                capture_output=True, text=True)
        counts = {fields[-1]: int(fields[3]) for fields in (line.split() for line in traced.stderr.splitlines()) if len(fields) >= 5 and fields[3].isdigit()}
        row["store_calls_10s"] = counts.get("total", 0)
    row["appends_idle"] = pointsman.metrics()["pointsman_append_batch_events_count"] - appended
    rig.stop(pointsman.process)
    row["ready_s"] = round(pointsman.start(), 3)
    time.sleep(2)
    row["rss_after_restart_mb"] = round(rig.rss_mb(pointsman.process.pid), 1)
    emit(row)
    rig.stop(pointsman.process)


def finished(folder, steps, args, emit):
    pointsman = rig.Pointsman(folder, steps.url, [SMALL], name="finished")
    by = pointsman.start_method(args.by)
    row = dict(work="finished", by=by)
    start_many(pointsman, "computes", by, RUNS_FINISHED, 32, row)
    rig.stop(pointsman.process)
    for n in range(args.rounds):
        row = dict(row, round=n, ready_s=round(pointsman.start(), 3), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1))
        for key, query in (("list_ms", "limit=50"), ("list_workflow_ms", "workflow=computes&limit=50"), ("list_open_ms", "status=open&limit=50"),
                           ("list_failed_ms", "status=failed&limit=50")):
            spent = []
            for _ in range(20):
                start_time = time.perf_counter()
                list_runs(pointsman, query)
                spent.append((time.perf_counter() - start_time) * 1e3)
            row[key] = round(statistics.median(spent), 2)
            row[key.replace("_ms", "_max_ms")] = round(max(spent), 2)
        spent = []
        for _ in range(10):
            start_time = time.perf_counter()
            subprocess.run([rig.BINARY, "runs", "list", "--admin", pointsman.admin], check=True, capture_output=True)
            spent.append((time.perf_counter() - start_time) * 1e3)
        row["command_list_ms"] = round(statistics.median(spent), 2)
        emit(row)
        rig.stop(pointsman.process)


BENCHMARKS = {"in-flight": in_flight, "for-each": for_each, "children": children, "undo": undo, "waiting": waiting, "finished": finished}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=20, help="seconds for which the idle process is measured")
    parser.add_argument("--by", choices=["auto", "api", "route"], default="auto", help="how runs are started; auto: by the API where the binary has it")
    parser.add_argument("--dir", help="where the databases go: a folder on a disk")
    parser.add_argument("--keep", help="leave the database of `for-each` in this folder")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    if unknown := [name for name in args.benchmarks if name not in BENCHMARKS]:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rig.require("nginx", "wrk")
    busy, rows = rig.busy_share(), []

    def emit(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    work_folder, disk = rig.work_folder(args.dir)
    with work_folder as folder:
        fsync = rig.fsync_us(folder)
        steps = rig.StepService(folder)
        for name in args.benchmarks or BENCHMARKS:
            BENCHMARKS[name](folder, steps, args, emit)
    notes = [f"machine: {rig.machine()}; disk {disk}, write + fdatasync {fsync:.0f} us; {busy:.0%} of the cores busy with other load before the start",
             f"command: python3 tests/bench/engine_alone.py {' '.join(sys.argv[1:])}",
             *rig.medians(rows, ("work", "count"), ("took_s", "steps_per_s", "p50_ms", "p99_ms", "cpu_us_per_step"))]
    for note in notes:
        print(note)
    if args.rows:
        rig.write_rows(args.rows, rows, notes)
    if any(row.get("bad") or row.get("effects_twice") for row in rows):
        sys.exit("requests failed or effects were performed twice: see `bad` and `effects_twice` in the rows")


main()
