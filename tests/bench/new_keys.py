#!/usr/bin/env python3
"""New retry keys on a route that legacy answers: what one costs, and that kill -9 loses none of them.

The release binary with a route in `off` that has a workflow; every request of wrk has a new `Idempotency-Key`, which is
written to the key file before legacy is called. In the same run: the same requests without a key, and nginx as a proxy
in front of the same service. Rounds alternate. After the last round one more load of keys is cut off by kill -9 while it
runs; the process comes back with the route in `live`, and every key that legacy has taken in that load is sent again.

    cargo build --release && python3 tests/bench/new_keys.py [--rounds 5] [--seconds 4] [--rows FILE]

CPU is user and system time of the proxy with all its threads, per request. `not_noted` are requests whose key could not
be written in time (`pointsman_retry_keys_unnoted_total`). Exits with 1 if a retry of a key that legacy took was performed
by the engine; no other figure passes or fails. Needs: nginx, wrk (Debian packages of these names).
"""
import argparse, asyncio, json, re, subprocess, sys, time
from pathlib import Path

import rig

BODY = '{"sku":"apple"}'
WORKFLOW = "workflow: charge\nsteps:\n  charge: { call: 'POST ${services.shop}/charges' }\nrespond: { status: 200, body: { by: engine } }\n"


class System:
    """Pointsman with one route, and nginx as a proxy, both in front of the same service."""

    def __init__(self, folder):
        self.folder = folder
        self.shop = rig.StepService(folder)
        self.port, self.admin_port, self.nginx_port = (rig.free_port() for _ in range(3))
        self.flags = folder / "flags"
        for name in ("routes", "workflows"):
            (self.flags / name).mkdir(parents=True)
        (self.flags / "pointsman.yaml").write_text(
            f"listen: 127.0.0.1:{self.port}\nadmin: {{ listen: 127.0.0.1:{self.admin_port} }}\nservices: {{ shop: '{self.shop.url}' }}\n"
            f"default_legacy: shop\nstore: 'sqlite:{folder}/bench.db'\n")
        (self.flags / "workflows/charge.yaml").write_text(WORKFLOW)
        self.set_state("'off'")
        self.nginx = rig.start(["nginx", "-c", self.nginx_file()])
        rig.wait_port(self.nginx_port, "nginx", self.nginx)
        self.start()

    def nginx_file(self):
        temp = "".join(f"{kind}_temp_path {self.folder}/proxy-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = self.folder / "proxy.conf"
        path.write_text(f"""worker_processes 2; daemon off; pid {self.folder}/proxy.pid; error_log {self.folder}/proxy.err;
events {{ worker_connections 4096; }}
http {{ {temp} access_log off; keepalive_requests 1000000000;
upstream shop {{ server 127.0.0.1:{self.shop.port}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{self.nginx_port} backlog=4096; location / {{ proxy_pass http://shop; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_set_header Host $host; proxy_buffering off; }} }} }}""")
        return path

    def set_state(self, state):
        (self.flags / "routes/orders.yaml").write_text(
            f"routes:\n- id: orders\n  match: {{ method: POST, path: /orders }}\n  legacy: shop\n  workflow: charge\n  state: {state}\n")

    def start(self):
        self.process = rig.start([rig.BINARY, "serve", "--flags", self.flags], stderr=open(self.folder / "log", "a"))
        rig.wait_port(self.admin_port, "pointsman", self.process)
        while rig.http(f"http://127.0.0.1:{self.admin_port}/readyz")[0] != 200:
            time.sleep(0.01)
        rig.wait_port(self.port, "pointsman", self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()
        rig.STARTED_PROCESSES.remove(self.process)

    def not_noted(self):
        text = rig.http(f"http://127.0.0.1:{self.admin_port}/metrics")[1]
        return sum(int(float(n)) for n in re.findall(r"^pointsman_retry_keys_unnoted_total\S* (\S+)$", text, re.M))

    def keys_of_legacy(self):
        """The keys in nginx's log since the last call, and how often the engine's step was performed."""
        time.sleep(0.5)  # nginx flushes the log every 200 ms
        with open(self.shop.log) as f:
            f.seek(self.shop.log_offset)
            lines = [line.split() for line in f]
            self.shop.log_offset = f.tell()
        return [line[1] for line in lines if line[0] == "/orders"], sum(line[0] == "/charges" for line in lines)


def command(system, port, seconds, script):
    path = system.folder / "load.lua"
    path.write_text(f'wrk.method = "POST"\nwrk.body = [[{BODY}]]\nwrk.headers["content-type"] = "application/json"\n{script}')
    return ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-s", path, f"http://127.0.0.1:{port}/orders"]


def new_keys(prefix):
    """A new key for each request."""
    return f'local n = 0\nrequest = function() n = n + 1 wrk.headers["idempotency-key"] = "{prefix}-" .. n return wrk.format() end\n'


async def send_again(port, keys, connections=32):
    """Sends a request with each of these keys; returns the answers that are not legacy's."""
    left, wrong = iter(keys), []

    async def connection():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for key in left:
            writer.write(f"POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n"
                         f"idempotency-key: {key}\r\n\r\n{BODY}".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            body = await reader.readexactly(int(re.search(r"content-length: (\d+)", head).group(1)))
            if " 200 " not in head.splitlines()[0] or body != b'{"ok":1}':
                wrong.append(f"{key}: {head.splitlines()[0]} {body[:200]}")
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return wrong


def figures(out):
    requests, elapsed = re.search(r"(\d+) requests in ([\d.]+)s", out).groups()
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", out).groups()
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    return int(requests), float(elapsed), round(float(p99) * rig.MS_PER_UNIT[unit], 3), bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--dir", help="the parent of the work folder, on a real disk (default: the build directory)")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    rig.require("nginx", "wrk")
    if not rig.BINARY.exists():
        sys.exit("build first: cargo build --release")
    busy = rig.busy_share()
    parent, kind = rig.work_folder(args.dir)
    with parent as folder:
        system, rows = System(Path(folder)), []
        for n in range(-1, args.rounds):  # round -1 warms up
            targets = [("new key", system.port, True), ("no key", system.port, False), ("nginx", system.nginx_port, True)]
            for who, port, keyed in targets if n % 2 else reversed(targets):
                pid = system.nginx.pid if who == "nginx" else system.process.pid
                cpu, not_noted = rig.cpu_seconds(pid), system.not_noted()
                script = new_keys(f"{who.replace(' ', '-')}-{n}") if keyed else ""
                out = subprocess.run(command(system, port, 1 if n < 0 else args.seconds, script), capture_output=True, text=True, check=True).stdout
                requests, elapsed, p99, bad = figures(out)
                cpu = rig.cpu_seconds(pid) - cpu
                if n >= 0:
                    rows.append(dict(round=n, who=who, requests=requests, bad=bad, requests_per_s=round(requests / elapsed), p99_ms=p99,
                                     cpu_us_per_request=round(cpu / requests * 1e6, 2), not_noted=system.not_noted() - not_noted))
                    print(json.dumps(rows[-1]), flush=True)
        system.keys_of_legacy()
        load = subprocess.Popen(command(system, system.port, args.seconds, new_keys("killed")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        begin = time.monotonic()
        time.sleep(max(1, args.seconds - 1))  # the moment of the kill within the load
        not_noted, took = system.not_noted(), time.monotonic() - begin
        system.kill()
        load.communicate()
        taken, _ = system.keys_of_legacy()
        system.set_state("live\n  force: { reason: bench }")
        system.start()
        wrong = asyncio.run(send_again(system.port, taken))
        again, by_engine = system.keys_of_legacy()
        strayed = len(set(taken) - set(again))
        rows.append(dict(round=args.rounds, who="kill -9", requests=len(taken), bad=len(wrong), requests_per_s=round(len(taken) / took),
                         not_noted=not_noted, strayed=strayed, by_engine=by_engine))
        print(json.dumps(rows[-1]))
        print("\n".join(wrong[:5]))
        notes = [f"machine: {rig.machine()}; file system {kind}; busy before: {busy:.0%}",
                 f"32 keep-alive connections, {args.rounds} rounds of {args.seconds} s; `requests` of `kill -9`: keys that legacy took before the kill, all sent again"]
        for note in notes + list(rig.medians(rows, ["who"], ["requests_per_s", "cpu_us_per_request", "p99_ms", "not_noted"])):
            print(note)
        if args.rows:
            rig.write_rows(args.rows, rows, notes)
        if by_engine or strayed:
            sys.exit(f"{by_engine} orders performed by the engine, {strayed} retries that legacy did not get")


main()
