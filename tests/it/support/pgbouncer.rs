//! PgBouncer in transaction mode, from the distribution's package, in front of a server of a test.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::postgres_server::{Cluster, as_server, chown_to_server};
use super::until_true;

/// Fewer sessions of the server than clients: they take turns.
const SERVER_SESSIONS: u32 = 2;

/// A running pooler; stopped when it is dropped.
pub struct PgBouncer {
    dir: tempfile::TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl PgBouncer {
    /// Starts one before this server; `None` where the package is not installed.
    pub fn start(server: &Cluster) -> Option<Self> {
        if Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status().is_err() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("pointsman-pgbouncer-").tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let at = |name: &str| dir.path().join(name).display().to_string();
        // Nothing of it is set for Pointsman: startup parameters and prepared statements are as in the package.
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\nadmin_users = postgres\npool_mode = transaction\n\
             default_pool_size = {SERVER_SESSIONS}\nmax_client_conn = 200\nlogfile = {}\npidfile = {}\n",
            server.address().ip(),
            server.address().port(),
            free.port(),
            at("users"),
            at("log"),
            at("pid"),
        );
        fs::write(dir.path().join("users"), "\"postgres\" \"\"\n").expect("written");
        fs::write(dir.path().join("settings.ini"), settings).expect("written");
        chown_to_server(dir.path());
        let mut pooler = Self { dir, address: free, process: None };
        pooler.start_again();
        Some(pooler)
    }
    /// Its version, as it prints it.
    pub fn version() -> String {
        let output = Command::new("pgbouncer").arg("--version").output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    }
    /// Starts it again at its address.
    pub fn start_again(&mut self) {
        let mut command = as_server(Path::new("/usr/sbin/pgbouncer"));
        command.arg(self.dir.path().join("settings.ini")).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("it starts"));
        let address = self.address;
        let accepts = || TcpStream::connect(address).is_ok();
        tokio::runtime::Handle::current().block_on(until_true("the pooler to accept connections", accepts));
    }
    /// Stops it: its clients lose their connections, and new ones are refused.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = fs::read_to_string(self.dir.path().join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<i32>()
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = process.wait();
    }
    /// The address of a store through it.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address)
    }
    /// How many transactions it has passed on.
    pub fn transactions(&self) -> u64 {
        let mut command = Command::new("psql");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.address.port().to_string(),
            "-U",
            "postgres",
            "-X",
            "-A",
            "-t",
            "-c",
        ]);
        let output = command.args(["SHOW STATS_TOTALS", "pgbouncer"]).output().expect("psql");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of_store = text.lines().find_map(|line| line.strip_prefix("postgres|")).unwrap_or_default();
        of_store.split('|').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}
