"""What benchmarks of several processes on one PostgreSQL share: database servers, a relay that counts round trips, processes.

`Server` is a PostgreSQL of its own in a temporary folder, with fsync on; it listens on loopback only. PostgreSQL refuses to
run as root: there it runs as the package's user `postgres`. `Relay` forwards to a server and counts what is sent to it.
"""
import asyncio, collections, contextlib, grp, http.client, json, os, pwd, re, signal, subprocess, sys, threading, time
from pathlib import Path

import rig

SERVER_OPTIONS = dict(fsync="on", shared_buffers="512MB", max_connections="300", max_wal_size="8GB", listen_addresses="127.0.0.1")


# --- PostgreSQL ----------------------------------------------------------------------------------------------------
def postgres_programs():
    """The programs of the newest installed version."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        sys.exit("missing: postgresql (Debian package of this name)")
    return max(found, key=lambda path: int(path.parent.name))


def server_version():
    return subprocess.run([postgres_programs() / "postgres", "--version"], capture_output=True, text=True).stdout.strip()


def as_server():
    """The options of a process that runs as the server's user."""
    if os.geteuid() != 0:
        return {}
    return dict(user=pwd.getpwnam("postgres").pw_uid, group=grp.getgrnam("postgres").gr_gid, extra_groups=[])


def without_race(read):
    """What `read` says of a process and its children; one of them may just end."""
    while True:
        try:
            return read()
        except (FileNotFoundError, ProcessLookupError):
            continue


class Server:
    """A PostgreSQL server; `of` is the primary that it follows."""

    def __init__(self, folder, name="postgres", of=None):
        self.programs, self.port, self.folder = postgres_programs(), rig.free_port(), Path(folder) / name
        self.data = self.folder / "data"
        self.folder.mkdir()
        os.chmod(folder, 0o711)  # the server's user has to get through
        if os.geteuid() == 0:
            os.chown(self.folder, as_server()["user"], as_server()["group"])
        if of:
            self.run("pg_basebackup", "-h", "127.0.0.1", "-p", of.port, "-U", "postgres", "--checkpoint=fast", "-R", "-D", self.data)
        else:
            self.run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", self.data)
        options = [part for name, value in SERVER_OPTIONS.items() for part in ("-c", f"{name}={value}")]
        self.process = rig.start([self.programs / "postgres", "-D", self.data, "-p", self.port, "-c", f"unix_socket_directories={self.folder}", *options],
                                 stderr=open(self.folder / "log", "w"), cwd="/", **as_server())
        rig.wait_port(self.port, "postgres", self.process)
        deadline = time.monotonic() + 60
        while subprocess.run(self.psql("SELECT 1"), capture_output=True).returncode != 0:  # it listens before it answers
            if time.monotonic() > deadline:
                sys.exit((self.folder / "log").read_text())
            time.sleep(0.05)

    def run(self, program, *arguments):
        done = subprocess.run([str(part) for part in (self.programs / program, *arguments)], capture_output=True, text=True, cwd="/", **as_server())
        if done.returncode != 0:
            sys.exit(f"{program}: {done.stderr}\nthe server's user has to reach {self.folder}: give another folder with --dir")

    def psql(self, text):
        return [str(self.programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text]

    def query(self, text):
        done = subprocess.run(self.psql(text), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def standby(self, name):
        """A synchronous standby: from now on nothing is committed here that is not on the standby too."""
        standby = Server(self.folder.parent, name, of=self)
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.query("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while self.query("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1":
            if time.monotonic() > deadline:
                sys.exit("the standby does not follow")
            time.sleep(0.05)
        return standby

    def promote(self):
        self.run("pg_ctl", "promote", "--wait", "--silent", "-D", self.data)

    def kill(self):
        """SIGKILL to all its processes, the postmaster first, so that it starts no other."""
        for pid in without_race(lambda: rig.process_tree(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        rig.STARTED_PROCESSES.remove(self.process)

    def stop(self):
        self.process.send_signal(signal.SIGINT)  # ends its sessions
        rig.stop(self.process)

    def cpu_seconds(self):
        """The CPU time of its processes, also of those that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return without_race(lambda: rig.cpu_seconds(self.process.pid)) + (int(fields[13]) + int(fields[14])) / rig.TICK


# --- the relay -----------------------------------------------------------------------------------------------------
class Requests:
    """What one client has sent to PostgreSQL: finds each Sync and each Query, which wait for the server's reply."""

    def __init__(self, counted):
        self.counted, self.unread, self.has_started, self.what = counted, bytearray(), False, None

    def read(self, data):
        self.unread += data
        at, size = 0, len(self.unread)
        while True:
            start = at + self.has_started  # the first message has no type
            if size < start + 4:
                break
            end = start + int.from_bytes(self.unread[start:start + 4], "big")
            if size < end:
                break
            if not self.has_started:
                # Anything but version 3: a request to use TLS or to cancel, after which the protocol starts anew.
                self.has_started = self.unread[start + 4:start + 8] == b"\0\x03\0\0"
            else:
                self.message(self.unread[at])
            at = end
        del self.unread[:at]

    def message(self, kind):
        if kind == ord("Q"):
            self.counted["query"] += 1
        elif kind == ord("P"):
            self.what = "prepare"
        elif kind == ord("B"):
            self.what = "execute"
        elif kind == ord("S"):
            self.counted[self.what or "ping"] += 1
            self.what = None


class Relay:
    """Forwards connections to a server, which may be replaced by another one, and counts round trips by kind."""

    def __init__(self, server):
        self.server, self.counted = server, collections.Counter()
        self.loop, started = asyncio.new_event_loop(), threading.Event()

        async def listen():
            self.listener = await asyncio.start_server(self.connection, "127.0.0.1", 0)
            self.port = self.listener.sockets[0].getsockname()[1]
            started.set()

        def run():
            self.loop.create_task(listen())
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        started.wait()

    async def connection(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError:
            writer.close()
            return
        requests = Requests(self.counted)

        async def forward(source, target, seen):
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    seen(data)
                    target.write(data)
                    await target.drain()
            for end in (writer, far_writer):
                end.close()

        await asyncio.gather(forward(reader, far_writer, requests.read), forward(far_reader, writer, lambda _: None))


# --- processes -----------------------------------------------------------------------------------------------------
class Process(rig.Pointsman):
    """A process on a database, with one route for each workflow: (workflow, more of the route, its state)."""

    def __init__(self, folder, name, store_port, shop_url, routes, services=(), limits=None):
        if not rig.BINARY.exists():
            sys.exit("build first: cargo build --release")
        self.folder = Path(folder) / name
        self.flags, self.port, self.admin_port = self.folder / "flags", rig.free_port(), rig.free_port()
        for sub in ("routes", "workflows"):
            (self.flags / sub).mkdir(parents=True)
        (self.folder / "keys").mkdir()
        lines = [
            f"listen: 127.0.0.1:{self.port}", f"admin: {{ listen: 127.0.0.1:{self.admin_port} }}", "services:", f"  shop: '{shop_url}'",
            *(f"  {service}: {{ urls: ['{url}'], keyed: true }}" for service, url in (("steps", shop_url), *services)), "default_legacy: shop",
            f"retry_keys_dir: {self.folder}/keys", f"store: 'postgres://postgres@127.0.0.1:{store_port}/postgres?sslmode=disable'"]
        if limits:
            lines.append(f"limits: {json.dumps(limits)}")
        (self.flags / "pointsman.yaml").write_text("\n".join(lines) + "\n")
        table = ["routes:"]
        for text, more, state in routes:
            workflow = re.match(r"workflow: (\S+)", text).group(1)
            (self.flags / f"workflows/{workflow}.yaml").write_text(text)
            force = "" if state == "off" else ", force: { reason: bench }"
            table.append(f"  - {{ id: {workflow}, match: {{ method: POST, path: /{workflow} }}, legacy: shop, workflow: {workflow}, state: '{state}'{force}, "
                         f"retry_key: '${{request.headers[\"idempotency-key\"]}}'{more} }}")
        (self.flags / "routes/all.yaml").write_text("\n".join(table) + "\n")
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.ready_s = self.start()
        rig.wait_port(self.port, "pointsman", self.process)

    def log(self):
        return (self.folder / "log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()
        rig.STARTED_PROCESSES.remove(self.process)

    def stop(self):
        rig.stop(self.process)

    def requested(self, route):
        return json.loads(rig.http(f"{self.admin}/api/v2/routes/{route}")[1])["row"]["requested"]

    def flip(self, route, to):
        """Moves a route by force; returns the seconds until the answer, and the answer."""
        start_time = time.monotonic()
        status, text = rig.http(f"{self.admin}/api/v2/routes/{route}/flip", {"to": to, "force": True, "reason": "bench"})
        if status != 200:
            sys.exit(f"{route} to {to}: {status} {text}")
        return time.monotonic() - start_time, json.loads(text)

    def climb(self, route, *rungs):
        for rung in rungs:
            self.flip(route, rung)

    def keyed(self, path, key, timeout_s=60):
        """Sends one keyed request; returns (status, text of the reply), or (0, the error)."""
        try:
            return rig.http(f"http://127.0.0.1:{self.port}{path}", {"n": 1}, timeout_s=timeout_s, headers={"idempotency-key": key})
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)


def new_keys(prefix):
    """Lua for wrk: each request has a new key."""
    return f'local n = 0\nfunction request() n = n + 1 wrk.headers["idempotency-key"] = "{prefix}-" .. n return wrk.format() end\n'
