//! The sockets that a service manager passes to a process that it starts (socket activation: `LISTEN_PID`,
//! `LISTEN_FDS`, `LISTEN_FDNAMES`; the descriptors are numbered from 3).
//!
//! Always true: variables that are meant for another process are ignored, as the protocol demands; if they are meant
//! for this one, `LISTEN_PID` and `LISTEN_FDS` are removed from its environment, so that no program that this process
//! starts takes the sockets for its own.

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::sockets::{GivenSocket, GivenSockets};
use crate::limits::ACTIVATED_SOCKETS_MAX;

/// The number of the first descriptor.
const FIRST_DESCRIPTOR: usize = 3;

/// Takes the sockets that were passed to this process; none if it was started without any. Must be called once, before
/// the process has threads, because it changes the environment.
///
/// # Errors
/// A descriptor is not a listening TCP socket, or there are too many.
pub(super) fn take_sockets() -> anyhow::Result<GivenSockets> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Ok(GivenSockets::None);
    }
    let count = variable("LISTEN_FDS");
    let count: usize = count.parse().with_context(|| format!("LISTEN_FDS is not a number: `{count}`"))?;
    ensure!(
        count <= ACTIVATED_SOCKETS_MAX,
        "{count} sockets were passed (LISTEN_FDS), and at most {ACTIVATED_SOCKETS_MAX} are taken: nothing was started"
    );
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let descriptor = FIRST_DESCRIPTOR + index;
        let not_listening = || {
            format!(
                "descriptor {descriptor} of those that were passed (LISTEN_FDS) is no TCP socket that listens: nothing \
                 was started. Pass the sockets of `listen`, `admin.listen`, `api.listen` and `egress.listen`, and no \
                 others"
            )
        };
        let socket = passed.take_tcp_listener(index).with_context(not_listening)?.with_context(not_listening)?;
        ensure!(socket_acceptconn(&socket).unwrap_or(false), not_listening());
        let address = socket.local_addr().with_context(not_listening)?;
        let name = names.next().unwrap_or_default().to_owned();
        sockets.push(GivenSocket { socket, address, name, declared: None, origin: format!("descriptor {descriptor}") });
    }
    Ok(if sockets.is_empty() { GivenSockets::None } else { GivenSockets::Activated(sockets) })
}
