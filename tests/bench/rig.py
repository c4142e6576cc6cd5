"""What the engine's benchmarks share: child processes, the step service, the system under test, wrk, /proc, result rows.

The step service is nginx: it answers each POST with a small JSON body and logs one line per request, with its
Idempotency-Key. `StepService.effects` counts these lines. All systems that are measured call the same service.
"""
import atexit, collections, csv, json, os, platform, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.error, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/pointsman"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STARTED_PROCESSES = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(command, **options):
    process = subprocess.Popen([str(part) for part in command], **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options})
    STARTED_PROCESSES.append(process)
    return process


def stop(process, timeout_s=30):
    """Sends SIGTERM, and SIGKILL after the timeout."""
    if process in STARTED_PROCESSES:
        STARTED_PROCESSES.remove(process)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


atexit.register(lambda: [stop(process, 10) for process in reversed(list(STARTED_PROCESSES))])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def wait_port(port, what, process, timeout_s=60):
    """Waits until the process listens on the port."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{what} ended at once with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{what} does not listen on {port}")


def http(url, body=None, method=None, timeout_s=60, headers={}):
    """Sends one HTTP request with a JSON body; returns (status, text of the reply)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as reply:
        return reply.code, reply.read().decode()


# --- /proc ---------------------------------------------------------------------------------------------------------
def process_tree(pid):
    """The process and all its descendants."""
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


def rss_mb(pid):
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE for p in process_tree(pid)) / 1e6


def busy_share(seconds=1.0):
    """The share of all cores that is busy before the benchmark begins: other load makes its figures noisy."""
    def cpu_times():
        fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]
    (all_before, idle_before), _ = cpu_times(), time.sleep(seconds)
    all_after, idle_after = cpu_times()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


# --- the work folder ----------------------------------------------------------------------------------------------------
def work_folder(parent=None):
    """A temporary folder on a real disk; returns (folder, file system type). /tmp may be memory, where an fsync costs nothing."""
    parent = Path(parent) if parent else BINARY.parents[1]
    parent.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(["stat", "-f", "-c", "%T", parent], capture_output=True, text=True).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        sys.exit(f"{parent} is {kind}: give a folder on a disk with --dir")
    return tempfile.TemporaryDirectory(prefix="bench-", dir=parent), kind


def fsync_us(folder, times=200):
    """The median time of one 4 KiB overwrite and fdatasync: what the disk alone costs in every commit."""
    path, samples = Path(folder) / "fsync-probe", []
    with open(path, "wb", buffering=0) as f:
        f.write(b"x" * 4096 * times)
        os.fsync(f.fileno())
        f.seek(0)
        for _ in range(times):
            start_time = time.perf_counter()
            f.write(b"y" * 4096)
            os.fdatasync(f.fileno())
            samples.append(time.perf_counter() - start_time)
    path.unlink()
    return sorted(samples)[times // 2] * 1e6


# --- the step service ----------------------------------------------------------------------------------------------
class StepService:
    """nginx as the service that the steps of a workflow call; it logs every request."""

    def __init__(self, folder):
        self.folder, self.port, self.log = Path(folder), free_port(), Path(folder) / "effects.log"
        temp = "".join(f"{kind}_temp_path {folder}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf = self.folder / "nginx.conf"
        conf.write_text(
            f"""worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 16384; }}
http {{ {temp} keepalive_requests 1000000000; log_format effect '$uri $http_idempotency_key';
access_log {self.log} effect buffer=64k flush=200ms; default_type application/json;
server {{ listen 127.0.0.1:{self.port} backlog=4096; location / {{ return 200 '{{"ok":1}}'; }} }} }}""")
        self.process = start(["nginx", "-c", conf])
        wait_port(self.port, "nginx", self.process)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_offset = 0

    def effects(self):
        """Returns the number of effects since the last call, and the number of repeated idempotency keys among them."""
        time.sleep(0.5)  # nginx flushes the log every 200 ms
        with open(self.log) as f:
            f.seek(self.log_offset)
            lines = f.readlines()
            self.log_offset = f.tell()
        keys = collections.Counter(line.split(" ", 1)[1] for line in lines)
        return len(lines), sum(n - 1 for n in keys.values())


# --- Pointsman -----------------------------------------------------------------------------------------------------
def sequence(steps, service="steps", name=None):
    """A workflow of `steps` sequential POSTs; the input of each is the output of the one before."""
    text = [f"workflow: {name or f'sequence-{steps}'}", "steps:"]
    for n in range(steps):
        previous_output = f'"${{steps.s{n - 1}.output.ok}}"' if n else "0"
        text.append(f"  s{n}: {{ call: 'POST ${{services.{service}}}/s{n}', effect: shared, body: {{ after: {previous_output} }} }}")
    return "\n".join(text + ["respond:", "  status: 200", f'  body: {{ last: "${{steps.s{steps - 1}.output.ok}}" }}', ""])


def fan(steps, service="steps"):
    """A workflow of `steps` concurrent POSTs."""
    text = [f"workflow: fan-{steps}", "steps:"]
    text += [f"  s{n}: {{ call: 'POST ${{services.{service}}}/s{n}', effect: shared, body: {{ n: {n} }} }}" for n in range(steps)]
    return "\n".join(text + ["respond:", "  status: 200", f'  body: {{ last: "${{steps.s{steps - 1}.output.ok}}" }}', ""])


class Pointsman:
    """The release binary, with the runs API and with one route in `only` for each workflow (`POST /NAME`)."""

    def __init__(self, folder, steps_url, workflows, limits=None, name="pointsman"):
        if not BINARY.exists():
            sys.exit("build first: cargo build --release")
        self.folder = Path(folder) / name
        self.flags, self.port, self.admin_port = self.folder / "flags", free_port(), free_port()
        (self.flags / "routes").mkdir(parents=True)
        (self.flags / "workflows").mkdir()
        lines = [
            f"listen: 127.0.0.1:{self.port}", f"admin: {{ listen: 127.0.0.1:{self.admin_port} }}", "services:", "  nobody: http://127.0.0.1:9",
            f"  steps: {{ urls: ['{steps_url}'], keyed: true }}", f"  once: {{ urls: ['{steps_url}'] }}", "default_legacy: nobody",
            f"store: 'sqlite:{self.folder}/bench.db'"]
        if limits:
            lines.append(f"limits: {json.dumps(limits)}")
        (self.flags / "pointsman.yaml").write_text("\n".join(lines) + "\n")
        routes = ["routes:"]
        for text in workflows:
            workflow = re.match(r"workflow: (\S+)", text).group(1)
            (self.flags / f"workflows/{workflow}.yaml").write_text(text)
            routes.append(f"  - {{ id: {workflow}, match: {{ method: POST, path: /{workflow} }}, legacy: nobody, workflow: {workflow}, state: 'only', force: {{ reason: bench }} }}")
        (self.flags / "routes/all.yaml").write_text("\n".join(routes) + "\n")
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.process = None
        self.start()

    def start(self):
        """Starts the process; returns the seconds until /readyz answers 200."""
        start_time = time.monotonic()
        self.process = start([BINARY, "serve", "--flags", self.flags], stderr=open(self.folder / "log", "a"))
        wait_port(self.admin_port, "pointsman", self.process)
        while http(f"{self.admin}/readyz")[0] != 200:
            if time.monotonic() - start_time > 120:
                sys.exit("pointsman is not ready after 120 s")
            time.sleep(0.005)
        return time.monotonic() - start_time

    def has_api(self):
        return http(f"{self.admin}/api/v2/orchestrate/run", {})[0] not in (404, 405)

    def start_method(self, by):
        """How runs are started: `api` or `route`. `auto` means the API where the binary has it."""
        return by if by != "auto" else "api" if self.has_api() else "route"

    def target(self, workflow, by):
        """URL and body of the request that starts a run."""
        if by == "api":
            return f"{self.admin}/api/v2/orchestrate/run", json.dumps({"workflow": workflow, "input": {"n": 1}})
        return f"http://127.0.0.1:{self.port}/{workflow}", '{"n":1}'

    def wait_until_idle(self, timeout_s=60):
        """Waits until no run is in progress: wrk stops without waiting for its last requests."""
        deadline = time.monotonic() + timeout_s
        while self.metrics()["pointsman_runs_active"] > 0 and time.monotonic() < deadline:
            time.sleep(0.1)

    def metrics(self):
        """The values of all metrics by name, summed over their labels."""
        sums = collections.Counter()
        for line in http(f"{self.admin}/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                sums[name.split("{")[0]] += float(value)
        return sums


# --- load ----------------------------------------------------------------------------------------------------------
MS_PER_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def wrk(folder, url, body, connections, seconds, more="", name="post"):
    """Keeps this many requests in flight; returns requests, failures, requests/s, p50 and p99 in ms. `more` is Lua for the
    script of this name; loads at the same time need different names."""
    script = Path(folder) / f"{name}.lua"
    script.write_text(f'wrk.method = "POST"\nwrk.body = [[{body}]]\nwrk.headers["content-type"] = "application/json"\n{more}')
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", script, url],
                         capture_output=True, text=True, check=True).stdout
    latency = {share: float(value) * MS_PER_UNIT[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s|m)\b", out)}
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    bad += sum(int(n) for line in re.findall(r"Socket errors: (.*)", out) for n in re.findall(r"\d+", line))
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    elapsed = re.search(r"requests in ([\d.]+)(s|ms|m),", out)
    return dict(runs=requests, bad=bad, runs_per_s=round(requests / (float(elapsed.group(1)) * MS_PER_UNIT[elapsed.group(2)] / 1e3), 1),
                p50_ms=round(latency["50"], 3), p99_ms=round(latency["99"], 3))


# --- result rows ----------------------------------------------------------------------------------------------------------
def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) / 1e6
    return f"{os.cpu_count()} cores ({model.group(1) if model else platform.machine()}), {memory:.0f} GB, {platform.platform()}"


def write_rows(path, rows, notes):
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as f:
        for note in notes:
            f.write(f"# {note}\n")
        out = csv.DictWriter(f, keys, restval="")
        out.writeheader()
        out.writerows(rows)


def medians(rows, by, of):
    """A line for each combination of the columns `by`: the medians of the columns `of`, with the smallest and largest."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        for key in of:
            if key in row:
                groups[tuple(str(row[name]) for name in by if name in row)][key].append(row[key])
    for group, columns in groups.items():
        figures = (f"{key} {statistics.median(values):g} ({min(values):g} to {max(values):g}, {len(values)} rounds)" for key, values in columns.items())
        yield f"median, {', '.join(group)}: {'; '.join(figures)}"


def require(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (Debian packages of these names)")
