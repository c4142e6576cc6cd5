//! The real binary as a child process.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::Method;
use pointsman::demo::http::{Client, Reply};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Metrics, WAIT_MAX, until};

pub const BINARY: &str = env!("CARGO_BIN_EXE_pointsman");

/// A running `pointsman serve`.
pub struct Pointsman {
    child: Child,
    /// The proxy's listener.
    pub listen: SocketAddr,
    /// The proxy's listeners, if there are several.
    pub listeners: Vec<SocketAddr>,
    /// The admin listener: API and metrics.
    pub admin: SocketAddr,
    /// The listener for applications, if there is one.
    pub api: Option<SocketAddr>,
    /// The egress listener, if there is one.
    pub egress: Option<SocketAddr>,
    log: PathBuf,
    client: Client,
}

/// The arguments of a start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The flag files.
    pub flags: PathBuf,
    /// `sqlite:…`, `postgres:…` or `memory:`.
    pub store: String,
    /// Where its log goes.
    pub log: PathBuf,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

impl Start {
    /// With these flag files, and the SQLite store `db` and the log in this directory.
    pub fn on_sqlite(flags: &Path, dir: &Path) -> Self {
        Self { store: format!("sqlite:{}", dir.join("db").display()), ..Self::in_memory(flags, dir) }
    }
    /// With these flag files, a store in memory, and the log in this directory.
    pub fn in_memory(flags: &Path, dir: &Path) -> Self {
        Self { flags: flags.to_owned(), store: "memory:".to_owned(), log: dir.join("log"), env: Vec::new() }
    }
}

impl Pointsman {
    /// Starts it and waits until it prints its addresses.
    pub async fn start(start: &Start) -> Self {
        Self::try_start(start).await.unwrap_or_else(|log| panic!("it did not start:\n{log}"))
    }
    /// Like [`Pointsman::start`]; returns the log if the process ends instead.
    pub async fn try_start(start: &Start) -> Result<Self, String> {
        Self::try_start_with(start, async |_| {}).await
    }
    /// Like [`Pointsman::try_start`]; `meanwhile` gets the id of the process as soon as there is one.
    pub async fn try_start_with(start: &Start, meanwhile: impl AsyncFnOnce(u32)) -> Result<Self, String> {
        Self::spawn(start, &["--listen", "127.0.0.1:0"], meanwhile).await
    }
    /// Like [`Pointsman::try_start`], with the listeners of the files.
    pub async fn try_start_with_own_listeners(start: &Start) -> Result<Self, String> {
        Self::spawn(start, &[], async |_| {}).await
    }
    /// Like [`Pointsman::try_start_with`], with `--succeed`: it takes over from the process that has the store.
    pub async fn try_succeed(start: &Start, meanwhile: impl AsyncFnOnce(u32)) -> Result<Self, String> {
        Self::spawn(start, &["--listen", "127.0.0.1:0", "--succeed"], meanwhile).await
    }
    /// Like [`Pointsman::try_start`], with another binary.
    pub async fn try_start_binary(start: &Start, binary: &str) -> Result<Self, String> {
        Self::spawn_program(start, &[binary], &["--listen", "127.0.0.1:0"], async |_| {}).await
    }
    /// Like [`Pointsman::try_start`], through a launcher that executes the command in its arguments.
    pub async fn try_start_by(start: &Start, launcher: &[&str]) -> Result<Self, String> {
        Self::spawn_by(start, launcher, &["--listen", "127.0.0.1:0"], async |_| {}).await
    }
    async fn spawn(start: &Start, more: &[&str], meanwhile: impl AsyncFnOnce(u32)) -> Result<Self, String> {
        Self::spawn_by(start, &[], more, meanwhile).await
    }
    async fn spawn_by(
        start: &Start,
        launcher: &[&str],
        more: &[&str],
        meanwhile: impl AsyncFnOnce(u32),
    ) -> Result<Self, String> {
        let program: Vec<&str> = launcher.iter().copied().chain([BINARY]).collect();
        Self::spawn_program(start, &program, more, meanwhile).await
    }
    async fn spawn_program(
        start: &Start,
        program: &[&str],
        more: &[&str],
        meanwhile: impl AsyncFnOnce(u32),
    ) -> Result<Self, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&start.log).expect("a log file");
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .args(["serve", "--admin", "127.0.0.1:0", "--store", &start.store])
            .args(more)
            .arg("--flags")
            .arg(&start.flags)
            // With a store that is not a file, the file of retry keys is here.
            .env("STATE_DIRECTORY", start.log.parent().expect("a directory"))
            .envs(start.env.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        meanwhile(child.id().expect("it runs")).await;
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = tokio::time::timeout(WAIT_MAX, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(value) = serde_json::from_str::<Value>(&line)
                    && value["listen"].is_string()
                {
                    return Some(value);
                }
            }
            None
        })
        .await
        .expect("it says where it listens");
        let Some(addresses) = first else { return Err(read(&start.log)) };
        // Its later output is read and discarded, or it would block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = |name: &str| -> SocketAddr {
            addresses[name].as_str().and_then(|text| text.parse().ok()).expect("an address")
        };
        Ok(Self {
            child,
            listen: address("listen"),
            listeners: serde_json::from_value(addresses["listeners"].clone()).unwrap_or_default(),
            admin: address("admin"),
            api: addresses["api"].as_str().and_then(|text| text.parse().ok()),
            egress: addresses["egress"].as_str().and_then(|text| text.parse().ok()),
            log: start.log.clone(),
            client: Client::new(Duration::from_secs(40)),
        })
    }
    /// Where the proxy listens, as a base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }
    /// The admin listener's base URL.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
    /// Its log so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }
    /// Sends a request to the admin listener.
    pub async fn api(&self, method: Method, path: &str, body: Value) -> Reply {
        let url = format!("{}{path}", self.admin_url());
        self.client.json(method, &url, &[], &body).await.unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.log()))
    }
    /// Waits until a route has a candidate, and puts it in force.
    pub async fn put_candidate_in_force(&self, route: &str) {
        let row = format!("/api/v2/routes/{route}");
        until("the candidate", || async { (!self.get(&row).await["row"]["candidate"].is_null()).then_some(()) }).await;
        let to = serde_json::json!({ "to": "in-force", "force": true, "reason": "a test" });
        let moved = self.api(Method::POST, &format!("{row}/candidate"), to).await;
        assert!(moved.status.is_success(), "{}: {}\n{}", moved.status, moved.json(), self.log());
    }
    /// Like [`Pointsman::api`], with headers.
    pub async fn api_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let url = format!("{}{path}", self.admin_url());
        self.client.json(method, &url, headers, &body).await.unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.log()))
    }
    /// Sends a GET, which may fail, to the admin listener.
    pub async fn try_api(&self, path: &str) -> Option<Reply> {
        let url = format!("{}{path}", self.admin_url());
        self.client.json(Method::GET, &url, &[], &Value::Null).await.ok()
    }
    /// Sends a GET to the admin listener; returns the answer as JSON.
    pub async fn get(&self, path: &str) -> Value {
        let reply = self.api(Method::GET, path, Value::Null).await;
        assert!(reply.status.is_success(), "GET {path}: {} {:?}", reply.status, reply.body);
        reply.json()
    }
    /// Scrapes the metrics.
    pub async fn metrics(&self) -> Metrics {
        let reply = self.api(Method::GET, "/metrics", Value::Null).await;
        Metrics::parse(std::str::from_utf8(&reply.body).expect("text"))
    }
    /// Runs a command of the same binary against this process.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        cli(arguments, &[("POINTSMAN_ADMIN", &self.admin_url())]).await
    }
    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }
    /// The peak of resident memory since the start or the last [`Pointsman::reset_peak`], KiB.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }
    /// Resets the peak to the resident memory, and returns that, KiB.
    pub fn reset_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("the peak can be reset");
        self.resident_kib()
    }
    /// The processor time that its threads of this name have used so far.
    pub fn cpu_of_threads(&self, name: &str) -> Duration {
        let of = |thread: std::fs::DirEntry| -> Option<u64> {
            let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
            (read("comm")?.trim() == name).then(|| read("schedstat")?.split(' ').next()?.parse().ok()).flatten()
        };
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        Duration::from_nanos(threads.flatten().filter_map(of).sum())
    }
    /// How many files and sockets it holds.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }
    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
    }
    /// Sends SIGKILL, and waits until the process has ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it could be killed");
    }
    /// Whether it has ended by itself. Read from `/proc`: the end of a traced process is reported to its tracer first.
    pub fn is_gone(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        status.is_empty() || status.contains("\nState:\tZ") || status.contains("\nState:\tX")
    }
    /// Sends SIGTERM, and does not wait.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }
    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().try_into().expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the signal could be sent");
    }
    /// Waits until the process ends; returns the exit code.
    pub async fn wait_for_exit(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(WAIT_MAX, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it did not end:\n{}", read(&self.log)));
        status.expect("it could be waited for").code()
    }
    /// Sends SIGTERM, and waits for the end; returns the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.terminate();
        self.wait_for_exit().await
    }
    /// Waits until a scrape satisfies a condition, and returns that scrape.
    pub async fn until_metric(&self, what: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
        until(what, || async {
            let metrics = self.metrics().await;
            holds(&metrics).then_some(metrics)
        })
        .await
    }
}

/// Runs a command of the binary.
pub async fn cli(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let command = Command::new(BINARY)
        .args(arguments)
        .envs(env.iter().copied())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(WAIT_MAX, command).await.expect("the command ends").expect("the binary starts")
}

/// The output of a command, both streams.
pub fn output_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The output of a command, both streams, as one line: long texts are broken at spaces.
pub fn output_line(output: &Output) -> String {
    one_line(&output_text(output))
}

/// A text as one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let _read = file.read_to_string(&mut text);
    }
    text
}
