#!/usr/bin/env python3
"""The cost of the proxy with every route in `off`, against nginx, HAProxy and Envoy in the same run.

All proxies stand in front of one nginx origin with keep-alive connections to it, use two threads or workers, write no
access log and set X-Forwarded-For. In each round every proxy is measured once by every figure, in shuffled order, so that
a drift of the machine affects all alike; round 0 warms up and is not kept. The main figure is the CPU time of the proxy per
request, from the scheduler's counters (schedstat), as a ratio to nginx in the same round. No figure passes or fails.

    cargo build --release && ENVOY=PATH python3 tests/bench/proxies.py [--rounds 7] [--seconds 3] [--only NAME,…] [--rows FILE]

Needs: nginx, haproxy, wrk, nghttp2-client (h2load), openssl; Envoy is left out where there is none.
Unfair to Pointsman: it counts metrics per route, matches its routes, adds a traceparent and starts an engine with a store,
which the others do not do. Unfair to nginx: its buffering is off, as a streaming proxy's; with it, uploads cost it more.
"""
import argparse, collections, contextlib, os, random, re, resource, socket, ssl, statistics, subprocess, sys, tempfile, threading, time
from pathlib import Path

import proxy_candidates as candidates
from rig import busy_share, http, machine, require, work_folder, write_rows

MS_PER_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def wrk(folder, port, seconds, connections, path, script=None):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}{path}"]
    if script:
        file = Path(folder) / "script.lua"
        file.write_text(script)
        command[1:1] = ["-s", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {share: float(value) * MS_PER_UNIT[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s|m)\b", out)}
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    bad += sum(int(n) for line in re.findall(r"Socket errors: (.*)", out) for n in re.findall(r"\d+", line))
    return dict(requests=int(re.search(r"(\d+) requests in", out).group(1)), bad=bad, p50_ms=round(latency["50"], 3), p99_ms=round(latency["99"], 3))


def h2load(folder, options, url):
    log = Path(folder) / "h2load.log"
    log.unlink(missing_ok=True)
    out = subprocess.run(["h2load", "-t1", f"--log-file={log}", *options, url], capture_output=True, text=True, check=True).stdout
    done, ok = int(re.search(r"(\d+) done", out).group(1)), int(re.search(r"status codes: (\d+) 2xx", out).group(1))
    micros = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line.count("\t") >= 2)
    at = lambda share: round(micros[min(len(micros) - 1, int(len(micros) * share))] / 1e3, 3)
    return dict(requests=done, bad=done - ok, p50_ms=at(0.5), p99_ms=at(0.99))


@contextlib.contextmanager
def every_second(url):
    """Sends a request every second while the block runs."""
    stop = threading.Event()

    def send():
        while True:
            http(url)
            if stop.wait(1):
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- the figures: each takes a candidate and returns a row --------------------------------------------------------------
class Figures:
    def __init__(self, folder, seconds, connections):
        self.folder, self.seconds, self.connections = folder, seconds, connections
        self.key = 0

    def get_saturated(self, at, path="/r0/1"):
        return self.by_request(at, lambda: wrk(self.folder, at.port, self.seconds, self.connections, path))

    def get_2000_per_s(self, at):
        rate = 2000 / self.connections
        options = ["--h1", "-c", str(self.connections), f"--rps={rate}", "-D", str(self.seconds)]
        return self.by_request(at, lambda: h2load(self.folder, options, f"http://127.0.0.1:{at.port}/r0/1"))

    def post_64k(self, at):
        script = 'wrk.method = "POST"\nwrk.body = string.rep("x", 65536)\n'
        return self.by_request(at, lambda: wrk(self.folder, at.port, self.seconds, 8, "/upload", script))

    def post_new_key(self, at):
        """A route with workflow, retry key and instances: each request has a key of its own."""
        self.key += 1
        script = (f'local n = 0\nfunction request()\n  n = n + 1\n  return wrk.format("POST", "/orders", '
                  f'{{ ["idempotency-key"] = "{os.getpid()}-{self.key}-" .. n }}, "{{}}")\nend\n')
        return self.by_request(at, lambda: wrk(self.folder, at.port, self.seconds, self.connections, "/orders", script))

    def get_follower(self, at):
        """A route with workflow and pins."""
        return self.get_saturated(at, "/orders/17")

    def download(self, at):
        row = self.by_request(at, lambda: wrk(self.folder, at.port, self.seconds, 4, "/large"))
        row["mb_per_cpu_s"] = round(candidates.LARGE_BYTES / row["cpu_us"], 1)
        return row

    def egress_get(self, at):
        """Legacy's calls through the egress listener, by base URL; a peer passes them on as it does any request. For ten
        minutes after a compared request calls are copied, as in `egress_watched`: without it, only where it never ran."""
        return self.by_request(at, lambda: wrk(self.folder, at.egress_port, self.seconds, self.connections, at.egress_path + "/r0/1"))

    def egress_watched(self, at):
        """The same while a request is compared whose calls they may be: each is copied and looked up."""
        with every_second(f"http://127.0.0.1:{at.port}{candidates.WATCHED}"):
            return self.egress_get(at)

    def egress_post_64k(self, at):
        script = 'wrk.method = "POST"\nwrk.body = string.rep("x", 65536)\n'
        return self.by_request(at, lambda: wrk(self.folder, at.egress_port, self.seconds, 8, at.egress_path + "/upload", script))

    def egress_download(self, at):
        row = self.by_request(at, lambda: wrk(self.folder, at.egress_port, self.seconds, 4, at.egress_path + "/large"))
        row["mb_per_cpu_s"] = round(candidates.LARGE_BYTES / row["cpu_us"], 1)
        return row

    def h2_get(self, at):
        options = ["-c8", "-m16", "-D", str(self.seconds), f"--connect-to=127.0.0.1:{at.tls_port}"]
        return self.by_request(at, lambda: h2load(self.folder, options, f"https://{candidates.NAME}:{at.tls_port}/r0/1"))

    def tls_full(self, at):
        return self.handshakes(at, False)

    def tls_resumed(self, at):
        return self.handshakes(at, True)

    def handshakes(self, at, resumed, count=300):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        session, reused = None, 0
        before = None
        for n in range(count + 1):
            if n == 1:  # the first one only gets the session
                before = at.cpu_us()
            with socket.create_connection(("127.0.0.1", at.tls_port)) as raw:
                with context.wrap_socket(raw, server_hostname=candidates.NAME, session=session if resumed else None) as tls:
                    # Tickets of TLS 1.3 come after the handshake.
                    tls.sendall(f"GET /r0/1 HTTP/1.1\r\nHost: {candidates.NAME}\r\nConnection: close\r\n\r\n".encode())
                    while tls.recv(65536):
                        pass
                    reused += tls.session_reused
                    session = session or tls.session
        return dict(requests=count, bad=count - reused if resumed else reused, cpu_us=round((at.cpu_us() - before) / count, 1))

    def idle_memory(self, at, count=4000):
        before, sockets = at.memory_kib(), []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", at.port))
            client.sendall(f"GET /r0/1 HTTP/1.1\r\nHost: {candidates.NAME}\r\n\r\n".encode())
            got = b""
            while len(got) < candidates.SMALL_BYTES:
                got += client.recv(65536)
            sockets.append(client)
        time.sleep(10)  # Pointsman parks a connection after a second, and returns freed memory every five seconds
        grown = at.memory_kib() - before
        for client in sockets:
            client.close()
        return dict(requests=count, bad=0, kib_per_connection=round(grown / count, 2))

    def by_request(self, at, run):
        before = at.cpu_us()
        row = run()
        row["cpu_us"] = round((at.cpu_us() - before) / max(1, row["requests"]), 2)
        return row


PER_ROUND = ["get_saturated", "get_follower", "post_new_key", "get_2000_per_s", "post_64k", "download", "egress_get", "egress_watched", "egress_post_64k", "egress_download", "h2_get", "tls_full", "tls_resumed"]
ALL = ["rest_memory", *PER_ROUND, "routes", "idle_memory"]


def measure(figures, names, peers, many_routes, rounds):
    rows = []

    def add(row):
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    if "rest_memory" in names:
        time.sleep(2)
        for at in peers:
            add(dict(round=1, figure="rest_memory", who=at.name, mib=round(at.memory_kib() / 1024, 1)))
    for number in range(rounds + 1):
        pairs = [(name, at) for name in PER_ROUND if name in names for at in peers]
        pairs += [("routes", at) for at in many_routes if "routes" in names]
        random.shuffle(pairs)
        pairs.sort(key=lambda pair: PER_ROUND.index(pair[0]) if pair[0] in PER_ROUND else 99)
        for name, at in pairs:
            try:
                row = getattr(figures, "get_saturated" if name == "routes" else name)(at)
            except Exception as error:  # one that cannot do it has no row
                print(f"{name} {at.name}: {error}", file=sys.stderr)
                continue
            if number > 0:
                add(dict(round=number, figure=name, who=at.name, **row))
    if "idle_memory" in names:
        for at in peers:
            add(dict(round=1, figure="idle_memory", who=at.name, **figures.idle_memory(at)))
    return rows


def summary(rows):
    """A line for each figure and proxy: the median, the range, and the median of the ratios to nginx round by round."""
    values = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        for key in ("cpu_us", "p50_ms", "p99_ms", "mb_per_cpu_s", "mib", "kib_per_connection"):
            if key in row:
                values[row["figure"], key][row["who"]][row["round"]] = row[key]
    for (figure, key), by_proxy in values.items():
        base = by_proxy.get("nginx") or by_proxy.get("10 routes") or {}
        for who, per_round in by_proxy.items():
            all_values = per_round.values()
            ratios = [value / base[number] for number, value in per_round.items() if base.get(number)]
            ratio = f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
            yield f"{figure:15} {key:18} {who:12} {statistics.median(all_values):9.2f} ({min(all_values):.2f} to {max(all_values):.2f}){ratio}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", default=",".join(ALL), help="figures, separated by commas: " + ", ".join(ALL))
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    parser.add_argument("--dir", help="a folder on a disk, for stores")
    args = parser.parse_args()
    names = args.only.split(",")
    unknown = [name for name in names if name not in ALL]
    if unknown:
        sys.exit(f"no such figure: {', '.join(unknown)}. There are: {', '.join(ALL)}")
    require("nginx", "haproxy", "wrk", "h2load", "openssl")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    busy = busy_share()
    temporary, _ = work_folder(args.dir)
    with temporary as folder:
        tls = candidates.certificate(folder)
        origin = candidates.origin(folder)
        peers = [candidates.nginx_proxy(folder, origin, tls), candidates.haproxy(folder, origin, tls), candidates.pointsman(folder, origin, tls)]
        envoy = candidates.envoy_binary()
        if envoy:
            peers.append(candidates.envoy(folder, origin, tls, envoy))
        many = [candidates.pointsman(folder, origin, tls, count, f"{count} routes") for count in (10, 1000, 10000)] if "routes" in names else []
        rows = measure(Figures(folder, args.seconds, args.connections), names, peers, many, args.rounds)
    notes = [machine(), f"{args.rounds} rounds of {args.seconds} s, {args.connections} connections; {busy:.0%} of the machine was busy before"]
    print("\n".join(notes))
    for line in summary(rows):
        print(line)
    if args.rows:
        write_rows(args.rows, rows, notes)


main()
