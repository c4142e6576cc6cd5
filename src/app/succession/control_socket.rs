//! The Unix socket beside the store on which a process is asked to hand over.
//!
//! Always true: the socket belongs to the process that has the store's lock, which replaces a socket that an earlier
//! process left; only the user of the process may connect (mode 0600), and each side checks the other's user.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

/// How many connections of successors may wait to be accepted.
const BACKLOG: i32 = 8;

/// The socket of a process, removed when this value is dropped.
pub(in crate::app) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

/// The path of the socket: the real path of the store's file, with a suffix.
fn path_of(store: &Path) -> io::Result<PathBuf> {
    let mut path = store.canonicalize()?.into_os_string();
    path.push(".succession");
    Ok(path.into())
}

/// Calls `use_path` with a path of the socket that is short enough for the system's limit of 107 bytes, because it
/// names the directory by a file descriptor.
fn with_short_path<T>(path: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut short = OsString::from(format!("/proc/self/fd/{}/", dir.as_raw_fd()));
    short.push(name);
    use_path(Path::new(&short))
}

impl ControlSocket {
    /// Binds the socket and listens. Only for the process that has the lock of the store.
    pub(in crate::app) fn bind(store: &Path) -> io::Result<Self> {
        let path = path_of(store)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Set before the socket is bound, so that its file has this mode from the start.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        with_short_path(&path, |short| Ok(rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)?))?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { listener: UnixListener::from_std(StdListener::from(socket))?, path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // if it stays, the system refuses connections to it
    }
}

/// Connects to the process that has the store; `None` if no process listens.
///
/// # Errors
/// The socket belongs to another user, or cannot be used.
pub(super) async fn connect(store: &Path) -> io::Result<Option<UnixStream>> {
    let is_absent =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    let connected = match path_of(store) {
        Ok(path) => with_short_path(&path, |short| StdStream::connect(short)),
        Err(error) => Err(error),
    };
    let stream = match connected {
        Err(error) if is_absent(&error) => return Ok(None),
        connected => connected?,
    };
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    check_user(&stream)?;
    Ok(Some(stream))
}

/// Refuses a peer process of another user.
pub(super) fn check_user(stream: &UnixStream) -> io::Result<()> {
    let (user, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    match user == own {
        true => Ok(()),
        false => Err(io::Error::other(format!("the other process runs as user {user}, this one as user {own}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_socket_with_a_long_path_is_private_and_replaces_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("d".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        let store = dir.join("s.db");
        assert!(connect(&store).await.unwrap().is_none(), "there is no store yet");
        std::fs::write(&store, "").unwrap();
        assert!(connect(&store).await.unwrap().is_none());
        let left = ControlSocket::bind(&store).unwrap();
        let path = left.path.clone();
        std::mem::forget(left); // as if its process had been killed
        let socket = ControlSocket::bind(&store).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(&store).await.unwrap().is_some());
        drop(socket);
        assert!(!path.exists() && connect(&store).await.unwrap().is_none());
    }
}
