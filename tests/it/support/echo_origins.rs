//! Origins of different software that answer with the request as they read it: `METHOD TARGET BODY`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;

use super::{LOCAL, WAIT_MAX, until};

/// An origin; dropping it stops it.
pub struct EchoOrigin {
    /// The name of its software.
    pub name: &'static str,
    /// Its base URL.
    pub url: String,
    /// Whether its answer contains the request's body.
    pub reads_body: bool,
    _child: Option<(Child, Option<TempDir>)>,
    task: Option<AbortHandle>,
}

impl Drop for EchoOrigin {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Starts one origin of each kind.
pub async fn all() -> Vec<EchoOrigin> {
    let python = python();
    vec![
        hyper_server().await,
        nginx().await,
        script("Python http.server", &python, &["-c", HTTP_SERVER]).await,
        script("uvicorn", &python, &["-c", UVICORN]).await,
        script("node", Path::new("node"), &["-e", NODE]).await,
    ]
}

/// The Python in which `tests/run` has installed uvicorn.
fn python() -> PathBuf {
    let installed = std::env::var_os("POINTSMAN_UVICORN_PYTHON").map(PathBuf::from);
    let python = installed.or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("pointsman-tests/uvicorn/bin/python"))
    });
    python.filter(|python| python.exists()).expect("uvicorn is not installed: run tests/run")
}

async fn hyper_server() -> EchoOrigin {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo));
            tokio::spawn(connection);
        }
    });
    let task = Some(task.abort_handle());
    EchoOrigin { name: "hyper", url, reads_body: true, _child: None, task }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    Ok(Response::new(Full::new(text.into())))
}

async fn nginx() -> EchoOrigin {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    // nginx does not tell which port it was given for port 0.
    let free = TcpListener::bind(LOCAL).await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind}; "))
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; {temporary}\n\
         server {{ listen {address}; location / {{ default_type text/plain; return 200 \"$request_method $request_uri \"; }} }} }}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).expect("a written file");
    let child = Command::new("nginx")
        .args(["-p", &at, "-e", &format!("{at}/errors"), "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx is not installed: run tests/run");
    until("nginx", || async move { TcpStream::connect(address).await.ok() }).await;
    let url = format!("http://{address}");
    EchoOrigin { name: "nginx", url, reads_body: false, _child: Some((child, Some(dir))), task: None }
}

/// Starts a program that prints its port.
async fn script(name: &'static str, program: &Path, args: &[&str]) -> EchoOrigin {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|why| panic!("{name} does not start: {why}"));
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let port = tokio::time::timeout(WAIT_MAX, lines.next_line()).await.expect("in time").expect("text");
    let url = format!("http://127.0.0.1:{}", port.unwrap_or_else(|| panic!("{name} has no port")));
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    EchoOrigin { name, url, reads_body: true, _child: Some((child, None)), task: None }
}

const HTTP_SERVER: &str = r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def __getattr__(self, name):
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self.echo

    def echo(self):
        method, target = self.requestline.split(" ")[:2]
        text = f"{method} {target} ".encode("latin-1") + self.body()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print(server.server_port, flush=True)
server.serve_forever()
"#;

const UVICORN: &str = r#"
import socket
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    text = scope["method"].encode() + b" " + target + b" " + body
    length = (b"content-length", str(len(text)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": text})

sock = socket.socket()
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="critical")).run(sockets=[sock])
"#;

const NODE: &str = "const server = require('http').createServer((request, response) => {
  const body = [];
  request.on('data', part => body.push(part));
  request.on('end', () => {
    const head = Buffer.from(request.method + ' ' + request.url + ' ', 'latin1');
    response.end(Buffer.concat([head, ...body]));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));";
