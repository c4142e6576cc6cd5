//! The container image: built from the binary under test by `deploy/build-image`, and run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{path, run, stdout, stop_s_max};
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::BINARY;
use crate::support::{FlagsDir, WAIT_MAX, until};

/// The user of the image.
const USER: u32 = 65_532;

/// Images and containers of one test, in a directory of their own.
struct Storage(tempfile::TempDir);

impl Storage {
    fn options(&self) -> Vec<String> {
        let at = |name: &str| self.0.path().join(name).display().to_string();
        ["--root", &at("storage"), "--runroot", &at("run"), "--storage-driver", "vfs"].map(str::to_owned).to_vec()
    }
    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command.args(self.options());
        command
    }
    /// Whether containers can be made here: in some sandboxes the kernel refuses it.
    fn refusal(&self) -> Option<String> {
        let (works, said) = run(self.buildah().args(["from", "--name", "probe", "scratch"]));
        if !works {
            return Some(said);
        }
        let (works, mounted) = run(self.buildah().args(["mount", "probe"]));
        if !works {
            return Some(mounted);
        }
        let probe = Path::new(mounted.trim()).join("probe");
        // A program that is in every system without libraries: the loader itself.
        fs::copy("/lib64/ld-linux-x86-64.so.2", &probe).expect("copied");
        let (works, said) = run(self.buildah().args(["run", "--isolation", "chroot", "probe", "/probe", "--version"]));
        (!works).then_some(said)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Unmounts what a container has mounted.
        let _ = self.buildah().args(["rm", "--all"]).output();
    }
}

/// A copy of the binary under test without what only a debugger needs: the image is a tenth of the size.
fn stripped(dir: &Path) -> String {
    let to = dir.join("pointsman").display().to_string();
    stdout(Command::new("strip").args(["-o", &to, BINARY]));
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_serves_as_another_user_and_writes_only_to_its_volume() {
    let storage = Storage(tempfile::tempdir().expect("a directory"));
    if let Some(refusal) = storage.refusal() {
        let name = "deploy::image::the_image_serves_as_another_user_and_writes_only_to_its_volume";
        eprintln!("\n==== SKIPPED {name}: containers cannot be made here ====\n{refusal}");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let builder = format!("buildah {} build --isolation chroot --format docker", storage.options().join(" "));
    stdout(Command::new(path("build-image")).arg(stripped(dir.path())).env("BUILDER", builder));
    let image = format!("localhost/pointsman:{}", env!("CARGO_PKG_VERSION"));
    let about = stdout(storage.buildah().args(["inspect", "--type", "image", &image]));
    let about: Value = serde_json::from_str(&about).expect("JSON");
    let config = &about["Docker"]["config"];
    assert_eq!(config["User"], format!("{USER}:{USER}"), "{config:#}");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "/usr/bin/pointsman", "health"]));

    let container = stdout(storage.buildah().args(["from", "--pull-never", &image])).trim().to_owned();
    let root = stdout(storage.buildah().args(["mount", &container])).trim().to_owned();
    let before = files(Path::new(&root));
    assert!(before.len() < 20 && before.iter().any(|file| file.ends_with("usr/bin/pointsman")), "{before:?}");

    let legacy = Origin::start(OriginReply::Json(r#"{"from": "legacy"}"#)).await;
    let flags = FlagsDir::passthrough(&legacy.url());
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("a directory");
    let mount = |from: &Path, to: &str, how: &str| format!("--volume={}:{to}:{how}", from.display());
    for (at, mode) in [(flags.path(), 0o755), (&state, 0o777)] {
        fs::set_permissions(at, fs::Permissions::from_mode(mode)).expect("its owner");
    }
    let log = fs::File::create(dir.path().join("log")).expect("a log");
    let mut serving = tokio::process::Command::from(storage.buildah())
        .args(["run", "--isolation", "chroot"])
        .arg(mount(flags.path(), "/etc/pointsman", "ro"))
        .arg(mount(&state, "/var/lib/pointsman", "rw"))
        .args([&container, "/usr/bin/pointsman", "serve", "--flags", "/etc/pointsman"])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", "sqlite:pointsman.db"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("buildah (tests/run installs it)");
    let mut lines = BufReader::new(serving.stdout.take().expect("a pipe")).lines();
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let first = tokio::time::timeout(WAIT_MAX, lines.next_line()).await.unwrap_or_else(|_| panic!("{}", log()));
    let addresses = first.expect("readable").unwrap_or_else(|| panic!("it ended: {}", log()));
    let addresses: Value = serde_json::from_str(&addresses).expect("JSON");
    let (listen, admin) = (addresses["listen"].as_str().expect("one"), addresses["admin"].as_str().expect("one"));

    let client = pointsman::demo::http::Client::new(WAIT_MAX);
    let reply = client.json(http::Method::GET, &format!("http://{listen}/things"), &[], &Value::Null).await;
    assert_eq!(reply.expect("an answer").json()["from"], "legacy");
    // The health check, by the binary in a container of the image.
    let health = |more: &[&str]| {
        let mut command = storage.buildah();
        command.args(["run", "--isolation", "chroot", &container, "/usr/bin/pointsman", "health"]).args(more);
        run(&mut command)
    };
    let url = format!("http://{admin}");
    assert_eq!(health(&["--admin", &url]), (true, "ok\n".to_owned()));
    assert_eq!(health(&["--ready", "--admin", &url]), (true, "ready\n".to_owned()));
    let (is_healthy, said) = health(&["--admin", "http://127.0.0.1:1"]);
    assert!(!is_healthy && said.contains("no pointsman answers"), "{said}");

    let process = process_of(&state).expect("the process that has the store");
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    assert!(status.contains(&format!("\nUid:\t{USER}\t{USER}\t{USER}\t{USER}\n")), "{status}");
    stdout(Command::new("kill").args(["-s", "TERM", &process.to_string()]));
    let ended = tokio::time::timeout(WAIT_MAX.max(std::time::Duration::from_secs(stop_s_max())), serving.wait()).await;
    assert!(ended.expect("in time").expect("waited for").success(), "{}", log());
    until("the end of the container", || async { process_of(&state).is_none().then_some(()) }).await;
    assert!(state.join("pointsman.db").exists());
    assert_eq!(files(Path::new(&root)), before, "nothing was written but to the volume, so its root may be read-only");
}

/// The files below a directory; those that the container tool itself mounts or makes are left out.
fn files(dir: &Path) -> Vec<String> {
    let own = ["/dev/", "/proc/", "/sys/", "/run/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
    let listed = stdout(Command::new("find").arg(dir).args(["-xdev", "-type", "f", "-printf", "/%P\\n"]));
    let mut files: Vec<String> =
        listed.lines().filter(|file| !own.iter().any(|own| file.starts_with(own))).map(str::to_owned).collect();
    files.sort();
    files
}

/// The process that has this directory as its working directory.
fn process_of(dir: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let wanted = fs::metadata(dir).ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let at = fs::metadata(format!("/proc/{pid}/cwd")).ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        ((at.dev(), at.ino()) == (wanted.dev(), wanted.ino()) && name.trim() == "pointsman").then_some(pid)
    })
}
