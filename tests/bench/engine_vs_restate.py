#!/usr/bin/env python3
"""Pointsman's engine against Restate: the same steps, the same step service, fsync on both sides, in one run on one machine.

Workloads: ten POSTs one after the other with one client (p50, p99) and with 32 clients (durable steps/s; Pointsman also
with a step service that is not declared `keyed`, where a call with an unknown outcome is not repeated); ten POSTs at the
same time with one client (p50); memory at rest. Each system stays up and idle while the other is measured. Rounds
alternate A B, B A, … so that a drift of the machine affects both alike. The step service (nginx) logs every effect with
its key; the rows have the number of effects and of repeated keys. No figure passes or fails.

    cargo build --release && python3 tests/bench/engine_vs_restate.py [--rounds 5] [--seconds 5] [--rows FILE]

Needs: nginx, wrk (Debian packages of these names), node and npm. Restate's server and SDK are installed once, by name,
outside the tree (--cache).

Durability: Pointsman commits to SQLite with synchronous=FULL before an effect is sent and before an answer. Restate has
its default configuration: its log-server's write-ahead log is fsynced (`rocksdb-disable-wal-fsync = false`, also set here explicitly), one node.
Both files are on the same disk.

Unfair to Restate: its steps run in a process of their own (that is its model), in JavaScript on one thread, so that
each step crosses two more process boundaries; the memory of that process is in a column of its own. It reserves memory
for caches by default, and is designed to be distributed over machines. Unfair to Pointsman: Restate writes one record per
step, when the step has ended; Pointsman writes one before a call is sent and one after it, so that after a crash it is
known which call was in flight, and stores request and reply.
"""
import argparse, json, os, statistics, subprocess, sys, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig

PACKAGES = ["@restatedev/restate-server", "@restatedev/restate-sdk"]
SEQUENCE, FAN, UNKEYED = "sequence-10", "fan-10", "unkeyed-10"


def install(cache):
    if not all((cache / "node_modules" / package).exists() for package in PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", cache, "--no-audit", "--no-fund", "--silent", *PACKAGES], check=True)
    return {package: json.loads((cache / "node_modules" / package / "package.json").read_text())["version"] for package in PACKAGES}


class Restate:
    def __init__(self, folder, cache, steps_port):
        self.ingress, admin, node, sdk = (rig.free_port() for _ in range(4))
        base = Path(folder) / "restate"
        base.mkdir()
        variables = dict(
            os.environ, RESTATE_INGRESS__BIND_ADDRESS=f"127.0.0.1:{self.ingress}", RESTATE_ADMIN__BIND_ADDRESS=f"127.0.0.1:{admin}",
            RESTATE_BIND_ADDRESS=f"127.0.0.1:{node}", RESTATE_LISTEN_MODE="tcp", RESTATE_DISABLE_TELEMETRY="true", DO_NOT_TRACK="1",
            RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC="false", RESTATE_BIFROST__LOCAL__ROCKSDB_DISABLE_WAL_FSYNC="false")
        server = cache / "node_modules/.bin/restate-server"
        self.process = rig.start([server, "--base-dir", base, "--node-name", "bench", "--no-logo"],
                                 env=variables, stdout=open(base / "log", "w"), stderr=subprocess.STDOUT, cwd=base)
        self.sdk = rig.start(["node", Path(__file__).with_name("restate_service.mjs"), cache, sdk, steps_port],
                             env=dict(os.environ, RESTATE_LOGGING="ERROR", NODE_ENV="production"))
        for port, what, process in ((sdk, "the SDK", self.sdk), (admin, "restate-server", self.process), (self.ingress, "restate-server", self.process)):
            rig.wait_port(port, what, process)
        deadline = time.monotonic() + 60
        while True:
            status, text = rig.http(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{sdk}"})
            if status in (200, 201):
                break
            if time.monotonic() > deadline:
                sys.exit(f"restate does not accept the deployment: {status} {text}")
            time.sleep(0.2)
        # The npm package starts the server from a small node process, which is not measured.
        self.pid = next((pid for pid in rig.process_tree(self.process.pid) if "restate-server" in os.readlink(f"/proc/{pid}/exe")), self.process.pid)

    def target(self, workflow):
        return f"http://127.0.0.1:{self.ingress}/bench/{'sequence' if workflow == SEQUENCE else 'fan'}", '{"n":1}'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--by", choices=["auto", "api", "route"], default="auto", help="how Pointsman's runs are started; auto: by the API where the binary has it")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pointsman-bench")
    parser.add_argument("--dir", help="where the databases go: a folder on a disk")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    rig.require("nginx", "wrk", "node", "npm")
    versions = install(args.cache)
    busy = rig.busy_share()
    work_folder, disk = rig.work_folder(args.dir)
    with work_folder as folder:
        fsync = rig.fsync_us(folder)
        steps = rig.StepService(folder)
        pointsman = rig.Pointsman(folder, steps.url, [rig.sequence(10), rig.fan(10), rig.sequence(10, "once", name=UNKEYED)])
        restate = Restate(folder, args.cache, steps.port)
        by = pointsman.start_method(args.by)
        target = {"ours": lambda workflow: pointsman.target(workflow, by), "restate": restate.target}
        pids = {"ours": pointsman.process.pid, "restate": restate.pid}
        rows = []

        def memory(when):
            for who, pid in pids.items():
                row = dict(work="memory", round=when, who=who, rss_mb=round(rig.rss_mb(pid), 1))
                if who == "restate":
                    row["sdk_rss_mb"] = round(rig.rss_mb(restate.sdk.pid), 1)
                rows.append(row)
                print(json.dumps(row), flush=True)

        for who in target:  # checks that both work before anything is measured
            for workflow in (SEQUENCE, FAN):
                status, text = rig.http(*target[who](workflow)[:1], json.loads(target[who](workflow)[1]))
                if status != 200:
                    sys.exit(f"{who} answers {workflow} with {status}: {text}")
        time.sleep(5)
        memory("fresh")
        steps.effects()
        for n in range(-1, args.rounds):  # round -1 warms up
            for work, workflow, clients in (("sequence, 1 client", SEQUENCE, 1), ("sequence, 32 clients", SEQUENCE, 32), ("not keyed, 32 clients", UNKEYED, 32), ("fan-out, 1 client", FAN, 1)):
                for who in ("ours", "restate") if n % 2 else ("restate", "ours"):
                    if workflow == UNKEYED and who != "ours":
                        continue  # Restate has no such distinction
                    before = rig.cpu_seconds(pids[who])
                    load = rig.wrk(folder, *target[who](workflow), clients, 2 if n < 0 else args.seconds)
                    spent = rig.cpu_seconds(pids[who]) - before
                    effects, twice = steps.effects()
                    if n < 0:
                        continue
                    row = dict(work=work, round=n, who=who, **load, steps_per_s=round(load["runs_per_s"] * 10), effects=effects, effects_twice=twice,
                               cpu_us_per_step=round(spent / max(1, load["runs"] * 10) * 1e6, 1))
                    rows.append(row)
                    print(json.dumps(row), flush=True)
        time.sleep(10)
        memory("after")
    notes = [
        f"machine: {rig.machine()}; disk {disk}, write + fdatasync {fsync:.0f} us; {busy:.0%} of the cores busy with other load before the start",
        f"command: python3 tests/bench/engine_vs_restate.py {' '.join(sys.argv[1:])}",
        f"ours: runs started by {by}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()) + f", node {subprocess.run(['node', '--version'], capture_output=True, text=True).stdout.strip()}"]
    for note in notes:
        print(note)

    def compare(label, work, key, better, of=None):
        a, b = ([row[key] for row in rows if row["work"] == work and row["who"] == who and of in (None, row["round"])] for who in ("ours", "restate"))
        ratios = sorted(x / y for x, y in zip(a, b))
        notes.append(f"{label:34} ours {statistics.median(a):10.2f}  restate {statistics.median(b):10.2f}  ratio {statistics.median(ratios):.3f} "
                     f"({ratios[0]:.3f} to {ratios[-1]:.3f}); to reach: {better}")
        print(notes[-1])

    def alone(label, key, work, against, better):
        a, b = ([row[key] for row in rows if row["work"] == which and row["who"] == "ours"] for which in (work, against))
        notes.append(f"{label:34} ours {statistics.median(a):10.2f}  {against}: {statistics.median(b):.2f}  ratio {statistics.median(x / y for x, y in zip(a, b)):.3f}; to reach: {better}")
        print(notes[-1])

    compare("10 steps, 1 client, p50 ms", "sequence, 1 client", "p50_ms", "at most 0.20")
    compare("10 steps, 1 client, p99 ms", "sequence, 1 client", "p99_ms", "at most 0.25")
    compare("10 steps, 32 clients, steps/s", "sequence, 32 clients", "steps_per_s", "at least 8")
    compare("10 steps, 32 clients, p99 ms", "sequence, 32 clients", "p99_ms", "none set")
    compare("10 steps, 32 clients, CPU us/step", "sequence, 32 clients", "cpu_us_per_step", "at most 90 us of ours")
    alone("not keyed, 32 clients, steps/s", "steps_per_s", "not keyed, 32 clients", "sequence, 32 clients", "at least 0.85")
    compare("fan-out of 10, 1 client, p50 ms", "fan-out, 1 client", "p50_ms", "at most 0.20")
    compare("memory, fresh, MB", "memory", "rss_mb", "at most 40 MB", of="fresh")
    compare("memory, after the load, MB", "memory", "rss_mb", "at most 40 MB", of="after")
    if args.rows:
        rig.write_rows(args.rows, rows, notes)
    if any(row.get("bad") or row.get("effects_twice") for row in rows):
        sys.exit("requests failed or effects were performed twice: see `bad` and `effects_twice` in the rows")


main()
