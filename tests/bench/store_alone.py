#!/usr/bin/env python3
"""What our store does alone: appends against bare SQLite, and how long a long run takes to be read and folded.

  appends   1 to 128 callers, 1 or 4 events each, against SQLite itself with the same bytes in batches as large as ours
            were: a row for each event, and a row for each append (`src/store/tests/benchmarks.rs` says what the two leave out)
  long-run  a run of 20,000 events that waits for a signal: read and folded from all of its events, and from its snapshot
            and the events after it; and from outside, how long the response to the signal takes, which includes that the
            run is loaded from the store again

    cargo build --release && python3 tests/bench/store_alone.py [BENCHMARK…] [--rounds 5] [--rows FILE]

Needs: nginx (Debian package of this name), and cargo: the unit tests of a release build do the measuring, so that no
network and no process boundary adds to the figures. No figure passes or fails.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig

ITEMS = 10_000
LONG = """workflow: long
steps:
  item: { for_each: "${request.body.items}", concurrency: 64, call: 'POST ${services.steps}/item', effect: shared, body: { n: "${item}" } }
  first: { needs: [item], set: "${size(steps.item.output)}" }
  go: { needs: [first], wait: { signal: go } }
respond: { status: 200, body: { done: true } }
"""


def run_measuring_test(test, folder, rounds, cargo, **variables):
    """The rows that a measuring test prints."""
    command = ["cargo", "test", "--release", "--lib", *cargo, test, "--", "--ignored", "--exact", "--nocapture"]
    environment = dict(os.environ, TMPDIR=str(folder), POINTSMAN_ROUNDS=str(rounds), **variables)
    process = subprocess.Popen(command, cwd=rig.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("ROW "):
            yield json.loads(line[4:])
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)}: {process.returncode}")


def appends(folder, args, emit):
    for row in run_measuring_test("store::tests::benchmarks::events_a_second", folder, args.rounds, args.cargo):
        emit(row)


def status_of(pointsman, run):
    return json.loads(rig.http(f"{pointsman.admin}/api/v2/orchestrate/run/{run}")[1])["data"]["status"]


def wait_until(what, holds, patience=120):
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"not within {patience} s: {what}")
        time.sleep(0.05)


def long_run(folder, args, emit):
    steps = rig.StepService(folder)
    pointsman = rig.Pointsman(folder, steps.url, [LONG], limits={"api_wait_ms": 100}, name="long-run")
    written = lambda: pointsman.metrics()["pointsman_run_snapshots_total"]
    for n in range(args.rounds):
        asked = {"workflow": "long", "input": {"items": list(range(ITEMS))}}
        status, text = rig.http(f"{pointsman.admin}/api/v2/orchestrate/run", asked)
        run = json.loads(text)["data"]["run_id"]
        wait_until("the run waits", lambda: status_of(pointsman, run) == "waiting_signal")
        time.sleep(3)  # one snapshot a second at most, and one more when the run has moved on since
        if n + 1 == args.rounds:
            break  # the last one is left as it waits, for the test
        began = time.monotonic()
        status, text = rig.http(f"{pointsman.admin}/api/v2/orchestrate/run/{run}/signals/go", {})
        took = time.monotonic() - began
        wait_until("the run ends", lambda: status_of(pointsman, run) == "completed")
        emit(dict(work="signal to a long run", round=n, status=status, ms=round(took * 1e3, 1), snapshots=written(), rss_mb=round(rig.rss_mb(pointsman.process.pid), 1)))
    rig.stop(pointsman.process)
    for row in run_measuring_test("store::tests::benchmarks::read_and_fold", folder, args.rounds, args.cargo, POINTSMAN_STORE=str(pointsman.folder / "bench.db")):
        emit(row)


BENCHMARKS = {"appends": appends, "long-run": long_run}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where the databases go: a folder on a disk")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    parser.add_argument("--cargo", nargs=argparse.REMAINDER, default=[], help="last: more arguments of cargo, such as another profile")
    args = parser.parse_args()
    if unknown := [name for name in args.benchmarks if name not in BENCHMARKS]:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rig.require("nginx", "cargo")
    busy, rows = rig.busy_share(), []

    def emit(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    work_folder, disk = rig.work_folder(args.dir)
    with work_folder as folder:
        fsync = rig.fsync_us(folder)
        for name in args.benchmarks or BENCHMARKS:
            BENCHMARKS[name](folder, args, emit)
    notes = [f"machine: {rig.machine()}; disk {disk}, write + fdatasync {fsync:.0f} us; {busy:.0%} of the cores busy with other load before the start",
             f"command: python3 tests/bench/store_alone.py {' '.join(sys.argv[1:])}", *rig.medians(rows, ("work", "callers", "events", "who", "from"), ("events_per_s", "ours_against_it", "ms"))]
    for note in notes:
        print(note)
    if args.rows:
        rig.write_rows(args.rows, rows, notes)


main()
