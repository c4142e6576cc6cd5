#!/usr/bin/env python3
"""The cost of a route in `off`, as a ratio to nginx in the same run.

Starts an nginx origin (1 KiB static reply), nginx as a proxy in front of it with keep-alive to the origin, and the
release binary with every route `off`. Rounds of wrk alternate between them (A B, B A, …), so that a drift of the machine
affects both alike. CPU is user and system time of the proxy with all its threads and workers, from /proc; the figures are
microseconds of CPU per request, and their ratio pair by pair. No figure passes or fails.

    cargo build --release && python3 tests/bench/off_vs_nginx.py [--rounds 7] [--seconds 5] [--rows FILE]

Needs: nginx, wrk (Debian packages of these names). Unfair to nginx: nothing known. Unfair to Pointsman: it counts
metrics per request and matches a table of five routes, which this nginx does not do.
"""
import argparse, csv, json, os, platform, re, signal, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/pointsman"
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def process_tree(pid):
    out = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            out += process_tree(int(child))
    return out


def cpu_seconds(pid):
    total = 0
    for p in process_tree(pid):
        fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def wait_port(port, what, process):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{what} ended at once with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{what} does not listen on {port}")


def nginx(tmp, name, body):
    conf = Path(tmp) / f"{name}.conf"
    conf.write_text(
        f"""worker_processes 2; daemon off; pid {tmp}/{name}.pid; error_log {tmp}/{name}.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {tmp}/{name}-b; proxy_temp_path {tmp}/{name}-p;
fastcgi_temp_path {tmp}/{name}-f; uwsgi_temp_path {tmp}/{name}-u; scgi_temp_path {tmp}/{name}-s;
{body} }}"""
    )
    return subprocess.Popen(["nginx", "-c", str(conf)], stderr=subprocess.DEVNULL)


def wrk(port, seconds, connections):
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/quotes/1"],
        capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    scale = {"us": 1, "ms": 1e3, "s": 1e6}[p99.group(2)]
    return requests, float(p99.group(1)) * scale, int(bad.group(1)) if bad else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    args = parser.parse_args()
    if not BINARY.exists():
        sys.exit("build first: cargo build --release")
    started = []
    with tempfile.TemporaryDirectory() as tmp:
        try:
            origin, proxied, ours, admin = (free_port() for _ in range(4))
            started.append(nginx(tmp, "origin", f'server {{ listen 127.0.0.1:{origin}; location / {{ default_type text/plain; return 200 "{"x" * 1024}"; }} }}'))
            nginx_proxy = nginx(tmp, "proxy", f"""upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{proxied}; location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; proxy_buffering off; }} }}""")
            started.append(nginx_proxy)
            flags = Path(tmp) / "flags"
            (flags / "routes").mkdir(parents=True)
            (flags / "workflows").mkdir()
            (flags / "pointsman.yaml").write_text(
                f"listen: 127.0.0.1:{ours}\nadmin: {{ listen: 127.0.0.1:{admin} }}\nservices: {{ shop: 'http://127.0.0.1:{origin}' }}\n"
                f"default_legacy: shop\nstore: 'sqlite:{tmp}/bench.db'\n")
            routes = "".join(
                f"  - {{ id: {i}, match: {{ method: {m}, path: '{p}' }}, legacy: shop, state: 'off' }}\n"
                for i, m, p in [("quotes.get", "GET", "/quotes/{id}"), ("orders.create", "POST", "/orders"), ("orders.get", "GET", "/orders/{id}"),
                                ("orders.cancel", "POST", "/orders/{id}/cancel"), ("campaigns", "POST", "/campaigns")])
            (flags / "routes/all.yaml").write_text("routes:\n" + routes)
            pointsman = subprocess.Popen([str(BINARY), "serve", "--flags", str(flags)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            started.append(pointsman)
            for port, what, process in ((origin, "origin", started[0]), (proxied, "nginx", nginx_proxy), (ours, "pointsman", pointsman)):
                wait_port(port, what, process)
            rows = []
            for n in range(-1, args.rounds):  # round -1 warms up
                pair = [("pointsman", ours, pointsman.pid), ("nginx", proxied, nginx_proxy.pid)]
                for who, port, pid in pair if n % 2 else reversed(pair):
                    before = cpu_seconds(pid)
                    requests, p99, bad = wrk(port, 1 if n < 0 else args.seconds, args.connections)
                    cpu = (cpu_seconds(pid) - before) / requests * 1e6
                    if n >= 0:
                        rows.append(dict(round=n, who=who, requests=requests, bad=bad, cpu_us_per_request=round(cpu, 2), p99_us=p99,
                                         requests_per_s=round(requests / args.seconds)))
                        print(json.dumps(rows[-1]), flush=True)
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
    values = lambda who, key: [r[key] for r in rows if r["who"] == who]
    print(f"machine: {os.cpu_count()} cores, {platform.platform()}; {args.rounds} rounds of {args.seconds} s, {args.connections} keep-alive connections, 1 KiB GET")
    for key in ("cpu_us_per_request", "p99_us", "requests_per_s"):
        a, b = values("pointsman", key), values("nginx", key)
        ratios = sorted(x / y for x, y in zip(a, b))
        print(f"{key:20} pointsman {statistics.median(a):10.1f}  nginx {statistics.median(b):10.1f}  ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if args.rows:
        with open(args.rows, "w", newline="") as f:
            out = csv.DictWriter(f, rows[0].keys())
            out.writeheader()
            out.writerows(rows)


main()
