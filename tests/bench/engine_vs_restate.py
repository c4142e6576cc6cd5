#!/usr/bin/env python3
"""Our engine against Restate: the same steps, the same step service, fsync on both sides, in one run on one machine.

Workloads: ten POSTs one after the other with one client (p50, p99) and with 32 clients (durable steps/s; ours also with
a step service that is not declared `keyed`, where a call is never repeated blindly); ten POSTs at the same time with one
client (p50); memory at rest. Both systems stay up and idle while the other is measured; rounds
alternate A B, B A, … so that a drifting machine drifts for both. The step service (nginx) writes down every effect
with its key: what it counted and what came twice stands in the rows. Nothing here is a pass or a fail.

    cargo build --release && python3 tests/bench/engine_vs_restate.py [--rounds 5] [--seconds 5] [--rows FILE]

Needs: nginx, wrk (Debian packages of these names), node and npm. Restate's server and SDK are installed once, by name,
outside the tree (--cache).

Durability: ours commits to SQLite with synchronous=FULL before an effect leaves and before an answer. Restate as it
comes: its log-server's write-ahead log is fsynced (`rocksdb-disable-wal-fsync = false`, set here once more), one node.
Both files are on the same disk.

Unfair to Restate: its steps run in a process of their own (that is its model), in JavaScript on one thread, so that
each step crosses two more process borders, and that process is not counted as its memory (it stands in a column of its
own). It reserves memory for caches by default, and is built to be spread over machines. Unfair to us: Restate writes
one record per step, when it has ended; ours writes one before it leaves and one after, so that a crash can tell which
step was under way, and keeps request and reply.
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
        until = time.monotonic() + 60
        while True:
            status, text = rig.ask(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{sdk}"})
            if status in (200, 201):
                break
            if time.monotonic() > until:
                sys.exit(f"restate does not take the deployment: {status} {text}")
            time.sleep(0.2)
        # The npm package starts the server from a small node process: that one is not counted.
        self.pid = next((pid for pid in rig.family(self.process.pid) if "restate-server" in os.readlink(f"/proc/{pid}/exe")), self.process.pid)

    def target(self, workflow):
        return f"http://127.0.0.1:{self.ingress}/bench/{'sequence' if workflow == SEQUENCE else 'fan'}", '{"n":1}'


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--seconds", type=int, default=5)
    ask.add_argument("--by", choices=["auto", "api", "route"], default="auto", help="how our runs are started; auto: by the API where the binary has it")
    ask.add_argument("--cache", type=Path, default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pointsman-bench")
    ask.add_argument("--dir", help="where the databases go: a folder on a disk")
    ask.add_argument("--rows", help="write the raw rows here as CSV")
    args = ask.parse_args()
    rig.need("nginx", "wrk", "node", "npm")
    versions = install(args.cache)
    busy = rig.others_busy()
    held, disk = rig.work_folder(args.dir)
    with held as folder:
        fsync = rig.fsync_us(folder)
        steps = rig.Steps(folder)
        ours = rig.Ours(folder, steps.url, [rig.sequence(10), rig.fan(10), rig.sequence(10, "once", name=UNKEYED)])
        peer = Restate(folder, args.cache, steps.port)
        by = ours.way(args.by)
        target = {"ours": lambda workflow: ours.target(workflow, by), "restate": peer.target}
        pids = {"ours": ours.process.pid, "restate": peer.pid}
        rows = []

        def memory(when):
            for who, pid in pids.items():
                row = dict(work="memory", round=when, who=who, rss_mb=round(rig.rss_mb(pid), 1))
                if who == "restate":
                    row["sdk_rss_mb"] = round(rig.rss_mb(peer.sdk.pid), 1)
                rows.append(row)
                print(json.dumps(row), flush=True)

        for who in target:  # both answer before anything is measured
            for workflow in (SEQUENCE, FAN):
                status, text = rig.ask(*target[who](workflow)[:1], json.loads(target[who](workflow)[1]))
                if status != 200:
                    sys.exit(f"{who} answers {workflow} with {status}: {text}")
        time.sleep(5)
        memory("fresh")
        steps.effects()
        for n in range(-1, args.rounds):  # round -1 warms up
            for work, workflow, clients in (("sequence, 1 client", SEQUENCE, 1), ("sequence, 32 clients", SEQUENCE, 32), ("not keyed, 32 clients", UNKEYED, 32), ("fan-out, 1 client", FAN, 1)):
                for who in ("ours", "restate") if n % 2 else ("restate", "ours"):
                    if workflow == UNKEYED and who != "ours":
                        continue  # there is no such difference there
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
        f"machine: {rig.machine()}; disk {disk}, write + fdatasync {fsync:.0f} us; {busy:.0%} of the cores busy with something else before the start",
        f"command: python3 tests/bench/engine_vs_restate.py {' '.join(sys.argv[1:])}",
        f"ours by {by}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()) + f", node {subprocess.run(['node', '--version'], capture_output=True, text=True).stdout.strip()}"]
    for note in notes:
        print(note)

    def compare(label, work, key, better):
        a, b = ([row[key] for row in rows if row["work"] == work and row["who"] == who] for who in ("ours", "restate"))
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
    compare("memory, fresh and after, MB", "memory", "rss_mb", "at most 40 MB, also after the load")
    if args.rows:
        rig.write_rows(args.rows, rows, notes)
    if any(row.get("bad") or row.get("effects_twice") for row in rows):
        sys.exit("something went wrong: see `bad` and `effects_twice`")


main()
