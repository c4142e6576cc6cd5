//! Sockets that a service manager opens and passes on (LISTEN_FDS).

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::Pointsman;
use crate::support::process::Start;
use crate::support::test_system::TestSystem;

/// Opens the sockets that the first argument lists (`ADDRESS=NAME,…`), then executes the command in the others.
const MANAGER: &str = r#"
import fcntl, os, socket, sys
names = []
for at, spec in enumerate(sys.argv[1].split(",")):
    address, name = spec.split("=")
    host, port = address.rsplit(":", 1)
    opened = socket.socket()
    opened.bind((host, int(port)))
    if name != "bound-only":
        opened.listen(1024)
    # Kept above the numbers that it is copied to below.
    names.append((name, fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD, 100)))
    opened.detach()
for at, (name, number) in enumerate(names):
    os.dup2(number, 3 + at, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(names))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in names)
os.environ["LISTEN_PID"] = str(os.getpid() + int(os.environ.get("WRONG_PID", "0")))
os.execv(sys.argv[2], sys.argv[2:])
"#;

async fn start(start: &Start, sockets: &str) -> Result<Pointsman, String> {
    Pointsman::try_start_by(start, &["python3", "-c", MANAGER, sockets]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_serves_on_the_sockets_that_it_is_given() {
    let mut system = TestSystem::start().await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    let started = start(&system.arguments(), "127.0.0.1:0=admin,127.0.0.2:0=listen").await;
    system.pointsman = started.unwrap_or_else(|log| panic!("{log}"));
    assert_eq!(system.pointsman.listen.ip().to_string(), "127.0.0.2", "its own socket would be on 127.0.0.1");
    system.create_read_cancel().await;
    assert!(system.pointsman.get("/api/v2/status").await["listen"].as_str().is_some_and(|it| it.contains("127.0.0.2")));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_not_those_of_the_files_are_refused_by_name() {
    let mut system = TestSystem::start().await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    let cases = [
        ("127.0.0.1:0=listen", "none is for `admin.listen` (127.0.0.1:0)"),
        (
            "127.0.0.1:0=listen,127.0.0.1:0=admin,127.0.0.1:0=extra",
            "named `extra`, and that is no listener of the files",
        ),
        ("127.0.0.1:0=listen,0.0.0.0:0=admin", "other machines can reach"),
        (
            "127.0.0.1:0=listen,127.0.0.1:0=bound-only",
            "descriptor 4 of those that were passed (LISTEN_FDS) is no TCP socket",
        ),
    ];
    for (sockets, sentence) in cases {
        let log = start(&system.arguments(), sockets).await.map(|_| ()).expect_err("it must not start");
        assert!(log.contains(sentence), "{sockets}: {log}");
    }
    // The variables name another process id, so the process ignores them and opens its own sockets.
    let mut arguments = system.arguments();
    arguments.env.push(("WRONG_PID".to_owned(), "1".to_owned()));
    system.pointsman = start(&arguments, "127.0.0.2:0=listen").await.unwrap_or_else(|log| panic!("{log}"));
    assert_eq!(system.pointsman.listen.ip().to_string(), "127.0.0.1");
    let reply = system.send(Method::GET, "/nowhere", &Value::Null).await.expect("an answer");
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    system.finish().await;
}
