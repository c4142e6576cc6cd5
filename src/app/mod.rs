//! Puts the rooms together: the only room that knows every room.
//!
//! The question it answers: "in which order do the parts come up, who is handed what, and in which order do they go
//! down?" Up: files, store, evidence, ladder, engine (which takes up the runs that the last process left), shadow, then
//! the listeners. Down, on SIGTERM: the proxy's listener and its requests, the shadow queue, the engine's runs, what is
//! written behind, the admin listener, the store; each within a bound of `limits`.
//!
//! Threads are three kinds (`runtimes`): those that serve the proxy's requests, those that move runs, and those of the
//! admin listener, where all that people look at is read and rendered: however much that is, runs move meanwhile.
//!
//! `parts` makes what lives as long as the process and takes new files over, `process` starts and ends it, `behind` is
//! what goes on beside the requests.

mod against;
mod behind;
mod commands;
mod parts;
mod process;
mod process_status;
mod retention;
mod runtimes;
mod services;
mod stored;
mod stores;
mod time;

pub use against::{Against, Compared, KeptPlan};
pub use commands::{demo, serve};
pub use process::App;
pub use stored::{OpenRun, OpenRunPage, StoredRuns, too_many};
pub use stores::{store_backup, store_check};
