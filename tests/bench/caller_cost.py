#!/usr/bin/env python3
"""What shadow and dark cost the caller: latency and CPU time per request, against `off` in the same run.

One route with a workflow (a read, steps that compute, a rehearsed POST; legacy and engine answer the same 2 KB of JSON)
in `off`, `shadow` 100 % and `dark` 100 %. The service that the engine calls, and that nginx mirrors to, is

  healthy   answers at once
  slow      answers after 200 ms
  hung      never answers; the step and nginx's mirror give up after 1 s
  broken    closes half of the calls without an answer, and answers the others with JSON that is cut off. It stands for
            an engine that panics: no released binary panics on demand. A panic in a shadow run is tested by
            `shadow::tests::runs` and `shadow::tests::load`

Beside it, as controls: `off` a second time (its ratio to `off` is what this machine's noise alone makes of 1.0), `off`
while another process of the shadow's niceness computes on the proxy's core (what sharing a core costs, whatever the
code does), nginx as a plain proxy, nginx with `mirror` to each of the four services, and legacy alone, without a proxy:
its latency, with the load generator's own, is contained in all others, and a ratio is the smaller for it.

  1. Capacity: the rate is raised step by step until fewer than 95 % of the requests are compared. The capacity of a
     state is the most pairs per second that it compared in any step. If twice the capacity is more than --rate-max, the
     workflow gets more computing steps (1, 4, 16, 64) and this is repeated.
  2. Rounds: every arm at half of the smaller and at twice the larger capacity, in shuffled order. Each row is a fresh
     process with an empty store: nothing is left in its queue from another row. A ratio has `off` of the same round and
     rate below it; the table shows the median of the ratios, and where the median of 90 % of 2,000 resamples of the
     rounds lies. No figure passes or fails: the goals are printed beside it.

The load is open-loop: request n is due at its time (evenly spaced, with a seeded jitter of up to one interval) whether
or not earlier ones are answered, and its latency counts from then. So a proxy that stalls pays for all requests that
were due meanwhile, also for those that waited for one of the --connections keep-alive connections. What is unanswered
3 s after the last one counts with the time until then, and as `unanswered`. `late_p99_ms` is how late the load
generator itself was; a row where it is near p99_ms says little about the proxy.

The proxy is pinned to the first half of the cores, all others (load generator, legacy, the services) to the second: the
shadow's threads compete with the caller's for the same core, and with nobody else. --no-pin leaves that to the kernel.
CPU time and the time on the run queue are the scheduler's (schedstat), by threads: `caller` (the proxy's workers),
`shadow`, `other` (engine, store, admin). `foreign_load` is the share of all cores that other processes took during the
row: above a few percent the row measures them. Of the requests that were `sent` (with the warm-up) `compared` were
compared by the end of the row; the others are in `skipped`, `failed` and `pending` (not decided yet).

    cargo build --release && python3 tests/bench/caller_cost.py [--rounds 9] [--seconds 6] [--rows FILE] [--quick]

Needs: nginx (Debian package). Exits with 1 if a caller of Pointsman got a wrong answer or none, if a route was not in
the state that it was to be in, or if a healthy `shadow` or `dark` compared nothing.
Unfair to Pointsman: legacy and the services share a core with the load generator, so each call by the engine takes
time from both (the services have a lower priority); `shadow` makes these calls and `off` does not. Unfair to nginx: it
mirrors without comparing, which costs its own process little, but it has no queue that could be full.
"""
import argparse, array, asyncio, collections, gc, json, os, random, re, select, shutil, socket, statistics, subprocess, sys, time
from pathlib import Path

sys.dont_write_bytecode = True
import rig

FAULTS = ["healthy", "slow", "hung", "broken"]
SLOW_S, GIVE_UP_S, DRAIN_S = 0.2, 1, 3
BEGIN_EARLIER_S = 0.2  # CPU time is counted from this much before the end of the warm-up
SHADOW_NICENESS = 10
COMPUTING_STEPS = [1, 4, 16, 64]
GOALS = {"p50_ms": 1.03, "p99_ms": 1.05}

ITEMS = [{"sku": f"sku-{n:04}", "name": f"Coupling rod, forged, size {n}", "qty": n % 5 + 1, "price": 12.5 + n, "tags": ["steel", "heavy"],
          "warehouse": f"hall {n % 3}", "ships": "2026-12-01T08:00:00Z"} for n in range(13)]
REPLY = json.dumps({"order": "4b825dc6-42cb-4eb9-a060-e54bf8d69288", "status": "accepted", "total": 1234.5, "currency": "EUR", "items": ITEMS},
                   separators=(",", ":"))
ORDER = json.dumps({"customer": "c-1001", "items": [{"sku": f"sku-{n:04}", "qty": 2} for n in range(8)]}).encode()
REQUEST = (b"POST /orders HTTP/1.1\r\nhost: shop.test\r\nuser-agent: bench\r\naccept: application/json\r\ncontent-type: application/json\r\n"
           b"content-length: %d\r\n\r\n%s" % (len(ORDER), ORDER))


# --- where things run ---------------------------------------------------------------------------------------------------
class Cores:
    def __init__(self, pin):
        self.all = sorted(os.sched_getaffinity(0))
        self.pinned = pin and len(self.all) > 1
        half = len(self.all) // 2
        self.proxy, self.load = (self.all[:half], self.all[half:]) if self.pinned else (self.all, self.all)
        os.sched_setaffinity(0, self.load)  # inherited by what is started without `on_proxy`

    def on_proxy(self):
        """For `preexec_fn`."""
        os.sched_setaffinity(0, self.proxy)


# --- services -----------------------------------------------------------------------------------------------------------
def nginx(folder, name, workers, body, **options):
    temp = "".join(f"{kind}_temp_path {folder}/{name}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = Path(folder) / f"{name}.conf"
    conf.write_text(f"""worker_processes {workers}; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit;
events {{ worker_connections 8192; }}
http {{ {temp} access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; default_type application/json;
{body} }}""")
    return rig.start(["nginx", "-c", conf], **options)


class Services:
    """Legacy, and a service for each fault."""

    def __init__(self, folder):
        self.legacy = rig.free_port()
        self.ports = {fault: rig.free_port() for fault in FAULTS}
        # A service that shares its worker with legacy would make legacy slower.
        legacy = nginx(folder, "legacy", 1, f"server {{ listen 127.0.0.1:{self.legacy} backlog=4096; location / {{ return 200 '{REPLY}'; }} }}")
        called = nginx(folder, "services", 1, f"""split_clients $request_id $closes {{ 50% 1; * ""; }}
server {{ listen 127.0.0.1:{self.ports['healthy']} backlog=4096; location / {{ return 200 '{REPLY}'; }} }}
server {{ listen 127.0.0.1:{self.ports['broken']} backlog=4096; location / {{ if ($closes) {{ return 444; }} return 200 '{REPLY[:1000]}'; }} }}""",
                       preexec_fn=lower_priority)
        faults = rig.start([sys.executable, __file__, "--serve", f"{self.ports['slow']},{self.ports['hung']}"], preexec_fn=lower_priority,
                           stderr=None)
        self.process = legacy
        for port, what, process in ((self.legacy, "legacy", legacy), (self.ports["healthy"], "the service", called), (self.ports["hung"], "the faults", faults)):
            rig.wait_port(port, what, process)


def lower_priority():
    os.nice(10)


async def serve_faults(slow, hung):
    """HTTP/1.1 over keep-alive connections, for requests that arrive in one piece or with a content-length."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(REPLY), REPLY.encode())

    def handler(delay):
        async def handle(reader, writer):
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = re.search(rb"content-length: *(\d+)", head)
                    await reader.readexactly(int(length.group(1)) if length else 0)
                    if delay is None:
                        await reader.read()  # until the caller gives up
                        break
                    await asyncio.sleep(delay)
                    writer.write(reply)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()
        return handle

    servers = [await asyncio.start_server(handler(delay), "127.0.0.1", port, backlog=4096) for port, delay in ((slow, SLOW_S), (hung, None))]
    await asyncio.gather(*(server.serve_forever() for server in servers))


# --- what is measured ---------------------------------------------------------------------------------------------------
class Proxy:
    """A started proxy: a port, and the process whose CPU time counts."""

    def __init__(self, process, port, name):
        self.process, self.port = process, port
        rig.wait_port(port, name, process)

    def cpu(self):
        """(CPU, time on the run queue) in microseconds for each group of threads."""
        groups = collections.defaultdict(lambda: [0.0, 0.0])
        for pid in rig.process_tree(self.process.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    name, (cpu, wait, _) = (task / "comm").read_text().strip(), (task / "schedstat").read_text().split()
                except OSError:  # the thread has ended
                    continue
                group = "caller" if name == "nginx" or name.startswith("proxy") else "shadow" if name == "shadow" else "other"
                groups[group][0] += int(cpu) / 1e3
                groups[group][1] += int(wait) / 1e3
        return groups

    def counts(self):
        return {}

    def stop(self):
        self.process.kill()  # a drain would only take time
        self.process.wait()
        rig.STARTED_PROCESSES.remove(self.process)


class LegacyAlone(Proxy):
    """No proxy at all. The CPU time is that of legacy."""

    def stop(self):
        pass


class NginxProxy(Proxy):
    def __init__(self, folder, cores, services, mirror):
        port = rig.free_port()
        upstreams = f"upstream legacy {{ server 127.0.0.1:{services.legacy}; keepalive 256; keepalive_requests 1000000000; }}\n"
        common = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'
        mirrored = ""
        if mirror:
            upstreams += f"upstream copy {{ server 127.0.0.1:{services.ports[mirror]}; keepalive 256; keepalive_requests 1000000000; }}\n"
            mirrored = f"location = /copy {{ internal; proxy_pass http://copy$request_uri; {common} proxy_read_timeout {GIVE_UP_S}s; }}"
        process = nginx(folder, f"nginx-{port}", len(cores.proxy), f"""{upstreams}
server {{ listen 127.0.0.1:{port} backlog=4096; {mirrored}
location / {{ {'mirror /copy; mirror_request_body on;' if mirror else ''} proxy_pass http://legacy; {common}
proxy_set_header X-Forwarded-For $remote_addr; }} }}""", preexec_fn=cores.on_proxy)
        super().__init__(process, port, "nginx")

    def stop(self):
        rig.stop(self.process)  # a killed master leaves its workers


def workflow(steps):
    computing = "".join(f"""  compute{n}: {{ for_each: "${{steps.price.output.items}}", set: "${{item.qty * item.price + {n}.0}}" }}\n""" for n in range(steps))
    return f"""workflow: order
steps:
  price:
    call: POST ${{services.next}}/price
    effect: read
    body: {{ items: "${{request.body.items}}" }}
    timeout: {GIVE_UP_S}s
    retry: {{ attempts: 1 }}
{computing}\
  charge:
    call: POST ${{services.next}}/charges
    body: {{ customer: "${{request.body.customer}}", amount: "${{steps.price.output.total}}" }}
    rehearse: {{ id: 1 }}
respond: {{ status: 200, headers: {{ content-type: application/json }}, body: "${{steps.price.output}}" }}
"""


class Pointsman(Proxy):
    def __init__(self, folder, cores, services, state, fault, steps):
        self.folder, self.state = Path(folder) / f"pointsman-{rig.free_port()}", state
        port, admin = rig.free_port(), rig.free_port()
        for name in ("routes", "workflows"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "pointsman.yaml").write_text(
            f"listen: 127.0.0.1:{port}\nadmin: {{ listen: 127.0.0.1:{admin} }}\n"
            f"services: {{ shop: 'http://127.0.0.1:{services.legacy}', next: 'http://127.0.0.1:{services.ports[fault]}' }}\n"
            f"default_legacy: shop\nstore: 'sqlite:{self.folder}/bench.db'\n")
        (self.folder / "workflows/order.yaml").write_text(workflow(steps))
        force = ", force: { reason: bench }" if state == "dark" else ""
        (self.folder / "routes/orders.yaml").write_text(
            f"routes:\n  - {{ id: orders, match: {{ method: POST, path: /orders }}, legacy: shop, workflow: order, state: '{state}'{force} }}\n")
        self.admin = f"http://127.0.0.1:{admin}"
        self.log = self.folder / "log"
        process = rig.start([rig.BINARY, "serve", "--flags", self.folder], stderr=open(self.log, "w"), preexec_fn=cores.on_proxy)
        rig.wait_port(admin, f"pointsman ({self.folder})", process)
        deadline = time.monotonic() + 60
        while rig.http(f"{self.admin}/readyz")[0] != 200:
            if time.monotonic() > deadline:
                sys.exit(f"pointsman is not ready: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        super().__init__(process, port, "pointsman")

    def counts(self):
        """What became of the requests that were offered for comparison, and the state in force."""
        text = rig.http(f"{self.admin}/metrics")[1]
        total, reasons, row = collections.Counter(), {"skipped": collections.Counter(), "failed": collections.Counter()}, {}
        for outcome_labels, value in re.findall(r"^pointsman_comparisons_total\{(.*)\} (\S+)$", text, re.M):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', outcome_labels))
            total[labels["outcome"]] += int(float(value))
            if labels["outcome"] in reasons and float(value):
                reasons[labels["outcome"]][labels.get("reason", "")] += int(float(value))
        row["compared"] = total["matched"] + total["ignored"] + total["mismatched"]
        row["mismatched"] = total["mismatched"]
        for name, of in reasons.items():
            row[name] = " ".join(f"{reason}:{n}" for reason, n in of.most_common())
        row["settled"] = sum(total.values())
        in_force = re.search(r'^pointsman_flag_state\{(?=[^}]*kind="effective")(?=[^}]*route="orders")[^}]*\} (\S+)$', text, re.M)
        row["state"] = ["off", "shadow", "dark", "live", "only"][int(float(in_force.group(1)))] if in_force else "unknown"
        return row

    def stop(self):
        super().stop()
        shutil.rmtree(self.folder)


class Busy:
    """`off` while another process of the shadow's niceness computes on the proxy's cores."""

    def __init__(self, proxy, cores):
        self.proxy = proxy

        def before_start():
            cores.on_proxy()
            os.nice(SHADOW_NICENESS)

        self.others = [rig.start([sys.executable, "-c", "while True: pass"], preexec_fn=before_start) for _ in cores.proxy]

    def __getattr__(self, name):
        return getattr(self.proxy, name)

    def stop(self):
        for other in self.others:
            rig.stop(other)
        self.proxy.stop()


# --- load ---------------------------------------------------------------------------------------------------------------
class Load:
    """An open-loop load over keep-alive connections."""

    def __init__(self, port, connections):
        self.port = port
        self.poll = select.epoll()
        self.sockets, self.idle = {}, collections.deque()
        self.busy = {}  # descriptor: [due, number, bytes of the reply so far]
        for _ in range(connections):
            self.connect()

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets[client.fileno()] = client
        self.poll.register(client.fileno(), select.EPOLLIN)
        self.idle.append(client.fileno())

    def close(self):
        for client in self.sockets.values():
            client.close()
        self.poll.close()

    def drop(self, fd):
        self.poll.unregister(fd)
        self.sockets.pop(fd).close()

    def run(self, offsets, warm_up, call_at, call):
        """Sends a request at each of these seconds from now; the first `warm_up` do not count, and `call` is called
        before request `call_at`. Returns (latencies, lateness of the generator, bad, unanswered), times in seconds."""
        count, begin = len(offsets), time.perf_counter() + 0.05
        latencies, lateness = array.array("d", bytes(8 * count)), array.array("d")
        waiting, bad, done, next_due = collections.deque(), 0, 0, 0
        now, perf, poll, sockets, idle, busy = 0.0, time.perf_counter, self.poll, self.sockets, self.idle, self.busy
        give_up = begin + offsets[-1] + DRAIN_S
        while done < count:
            now = perf()
            if now > give_up:
                break
            while next_due < count and begin + offsets[next_due] <= now:
                if next_due == call_at:
                    call()
                    now = perf()
                if next_due >= warm_up:
                    lateness.append(now - begin - offsets[next_due])
                waiting.append(next_due)
                next_due += 1
            while waiting and idle:
                number, fd = waiting.popleft(), idle.popleft()
                busy[fd] = [begin + offsets[number], number, b""]
                try:
                    sockets[fd].send(REQUEST)  # smaller than the socket's buffer
                except OSError:
                    pass  # shows as the end of the connection
            until = begin + offsets[next_due] if next_due < count else give_up
            # epoll counts in milliseconds, select in microseconds.
            select.select([poll], [], [], max(0.0, until - perf()))
            for fd, _ in poll.poll(0):
                try:
                    data = sockets[fd].recv(65536)
                except OSError:
                    data = b""
                exchange = busy.get(fd)
                if not data:
                    if exchange:
                        del busy[fd]
                        latencies[exchange[1]] = perf() - exchange[0]
                        bad += exchange[1] >= warm_up
                        done += 1
                    else:
                        idle.remove(fd)
                    self.drop(fd)
                    self.connect()
                    continue
                if exchange is None:
                    continue  # bytes that nobody asked for: the next reply on this connection will be wrong
                data = exchange[2] + data
                end = data.find(b"\r\n\r\n")
                if end >= 0:
                    head = data[:end].lower()
                    at = head.find(b"content-length:")
                    length = int(head[at + 15:].split(b"\r\n", 1)[0]) if at >= 0 else 0
                    if len(data) >= end + 4 + length:
                        latencies[exchange[1]] = perf() - exchange[0]
                        if exchange[1] >= warm_up and (head[9:12] != b"200" or length != len(REPLY)):
                            bad += 1
                        del busy[fd]
                        idle.append(fd)
                        done += 1
                        continue
                exchange[2] = data
        # What is left: due, and unanswered.
        now, unanswered = perf(), 0
        for number in [exchange[1] for exchange in busy.values()] + list(waiting):
            latencies[number] = now - begin - offsets[number]
            unanswered += number >= warm_up
        return latencies[warm_up:], lateness, bad, unanswered


def machine_cpu_s():
    """Seconds that all cores were busy, and those of them for this bench and what it started."""
    fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / rig.TICK, rig.cpu_seconds(os.getpid())


def offsets(rate, seconds, warm_s, generator):
    """When requests are due, and how many of them come before `warm_s`."""
    spaced = sorted((n + generator.random()) / rate for n in range(int(rate * (seconds + warm_s))))
    return array.array("d", spaced), sum(offset < warm_s for offset in spaced)


def at(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(proxy, rate, seconds, warm_s, connections, generator, capacity=False):
    """Returns a row. With `capacity` it says how many pairs were compared per second after the warm-up, for which it asks
    for the counts in between; latencies mean nothing then."""
    load = Load(proxy.port, connections)
    due, warm_up = offsets(rate, seconds, warm_s, generator)
    before, compared, machine = {}, [], []

    def note_compared():
        compared.append((time.perf_counter(), proxy.counts()["compared"]))

    def at_begin():
        if capacity:
            note_compared()
        machine.append((time.perf_counter(), *machine_cpu_s()))
        before.update(proxy.cpu())

    gc.collect()
    gc.disable()
    # Reading /proc takes milliseconds, and the requests that are due meanwhile are late: they belong to the warm-up.
    begin = max(0, warm_up - int(rate * BEGIN_EARLIER_S))
    latencies, lateness, bad, unanswered = load.run(due, warm_up, begin, at_begin)
    gc.enable()
    after = proxy.cpu()
    machine.append((time.perf_counter(), *machine_cpu_s()))
    if capacity:
        note_compared()
    counts = proxy.counts()
    load.close()
    requests, counted = len(latencies), len(due) - begin
    ordered = sorted(latency * 1e3 for latency in latencies)
    row = dict(rate=rate, requests=requests, bad=bad, unanswered=unanswered, p50_ms=round(at(ordered, 0.5), 4), p99_ms=round(at(ordered, 0.99), 4),
               p999_ms=round(at(ordered, 0.999), 4), late_p99_ms=round(at(sorted(lateness), 0.99) * 1e3, 4))
    took, all_cpu, own_cpu = (last - first for first, last in zip(*machine))
    row["foreign_load"] = round(max(0.0, all_cpu - own_cpu) / took / os.cpu_count(), 3)
    groups = {name: [after[name][n] - before.get(name, (0, 0))[n] for n in (0, 1)] for name in after}
    row["cpu_us"] = round(sum(cpu for cpu, _ in groups.values()) / counted, 2)
    for name in ("caller", "shadow", "other"):
        cpu, wait = groups.get(name, (0, 0))
        row[f"{name}_cpu_us"] = round(cpu / counted, 2)
        if name == "caller":
            row["caller_queued_us"] = round(wait / counted, 2)
    if counts:
        row.update(sent=len(due), **counts)
        settled = row.pop("settled")
        row["pending"] = 0 if row["state"] == "off" else len(due) - settled
    if capacity:
        (began, first), (ended, last) = compared
        row["compared_per_s"] = round((last - first) / (ended - began), 1)
    return row


# --- the run ------------------------------------------------------------------------------------------------------------
class Bench:
    def __init__(self, folder, cores, args):
        self.folder, self.cores, self.args = folder, cores, args
        self.services = Services(folder)
        self.generator = random.Random(args.seed)
        self.steps, self.problems = args.steps or COMPUTING_STEPS[0], []

    def start(self, arm, fault):
        pointsman = lambda state: Pointsman(self.folder, self.cores, self.services, state, fault or "healthy", self.steps)
        match arm:
            case "legacy alone":
                return LegacyAlone(self.services.process, self.services.legacy, "legacy")
            case "nginx" | "nginx mirror":
                return NginxProxy(self.folder, self.cores, self.services, fault)
            case "off beside busy":
                return Busy(pointsman("off"), self.cores)
            case "off" | "off again":
                return pointsman("off")
            case _:
                return pointsman(arm)

    def row(self, arm, fault, rate, seconds, warm_s, generator, capacity=False):
        proxy = self.start(arm, fault)
        try:
            row = measure(proxy, rate, seconds, warm_s, self.args.connections, generator, capacity)
        finally:
            proxy.stop()
        row = dict(arm=arm, engine=fault or "-", **row)
        if "state" in row:
            if row["bad"] or row["unanswered"]:
                self.problems.append(f"{arm}, {fault}: {row['bad']} wrong answers, {row['unanswered']} without an answer")
            if row["state"] != arm.split()[0]:
                self.problems.append(f"{arm}, {fault}: the state in force is {row['state']}")
        if arm in ("shadow", "dark") and fault == "healthy" and not row["compared"]:
            self.problems.append(f"{arm} compared nothing: {row['skipped']} {row['failed']}")
        return row

    def capacity(self, state, emit):
        """The most pairs per second; or some number above the half of --rate-max, if it is larger than that."""
        best, rate = 0.0, self.args.rate_min
        while True:
            row = self.row(state, "healthy", round(rate), self.args.capacity_seconds, 1, random.Random(rate), capacity=True)
            emit(dict(part="capacity", steps=self.steps, **row))
            best = max(best, row["compared_per_s"])
            if row["compared_per_s"] < 0.95 * rate or 2 * best > self.args.rate_max:
                return best
            rate *= 1.5

    def rates(self, emit):
        """(half, twice, what to print)."""
        for self.steps in [self.args.steps] if self.args.steps else COMPUTING_STEPS:
            found = {}
            for state in ("shadow", "dark"):
                found[state] = self.capacity(state, emit)
                if 2 * found[state] > self.args.rate_max:
                    break
            else:
                break
        half, twice = round(min(found.values()) / 2), round(2 * max(found.values()))
        note = f"capacity in pairs/s: {', '.join(f'{state} {found[state]:.0f}' for state in found)}; with {self.steps} computing steps"
        if twice > self.args.rate_max:
            note += f". IT IS LARGER THAN HALF OF --rate-max: `twice` is only {self.args.rate_max:.0f} requests/s"
            twice = round(self.args.rate_max)
        return max(1, half), twice, note

    def rounds(self, half, twice, emit):
        arms = [("off", None), ("off again", None), ("off beside busy", None), ("legacy alone", None), ("nginx", None)]
        arms += [(arm, fault) for arm in ("nginx mirror", "shadow", "dark") for fault in FAULTS]
        wanted = self.args.only.split(",") if self.args.only else None
        for number in range(self.args.rounds):
            rows = [(load, rate, *arm) for load, rate in (("half", half), ("twice", twice)) for arm in arms
                    if not wanted or arm[0] in ("off", "off again") or arm[0] in wanted]
            self.generator.shuffle(rows)
            jitter = self.generator.random()  # the same arrivals for all arms of a round
            for order, (load, rate, arm, fault) in enumerate(rows):
                row = self.row(arm, fault, rate, self.args.seconds, self.args.warm_up, random.Random(jitter))
                emit(dict(part="rounds", round=number, order=order, steps=self.steps, load=load, **row))


def interval(values, generator):
    """Where the median of 90 % of 2,000 resamples lies."""
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(2_000))
    return medians[100], medians[-101]


def table(rows, seed):
    """Lines: for each arm the medians, and the ratios to `off` of the same round and rate, of nginx with mirror to nginx too."""
    generator = random.Random(seed)
    rows = [row for row in rows if row["part"] == "rounds"]
    base = {(row["round"], row["load"], row["arm"]): row for row in rows if row["arm"] in ("off", "nginx")}
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["load"], row["arm"], row["engine"]].append(row)
    order = ["off", "off again", "off beside busy", "shadow", "dark", "legacy alone", "nginx", "nginx mirror"]
    for load in ("half", "twice"):
        found = sorted((key for key in groups if key[0] == load), key=lambda key: (order.index(key[1]), FAULTS.index(key[2]) if key[2] in FAULTS else 0))
        if not found:
            continue
        yield ""
        yield f"at {load} the capacity: {groups[found[0]][0]['rate']} requests/s. Ratios to `off` (goals: p50 at most {GOALS['p50_ms']}, p99 at most {GOALS['p99_ms']})"
        yield (f"{'arm':16} {'engine':8} {'p50 ms':>8} {'ratio':>6} {'90 % of resamples':>18} {'p99 ms':>8} {'ratio':>6} {'90 % of resamples':>18}"
               f" {'CPU us':>8} {'ratio':>6} {'caller':>7} {'shadow':>7} {'other':>7} {'compared':>9} {'bad':>5}")
        for key in found:
            _, arm, fault = key
            for against in ["off"] + (["nginx"] if arm == "nginx mirror" else []):
                mine, line = groups[key], f"{arm:16} {fault:8}" if against == "off" else f"{'  to nginx':16} {'':8}"
                for column, width in (("p50_ms", 8), ("p99_ms", 8), ("cpu_us", 8)):
                    pairs = [(row[column], base[row["round"], load, against][column]) for row in mine if (row["round"], load, against) in base]
                    ratios = [value / other for value, other in pairs if other]
                    line += f" {statistics.median(row[column] for row in mine):{width}.3f}" if against == "off" else f" {'':{width}}"
                    line += f" {statistics.median(ratios):6.3f}" if ratios else f" {'-':>6}"
                    if column != "cpu_us":
                        low, high = interval(ratios, generator) if len(ratios) > 1 else (None, None)
                        mark = "" if arm not in ("shadow", "dark") or not ratios else "+" if statistics.median(ratios) <= GOALS[column] else "!"
                        line += f" {f'{low:.3f} to {high:.3f} {mark}' if low else mark:>18}"
                if against == "off":
                    line += "".join(f" {statistics.median(row[f'{name}_cpu_us'] for row in mine):7.1f}" for name in ("caller", "shadow", "other"))
                    sent, compared = (sum(row.get(name, 0) for row in mine) for name in ("sent", "compared"))
                    line += f" {f'{compared / sent:.1%}' if arm in ('shadow', 'dark') else '-':>9} {sum(row['bad'] + row['unanswered'] for row in mine):5}"
                yield line
    yield ""
    yield "+ the goal is reached by the median, ! it is not; `off again` shows what noise alone does to a ratio"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", help="the program to measure (default: the release build)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each row, after a warm-up")
    parser.add_argument("--warm-up", type=float)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rates", help="HALF,TWICE in requests per second, instead of measuring the capacity")
    parser.add_argument("--rate-min", type=float, default=150, help="where the search for the capacity begins")
    parser.add_argument("--rate-max", type=float, default=3_000, help="what the load generator and the proxy do far from saturation")
    parser.add_argument("--steps", type=int, help="computing steps of the workflow (default: as many as the capacity needs)")
    parser.add_argument("--only", help="arms, separated by commas, beside `off`: shadow, dark, nginx, nginx mirror, off beside busy, legacy alone")
    parser.add_argument("--no-pin", action="store_true", help="do not pin the proxy and the load to different cores")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--quick", action="store_true", help="one short round: tries the script, measures nothing")
    parser.add_argument("--dir", help="where the stores go: a folder on a disk")
    parser.add_argument("--rows", help="write the raw rows here as CSV")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return asyncio.run(serve_faults(*map(int, args.serve.split(","))))
    for name, full, quick in (("rounds", 9, 1), ("seconds", 6, 1.5), ("warm_up", 1.5, 0.5)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
    args.capacity_seconds = 1.5 if args.quick else 4
    if args.binary:
        rig.BINARY = Path(args.binary).resolve()
    if not rig.BINARY.exists():
        sys.exit(f"no {rig.BINARY}: build first (cargo build --release), or give --binary FILE")
    rig.require("nginx")
    busy, rows, began = rig.busy_share(), [], time.monotonic()
    print(f"seed {args.seed}", flush=True)

    def emit(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    cores = Cores(not args.no_pin)
    work_folder, disk = rig.work_folder(args.dir)
    with work_folder as folder:
        bench = Bench(folder, cores, args)
        if args.rates:
            half, twice = map(int, args.rates.split(","))
            note = f"rates given: {half} and {twice} requests/s, {bench.steps} computing steps"
        else:
            half, twice, note = bench.rates(emit)
        print(note, flush=True)
        bench.rounds(half, twice, emit)
    pinned = f"the proxy on cores {cores.proxy}, the rest on {cores.load}" if cores.pinned else "not pinned"
    version = subprocess.run([rig.BINARY, "--version"], capture_output=True, text=True).stdout.strip()
    notes = [f"machine: {rig.machine()}; disk {disk}; {pinned}; {busy:.0%} of the cores busy with other load before the start",
             f"command: python3 tests/bench/caller_cost.py {' '.join(sys.argv[1:])}; seed {args.seed}; {version}; took {time.monotonic() - began:.0f} s",
             f"{args.rounds} rounds of {args.seconds:g} s after {args.warm_up:g} s, {args.connections} connections; {note}"]
    foreign = sorted(row["foreign_load"] for row in rows if row["part"] == "rounds")
    notes.append(f"load of other processes during the rounds: median {statistics.median(foreign):.1%} of all cores, largest {foreign[-1]:.1%}")
    lines = list(table(rows, args.seed))
    print("\n".join(["", *notes, *lines]))
    if args.rows:
        rig.write_rows(args.rows, rows, [*notes, *(line for line in lines if line)])
    if bench.problems:
        sys.exit("\n".join(["problems:", *bench.problems]))


main()
