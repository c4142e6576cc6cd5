//! PostgreSQL for tests, from the distribution's package: real servers in temporary folders, with fsync on.
//!
//! [`Shared`] is one server for all test processes of a run: the first process starts it, each holds a lock while it
//! lives, and a guardian process stops the server some time after the last one has ended, even by a kill. Each test has
//! a database of its own. [`Cluster`] is a server that one test may restart, stop or freeze.
//!
//! PostgreSQL refuses to run as root: there it runs as the package's user `postgres`. Nothing here is async: unit tests
//! use this file too. Where the package is not installed there is no server, and tests say so.

#![allow(dead_code)] // two test binaries share this file, and neither uses all of it

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The port in the name of the shared server's socket; it listens on no port.
const SHARED_PORT: u16 = 5432;

/// The programs of the newest installed version.
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.flatten().filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let bin = version.path().join("bin");
        (bin.join("initdb").exists() && bin.join("postgres").exists()).then_some((number, bin))
    });
    found.max_by_key(|(number, _)| *number).map(|(_, bin)| bin)
}

/// The server that all tests of a run share; `None` where the package is not installed.
pub fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    SHARED.get_or_init(|| programs().map(|bin| Shared::join(&bin))).as_ref()
}

/// The server that all tests share.
pub struct Shared {
    dir: PathBuf,
    /// Held until the process ends.
    _in_use: File,
}

impl Shared {
    fn join(bin: &Path) -> Self {
        // Not in the source tree, which the server's user may not be allowed to read; a socket's path must be short
        // too.
        let tree = env!("CARGO_MANIFEST_DIR").bytes().fold(0_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte));
        let dir = std::env::temp_dir().join(format!("pointsman-postgres-{tree:x}"));
        fs::create_dir_all(&dir).expect("a folder for the server");
        chown_to_server(&dir);
        // The guardian holds this lock exclusively while it stops the server.
        let in_use = lock_file(&dir.join("in-use"));
        in_use.lock_shared().expect("the lock");
        let starting = lock_file(&dir.join("starting"));
        starting.lock().expect("the lock");
        if !answers(&dir) {
            // Removes what a killed test run left: its databases belong to tests that are over.
            stop(bin, &dir.join("data"), "immediate");
            let _ = fs::remove_dir_all(dir.join("data"));
            let _ = fs::remove_file(dir.join("log"));
            initialise(bin, &dir.join("data"));
            start(bin, &dir.join("data"), &dir, None).expect("the server starts");
            assert!(answers(&dir), "{}", fs::read_to_string(dir.join("log")).unwrap_or_default());
        }
        let guarded = lock_file(&dir.join("guardian"));
        if guarded.try_lock().is_ok() {
            guarded.unlock().expect("the lock");
            guard(bin, &dir);
        }
        Self { dir, _in_use: in_use }
    }

    /// A new, empty database, which is gone when the value is dropped.
    pub fn database(&self) -> Database {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        // An earlier process with the same process id may have left its database.
        query(&self.dir, "postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).expect("dropped");
        query(&self.dir, "postgres", &format!("CREATE DATABASE {name}")).expect("created");
        Database { socket: self.dir.clone(), name }
    }
}

/// A database of the shared server.
pub struct Database {
    socket: PathBuf,
    name: String,
}

impl Database {
    /// The address of a store in it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/{}?host={}", self.name, self.socket.display())
    }
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Where the server's socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
    /// Runs a statement on a connection of its own.
    pub fn query(&self, text: &str) -> String {
        query(&self.socket, &self.name, text).expect("it answers")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A database that cannot be dropped is removed with the server.
        let _ = query(&self.socket, "postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// A server for one test, on a port of this machine.
pub struct Cluster {
    bin: PathBuf,
    dir: Box<dyn AsRef<Path> + Send + Sync>,
    port: u16,
    frozen: Vec<u32>,
}

impl Cluster {
    /// Starts a server; `None` where the package is not installed.
    pub fn start() -> Option<Self> {
        Self::start_in(tempfile::Builder::new().prefix("pointsman-pg-").tempdir().expect("a folder for the server"))
    }
    /// Starts a server in an empty folder, which is dropped after it.
    pub fn start_in(dir: impl AsRef<Path> + Send + Sync + 'static) -> Option<Self> {
        let bin = programs()?;
        chown_to_server(dir.as_ref());
        initialise(&bin, &dir.as_ref().join("data"));
        Some(Self::in_folder(bin, Box::new(dir)))
    }
    /// Starts a server in a folder that has its data.
    fn in_folder(bin: PathBuf, dir: Box<dyn AsRef<Path> + Send + Sync>) -> Self {
        let mut tries = 0;
        loop {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
            let folder = (*dir).as_ref();
            match start(&bin, &folder.join("data"), folder, Some(free.port())) {
                Ok(()) => return Self { bin, dir, port: free.port(), frozen: Vec::new() },
                // Another process may have taken the port meanwhile.
                Err(error) if tries == 5 => panic!("the server does not start: {error}"),
                Err(_) => tries += 1,
            }
        }
    }
    /// Its folder.
    pub fn dir(&self) -> &Path {
        (*self.dir).as_ref()
    }
    /// Starts a synchronous standby: from now on nothing is committed on this server that is not on the standby too.
    pub fn standby(&self) -> Self {
        let standby = self.copy();
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'").expect("set");
        self.query("SELECT pg_reload_conf()").expect("read");
        self.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");
        standby
    }
    /// Starts a standby that gets commits a moment after this server has acknowledged them.
    pub fn asynchronous_standby(&self) -> Self {
        let standby = self.copy();
        self.wait_for("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'");
        standby
    }
    /// Lets a standby have all that this server has committed up to now, and nothing after that.
    pub fn cut_off(&self, standby: &Self) {
        let position = self.query("SELECT pg_current_wal_lsn()").expect("a position");
        standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{}'", position.trim()));
        standby.query("ALTER SYSTEM SET primary_conninfo = ''").expect("set");
        standby.query("SELECT pg_reload_conf()").expect("read");
        standby.wait_for("SELECT count(*) = 0 FROM pg_stat_wal_receiver");
    }
    /// Waits until a query returns true.
    fn wait_for(&self, condition: &str) {
        for _ in 0..300 {
            if self.query(condition).is_ok_and(|holds| holds.trim() == "t") {
                return;
            }
            self.query("SELECT pg_sleep(0.1)").expect("it waits");
        }
        panic!("still not: {condition}");
    }
    /// A server with a copy of this one's data, which follows it.
    fn copy(&self) -> Self {
        let dir = tempfile::Builder::new().prefix("pointsman-pg-").tempdir().expect("a folder for the server");
        chown_to_server(dir.path());
        let mut copy = as_server(&self.bin.join("pg_basebackup"));
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "--checkpoint=fast", "-R", "-D"]);
        run(copy.arg(dir.path().join("data")).current_dir("/")).expect("a copy");
        Self::in_folder(self.bin.clone(), Box::new(dir))
    }
    /// Makes a standby the primary.
    pub fn promote(&self) {
        let mut command = as_server(&self.bin.join("pg_ctl"));
        command.args(["promote", "--wait", "--silent", "-D"]).arg(self.dir().join("data"));
        run(command.current_dir("/")).expect("it leads");
    }
    /// A server that was its standby, and leads, takes its address. This one must have been stopped.
    pub fn replace_by(&mut self, mut standby: Self) {
        standby.stop("fast");
        standby.port = self.port;
        standby.start_again();
        *self = standby;
    }
    /// The address of a store in it.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }
    /// The address of a database of this name.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
    /// Runs a statement on a connection of its own; the rows, or the error.
    pub fn query(&self, text: &str) -> Result<String, String> {
        query_at(self.dir(), self.port, "postgres", text)
    }
    /// Logs every statement from now on.
    pub fn log_statements(&self) {
        for text in ["log_statement = 'all'", "log_line_prefix = '%a|'"] {
            self.query(&format!("ALTER SYSTEM SET {text}")).expect("set");
        }
        self.query("SELECT pg_reload_conf()").expect("read");
    }
    /// The logged statements of Pointsman, in order; the first line of each.
    pub fn logged_statements(&self) -> Vec<String> {
        let log = fs::read(self.dir().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let ours = log.lines().filter_map(|line| line.strip_prefix("pointsman|LOG:")).map(str::trim);
        ours.filter(|line| line.starts_with("execute") || line.starts_with("statement")).map(str::to_owned).collect()
    }
    /// Ends every session but its own; returns how many.
    pub fn terminate_all(&self) -> u64 {
        let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        self.query(text).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
    /// Stops it: `fast` ends sessions and closes its files in order, `immediate` is a crash.
    pub fn stop(&self, mode: &str) {
        stop(&self.bin, &self.dir().join("data"), mode);
    }
    /// Starts it again where it was.
    pub fn start_again(&self) {
        start(&self.bin, &self.dir().join("data"), self.dir(), Some(self.port)).expect("it starts again");
    }
    /// Stops every process of it (SIGSTOP) while its sockets stay open, as when a machine hangs.
    pub fn freeze(&mut self) {
        self.frozen = self.processes();
        self.frozen.iter().for_each(|pid| signal(*pid, "STOP"));
    }
    /// Stops the processes of Pointsman's sessions (SIGSTOP) while the server itself continues; returns how many.
    pub fn freeze_sessions(&mut self) -> u64 {
        let text = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pointsman'";
        let pids = self.query(text).unwrap_or_default();
        self.frozen.extend(pids.lines().filter_map(|pid| pid.trim().parse::<u32>().ok()));
        self.frozen.iter().for_each(|pid| signal(*pid, "STOP"));
        self.frozen.len() as u64
    }
    /// Continues the stopped processes.
    pub fn thaw(&mut self) {
        self.frozen.drain(..).for_each(|pid| signal(pid, "CONT"));
    }
    /// The postmaster is stopped first, so that it starts no process while its children are listed.
    fn processes(&self) -> Vec<u32> {
        let noted = fs::read_to_string(self.dir().join("data/postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = noted.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else {
            return Vec::new();
        };
        signal(postmaster, "STOP");
        let children = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == postmaster).then_some(pid)
        });
        std::iter::once(postmaster).chain(children).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.thaw();
        self.stop("immediate");
    }
}

/// A command of the server, run as a user that it accepts.
pub fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Makes the server's user the owner of a folder.
pub fn chown_to_server(dir: &Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(dir)).expect("the folder is given away");
    }
}

fn initialise(bin: &Path, data: &Path) {
    // Only the creation of the folder is not synced to disk; the server itself runs with fsync on.
    let mut command = as_server(&bin.join("initdb"));
    command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(data);
    run(&mut command).expect("a database folder");
}

fn start(bin: &Path, data: &Path, socket: &Path, port: Option<u16>) -> Result<(), String> {
    let listen = if port.is_some() { "127.0.0.1" } else { "" };
    let options = format!(
        "-c listen_addresses='{listen}' -c port={} -c unix_socket_directories='{}' -c max_connections=300 \
         -c fsync=on -c shared_buffers=64MB",
        port.unwrap_or(SHARED_PORT),
        socket.display()
    );
    let mut command = as_server(&bin.join("pg_ctl"));
    command.args(["start", "--wait", "--silent", "-o", &options, "-D"]).arg(data).arg("-l").arg(socket.join("log"));
    // The server would keep an inherited pipe open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(fs::read_to_string(socket.join("log")).unwrap_or_default()) }
}

fn stop(bin: &Path, data: &Path, mode: &str) {
    if data.join("postmaster.pid").exists() {
        let mut command = as_server(&bin.join("pg_ctl"));
        command.args(["stop", "--wait", "--silent", "-m", mode, "-D"]).arg(data);
        // A killed server has left only its pid file.
        let _ = run(&mut command);
    }
}

/// Starts the guardian, which stops the shared server some time after its last user has ended. It outlives this
/// process.
fn guard(bin: &Path, dir: &Path) {
    let script = r#"
        (
            exec 8>"$1/guardian" 9>"$1/in-use"
            flock -n -x 8 || exit 0
            while sleep 10; do
                flock -n -x 9 && break
            done
            "$2/pg_ctl" stop --silent -m immediate -D "$1/data"
            rm -rf "$1/data"
        ) &
    "#;
    // It locks files as this user, but only the server's user may stop the server.
    let script = match is_root() {
        true => script.replace("\"$2/pg_ctl\"", "runuser -u postgres -- \"$2/pg_ctl\""),
        false => script.to_owned(),
    };
    let mut command = Command::new("sh");
    command.args(["-c", &script, "guardian"]).arg(dir).arg(bin).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The shell ends at once; the guardian runs in the background.
    command.status().expect("a guardian");
}

fn lock_file(path: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a lock file")
}

/// Whether a server answers there.
fn answers(socket: &Path) -> bool {
    query(socket, "postgres", "SELECT 1").is_ok()
}

fn query(socket: &Path, database: &str, text: &str) -> Result<String, String> {
    query_at(socket, SHARED_PORT, database, text)
}

/// The socket's file name contains a port, even where no port is open.
fn query_at(socket: &Path, port: u16, database: &str, text: &str) -> Result<String, String> {
    let mut command = Command::new("psql");
    command.arg("-h").arg(socket).args(["-p", &port.to_string(), "-U", "postgres", "-d", database]);
    command.args(["-v", "ON_ERROR_STOP=1", "-X", "-q", "-A"]);
    run(command.args(["-t", "-c", text]).env("PGCONNECT_TIMEOUT", "20")).map_err(|error| error.to_string())
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn run(command: &mut Command) -> io::Result<String> {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&stderr).into_owned())),
    }
}
