//! Listeners of the real binary, with third-party clients: curl and openssl.

use std::net::SocketAddr;
use std::process::Stdio;

use pointsman::limits::TLS_SESSIONS_MAX;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::certificates::{Authority, Issued, Subject};
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, cli, output_text};
use crate::support::raw_connection::RawConnection;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

struct ListenerSystem {
    flags: FlagsDir,
    origin: Origin,
    pointsman: Pointsman,
    dir: TempDir,
}

/// The arguments of a start with these flag files.
fn start(flags: &FlagsDir, dir: &TempDir) -> Start {
    Start::in_memory(flags.path(), dir.path())
}

fn put(flags: &FlagsDir, name: &str, issued: &Issued) {
    flags.write(&format!("{name}.key"), &issued.key);
    flags.write(&format!("{name}.pem"), &issued.cert);
}

/// Flag files with two listeners: a plain one, and one with these settings.
fn files(origin: &Origin, second: &str) -> FlagsDir {
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| {
        format!("listen:\n  - 127.0.0.1:0\n  - address: 127.0.0.1:0\n    {second}\n{text}")
    });
    flags
}

impl ListenerSystem {
    async fn start(second: &str, write: impl FnOnce(&FlagsDir)) -> Self {
        let origin = Origin::start(OriginReply::Json("{}")).await;
        let flags = files(&origin, second);
        write(&flags);
        let dir = tempfile::tempdir().expect("a directory");
        let started = Pointsman::try_start_with_own_listeners(&start(&flags, &dir)).await;
        let pointsman = started.unwrap_or_else(|log| panic!("it did not start:\n{log}"));
        assert_eq!(pointsman.listeners.len(), 2);
        Self { flags, origin, pointsman, dir }
    }
    fn second(&self) -> SocketAddr {
        self.pointsman.listeners[1]
    }
    /// Writes a file beside the log; returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
    /// Runs curl against the second listener under a host name. Returns its exit code and what it printed.
    async fn curl(&self, host: &str, more: &[&str]) -> (Option<i32>, String) {
        let port = self.second().port();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"])
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
            .args(more)
            .arg(format!("https://{host}:{port}/hello"))
            .output();
        let output = tokio::time::timeout(WAIT_MAX, output).await.expect("it ends").expect("curl is on this machine");
        (output.status.code(), output_text(&output))
    }
    /// Connects with openssl under a host name. Returns its output, with the subject of the certificate and whether the
    /// session was resumed.
    async fn openssl(&self, name: &str, more: &[&str]) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.second().to_string(), "-servername", name])
            .args(more)
            .stdin(Stdio::null())
            .output();
        let output =
            tokio::time::timeout(WAIT_MAX, output).await.expect("it ends").expect("openssl is on this machine");
        output_text(&output)
    }
    async fn last_error(&self) -> Option<String> {
        let status = self.pointsman.get("/api/v2/status").await;
        status["flags"]["last_error"].as_str().map(str::to_owned)
    }
}

const TLS: &str = "tls: { certificates: [{ cert: shop.pem, key: shop.key }, { cert: api.pem, key: api.key }] }";

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_openssl_speak_tls_with_the_certificate_of_the_name() {
    let authority = Authority::new("Test");
    let system = ListenerSystem::start(TLS, |flags| {
        put(flags, "shop", &authority.issue_for("shop.test"));
        put(flags, "api", &authority.issue_for("*.api.test"));
    })
    .await;
    let ca = system.file("ca.pem", &authority.pem());
    for version in ["1.2", "1.3"] {
        for host in ["shop.test", "v1.api.test"] {
            let versions = [format!("--tlsv{version}"), "--tls-max".into(), version.to_owned()];
            let versions = versions.iter().map(String::as_str).collect::<Vec<_>>();
            let (code, text) = system.curl(host, &[&["--cacert", &ca][..], &versions].concat()).await;
            assert_eq!((code, text.as_str()), (Some(0), "{}"), "TLS {version} to {host}");
            let request = system.origin.seen().pop().expect("a request");
            assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        }
    }
    // Exit code 60: curl does not trust the certificate.
    assert_eq!(system.curl("shop.test", &[]).await.0, Some(60));
    assert!(system.openssl("x.api.test", &[]).await.contains("CN = *.api.test"));
    assert!(system.openssl("unknown.test", &[]).await.contains("CN = shop.test"), "the first is the default");
    assert!(
        !system.openssl("shop.test", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).await.contains("CN = shop.test")
    );
    let session = system.dir.path().join("session").display().to_string();
    system.openssl("shop.test", &["-tls1_2", "-sess_out", &session]).await;
    let again = system.openssl("shop.test", &["-tls1_2", "-sess_in", &session]).await;
    assert!(again.contains("Reused, TLSv1.2"), "{again}");
    // A session is resumed from the server's cache too, without a ticket.
    system.openssl("shop.test", &["-tls1_2", "-no_ticket", "-sess_out", &session]).await;
    let again = system.openssl("shop.test", &["-tls1_2", "-no_ticket", "-sess_in", &session]).await;
    assert!(again.contains("Reused, TLSv1.2"), "a cache of {TLS_SESSIONS_MAX} sessions: {again}");
    // A plain HTTP request to the TLS listener gets no answer in plaintext.
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let answer = RawConnection::connect(system.second()).await.send(request).await.read_to_close().await;
    assert!(answer.is_empty() || answer[0] == 21, "an alert at most: {answer:?}");
    let metrics = system.pointsman.metrics().await;
    let of = |name: &str, label: (&str, &str)| metrics.sum(name, &[label]);
    assert!(of("pointsman_tls_handshakes_total", ("kind", "resumed")) >= 2.0);
    assert!(of("pointsman_tls_handshake_failures_total", ("reason", "alert")) >= 1.0);
    assert!(of("pointsman_tls_handshake_failures_total", ("reason", "not_tls")) >= 1.0);
    assert!(of("pointsman_tls_handshake_failures_total", ("reason", "version")) >= 1.0);
    assert!(of("pointsman_client_connections_total", ("protocol", "tls1.3")) >= 2.0);
    assert!(of("pointsman_certificate_expires_seconds", ("listener", "127.0.0.1:0")) > 1e9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_without_a_restart_and_a_bad_one_is_not() {
    let (old, new) = (Authority::new("Old"), Authority::new("New"));
    let first = old.issue_for("shop.test");
    let system = ListenerSystem::start(TLS, |flags| {
        put(flags, "shop", &first);
        put(flags, "api", &old.issue_for("api.test"));
    })
    .await;
    let (old_ca, new_ca) = (system.file("old.pem", &old.pem()), system.file("new.pem", &new.pem()));
    // A connection that is open during all of this.
    let open = system.openssl_session("shop.test").await;
    // A pair that does not match changes nothing, and is visible.
    let renewed = new.issue_for("shop.test");
    system.flags.write("shop.pem", &renewed.cert);
    let error = until("the refusal", || system.last_error()).await;
    assert!(error.contains("shop.key") && error.contains("does not belong to the certificate"), "{error}");
    assert!(error.contains("pointsman.yaml:4:"), "it names the line:\n{error}");
    assert!(system.pointsman.log().contains("does not belong to the certificate"));
    let metrics = system.pointsman.metrics().await;
    assert!(metrics.sum("pointsman_flags_reload_failures_total", &[]) >= 1.0);
    assert_eq!(system.curl("shop.test", &["--cacert", &old_ca]).await.0, Some(0), "the old certificate is served");
    // The new key is written too.
    system.flags.write("shop.key", &renewed.key);
    until("the new certificate", || async {
        (system.curl("shop.test", &["--cacert", &new_ca]).await.0 == Some(0)).then_some(())
    })
    .await;
    until("no error", || async { system.last_error().await.is_none().then_some(()) }).await;
    // An expired certificate is named in a warning, and not served.
    let long_ago = Subject { names: &["shop.test"], years: Some((2001, 2002)), ..Subject::default() };
    let expired = new.issue(&long_ago);
    system.flags.write("shop.key", &expired.key);
    system.flags.write("shop.pem", &expired.cert);
    until("the warning", || async {
        let status = system.pointsman.get("/api/v2/status").await;
        let warnings = status["flags"]["warnings"].to_string();
        let is_named = warnings.contains("expired at 2002-01-01") && warnings.contains("pointsman.yaml:4:");
        (is_named && !warnings.contains("warning: ")).then_some(())
    })
    .await;
    until("the log", || async { system.pointsman.log().contains("a new certificate has expired").then_some(()) }).await;
    assert_eq!(system.curl("shop.test", &["--cacert", &new_ca]).await.0, Some(0), "the certificate before is served");
    assert!(system.pointsman.metrics().await.sum("pointsman_certificate_expires_seconds", &[]) > 0.0);
    put(&system.flags, "shop", &renewed);
    until("no warning", || async {
        let status = system.pointsman.get("/api/v2/status").await;
        (!status["flags"]["warnings"].to_string().contains("expired")).then_some(())
    })
    .await;
    // A file that is gone.
    std::fs::remove_file(system.flags.file("shop.key")).expect("removed");
    system.pointsman.signal(rustix::process::Signal::HUP);
    let error = until("the refusal", || system.last_error()).await;
    assert!(error.contains("shop.key` cannot be read"), "{error}");
    assert_eq!(system.curl("shop.test", &["--cacert", &new_ca]).await.0, Some(0));
    system.flags.write("shop.key", &renewed.key);
    until("no error", || async { system.last_error().await.is_none().then_some(()) }).await;
    open.still_answers().await;
}

/// A connection of openssl on which requests can be sent.
struct OpenSession {
    child: tokio::process::Child,
}

impl ListenerSystem {
    async fn openssl_session(&self, name: &str) -> OpenSession {
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &self.second().to_string(), "-servername", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is on this machine");
        let mut session = OpenSession { child };
        session.ask().await;
        session
    }
}

impl OpenSession {
    async fn ask(&mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.expect("written");
        input.flush().await.expect("written");
        let output = self.child.stdout.as_mut().expect("a pipe");
        let mut seen = Vec::new();
        while !seen.ends_with(b"{}") {
            let mut some = [0; 1_024];
            let read = tokio::time::timeout(WAIT_MAX, output.read(&mut some)).await.expect("in time").expect("a reply");
            assert!(read > 0, "the connection was closed: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&some[..read]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 200"));
    }
    async fn still_answers(mut self) {
        self.ask().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_bad_certificates_is_refused_with_their_places() {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let authority = Authority::new("Test");
    let good = authority.issue_for("shop.test");
    let flags = files(&origin, TLS);
    put(&flags, "api", &good);
    put(&flags, "shop", &Issued { key: authority.issue_for("shop.test").key, ..good.clone() });
    let dir = tempfile::tempdir().expect("a directory");
    let refused = Pointsman::try_start_with_own_listeners(&start(&flags, &dir)).await.err().expect("it is refused");
    assert!(refused.contains("shop.key` does not belong to the certificate"), "{refused}");
    assert!(refused.contains("pointsman.yaml:4:"), "{refused}");
    // An expired one is a warning.
    let expired = Subject { names: &["shop.test"], years: Some((2001, 2002)), ..Subject::default() };
    put(&flags, "shop", &authority.issue(&expired));
    let checked = cli(&["check", &flags.path().display().to_string()], &[]).await;
    let text = output_text(&checked);
    assert!(checked.status.success() && text.contains("the certificate expired at 2002-01-01"), "{text}");
    let dir = tempfile::tempdir().expect("a directory");
    let started = Pointsman::try_start_with_own_listeners(&start(&flags, &dir)).await;
    let pointsman = started.unwrap_or_else(|log| panic!("it did not start:\n{log}"));
    let status = pointsman.get("/api/v2/status").await;
    assert!(status["flags"]["warnings"].to_string().contains("expired"), "{status}");
    assert!(pointsman.metrics().await.sum("pointsman_certificate_expires_seconds", &[]) < 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_with_a_client_certificate_is_known_to_legacy() {
    let authority = Authority::new("Test");
    let clients = Authority::new("Clients");
    let second = "tls: { certificates: [{ cert: shop.pem, key: shop.key }], clients: { ca: clients.pem, \
                  header: x-client-cert-subject } }";
    let system = ListenerSystem::start(second, |flags| {
        put(flags, "shop", &authority.issue_for("shop.test"));
        flags.write("clients.pem", &clients.pem());
    })
    .await;
    let ca = system.file("ca.pem", &authority.pem());
    let own = clients.issue(&Subject { common_name: Some("app"), organization: Some("Example"), ..Subject::default() });
    let (cert, key) = (system.file("own.pem", &own.cert), system.file("own.key", &own.key));
    let sent = "x-client-cert-subject: CN=root";
    let (code, text) = system.curl("shop.test", &["--cacert", &ca, "--cert", &cert, "--key", &key, "-H", sent]).await;
    assert_eq!((code, text.as_str()), (Some(0), "{}"));
    let request = system.origin.seen().pop().expect("a request");
    assert_eq!(request.header("x-client-cert-subject"), Some("CN=app,O=Example"));
    let (code, _) = system.curl("shop.test", &["--cacert", &ca]).await;
    assert_ne!(code, Some(0), "a client certificate is required");
    // The field is removed on the plain listener too.
    let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{sent}\r\n\r\n");
    let reply = RawConnection::connect(system.pointsman.listen).await.send(request).await.reply().await;
    assert_eq!(reply.status, 200);
    let request = system.origin.seen().pop().expect("a request");
    assert_eq!(request.header("x-client-cert-subject"), None);
    let metrics = system.pointsman.metrics().await;
    assert!(metrics.sum("pointsman_tls_handshake_failures_total", &[("reason", "no_client_certificate")]) >= 1.0);
}

/// curl can send the PROXY protocol header itself.
#[tokio::test(flavor = "multi_thread")]
async fn curl_behind_a_proxy_header_speaks_tls() {
    let authority = Authority::new("Test");
    let second = "tls: { certificates: [{ cert: shop.pem, key: shop.key }] }\n    \
                  proxy_protocol: { version: v1, trust: [127.0.0.0/8] }";
    let system = ListenerSystem::start(second, |flags| put(flags, "shop", &authority.issue_for("shop.test"))).await;
    let ca = system.file("ca.pem", &authority.pem());
    let (code, text) = system.curl("shop.test", &["--cacert", &ca, "--haproxy-protocol"]).await;
    assert_eq!((code, text.as_str()), (Some(0), "{}"));
    assert_ne!(system.curl("shop.test", &["--cacert", &ca]).await.0, Some(0), "the header is required");
    let metrics = system.pointsman.metrics().await;
    assert!(metrics.sum("pointsman_proxy_headers_total", &[("outcome", "proxied")]) >= 1.0);
    assert!(metrics.sum("pointsman_proxy_headers_total", &[("outcome", "malformed")]) >= 1.0);
}
