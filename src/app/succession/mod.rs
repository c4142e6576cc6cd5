//! Hands the listeners and the store of a process to its declared successor (`serve --succeed`), without a moment in
//! which nobody listens.
//!
//! The question it answers: "who accepts, and who has the store?" Always true: the store belongs to one process at a
//! time (its lock); the old process keeps its sockets until the successor has started with the store, and the successor
//! has copies of them before the old process stops accepting, so that one of the two still listens if the other dies.
//! If the successor is lost before the old process has begun to release the store, the old process continues as before;
//! if the successor is lost later, the old process starts again on its sockets.
//!
//! The steps, over a Unix socket beside the store (`control_socket`), each a `message` on a `channel`:
//!
//! 1. The successor says which protocol it speaks. The old process answers with its sockets and with the matches of its
//!    routes that have a workflow, or refuses.
//! 2. The successor accepts on the sockets. Requests of routes with a workflow wait in it; it serves all others.
//! 3. The old process stops accepting, tells clients to close their connections, waits until its requests of routes
//!    with a workflow have ended and none of its runs has a task, and releases the store.
//! 4. The successor opens the store, and starts. The old process ends once its tunnels and long replies have ended.
//!
//! If the successor is silent during step 1, the old process gives up on it after [`ANSWER_MAX`], and during step 2
//! after [`PREPARATION_MAX`]; if it is silent later, it already accepts connections, so the old process waits for it.
//! If the old process is gone, the successor takes the store as soon as the store's lock is free.

mod channel;
pub(super) mod control_socket;
mod message;
pub(super) mod predecessor;
pub(super) mod status;
pub(super) mod successor;

pub(super) use message::OfferedSocket;

use std::time::Duration;

/// The version of the messages. Processes of different versions can hand over to each other only if it is the same.
const PROTOCOL: u32 = 1;
/// How long each message of the first step may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a successor may take until it accepts.
const PREPARATION_MAX: Duration = Duration::from_secs(60);
