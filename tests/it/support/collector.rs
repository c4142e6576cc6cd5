//! A real OpenTelemetry collector (rotel), which prints the spans that it is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{LOCAL, until};

/// The collector; dropping it ends it.
pub struct Collector {
    _child: Child,
    port: u16,
    dir: TempDir,
}

/// A span that the collector received.
#[derive(Clone, Debug, Default)]
pub struct ReceivedSpan {
    pub trace: String,
    /// Empty in the first span of a trace.
    pub parent: String,
    pub id: String,
    pub name: String,
    /// As printed, such as `SPAN_KIND_SERVER`.
    pub kind: String,
    /// As printed, such as `STATUS_CODE_ERROR`.
    pub status: String,
    /// Values as printed, such as `Str(legacy)` or `Int(200)`.
    pub attributes: BTreeMap<String, String>,
}

impl ReceivedSpan {
    /// The value of an attribute; empty where there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    /// Starts the collector, and waits until it listens.
    pub async fn start() -> Self {
        // rotel cannot listen on port 0, and ends if another process has taken the free port meanwhile.
        for _ in 0..5 {
            if let Some(collector) = Self::try_start(free_port(), free_port()).await {
                return collector;
            }
        }
        panic!("the collector does not start");
    }
    async fn try_start(port: u16, grpc_port: u16) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let output = std::fs::File::create(dir.path().join("output")).expect("a file");
        let mut child = Command::new(binary())
            .args(["start", "--otlp-http-endpoint", &format!("127.0.0.1:{port}")])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc_port}")])
            .args(["--exporter", "blackhole", "--traces-batch-timeout", "200ms"])
            .args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a file"))
            .stdout(output)
            .kill_on_drop(true)
            .spawn()
            .expect("the collector starts");
        let listens = until("the collector listens or ends", || {
            let has_ended = child.try_wait().expect("its state").is_some();
            async move {
                let listens = TcpStream::connect(("127.0.0.1", port)).await.is_ok();
                (has_ended || listens).then_some(!has_ended)
            }
        });
        listens.await.then_some(Self { _child: child, port, dir })
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    /// Its output so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("output")).expect("readable output")
    }
    /// Waits until the collector has printed this many spans, and returns them.
    pub async fn spans(&self, count: usize) -> Vec<ReceivedSpan> {
        until(&format!("{count} spans"), async || Some(parse(&self.output())).filter(|spans| spans.len() >= count))
            .await
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(LOCAL).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The program that `tests/run` has installed.
fn binary() -> PathBuf {
    let installed = std::env::var_os("POINTSMAN_ROTEL").map(PathBuf::from);
    let binary = installed.or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        let lib = std::fs::read_dir(cache.join("pointsman-tests/rotel/lib")).ok()?;
        let mut packages = lib.flatten().map(|python| python.path().join("site-packages/rotel/rotel-agent"));
        packages.find(|binary| binary.exists())
    });
    binary.filter(|binary| binary.exists()).expect("rotel is not installed: run tests/run")
}

/// The spans of its output. One that is not printed whole yet is left out.
fn parse(output: &str) -> Vec<ReceivedSpan> {
    let mut spans = Vec::new();
    for block in output.split("Span #").skip(1).filter(|block| block.contains("\nAttributes:")) {
        let mut span = ReceivedSpan::default();
        for line in block.lines() {
            if let Some((key, value)) = line.trim_start().strip_prefix("-> ").and_then(|line| line.split_once(": ")) {
                span.attributes.insert(key.to_owned(), value.to_owned());
            } else if let Some((name, value)) = line.split_once(':') {
                let field = match name.trim() {
                    "Trace ID" => &mut span.trace,
                    "Parent ID" => &mut span.parent,
                    "ID" => &mut span.id,
                    "Name" => &mut span.name,
                    "Kind" => &mut span.kind,
                    "Status code" => &mut span.status,
                    _ => continue,
                };
                *field = value.trim().to_owned();
            }
        }
        spans.push(span);
    }
    spans
}
