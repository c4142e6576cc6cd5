//! Wires the modules together into a process: the only module that may import every other.
//!
//! The question it answers: "in which order are the parts started, what does each receive, and in which order are they
//! stopped?" Start: files, the store with retry keys (`affinity`) and evidence, sockets (`client_proxy`), ladder,
//! engine (which continues in the background the runs that the last process left), shadow, the admin listener, then
//! the proxy's. Stop, on SIGTERM: the proxy's listener and its requests, the shadow queue, the engine's runs, buffered
//! evidence and retry keys, the admin listener, the store; each within a bound. A process that takes over from another
//! one (`succession`) accepts before it has the store.
//!
//! `runtimes` makes three thread pools: one executes runs, one serves the admin listener, one does everything else.
//! Client connections have one thread per core (`proxy::Workers`), and the shadow executor has threads of its own.
//! Responses for people are read and rendered on the second pool, so that a large response never delays a run.
//!
//! `parts` and `started_parts` build what lives as long as the process, and `parts` puts new files in force; `process`
//! starts the process, `running` stops it; `background` reloads files and watches the store's health.

mod activation;
mod adoptions;
mod affinity_gate;
mod alive_list;
mod background;
mod basis;
mod basis_hasher;
mod basis_parts;
mod client_proxy;
mod cohort_entries;
mod commands;
mod declared;
mod egress_proxy;
mod family_gate;
mod file_entries;
mod flushes;
mod guard_webhooks;
mod instances;
mod kept_plan_callers;
mod key_claims;
mod late_parts;
mod listener_tls;
mod membership;
mod memory;
mod opened_store;
mod parts;
mod plans;
mod process;
mod process_status;
mod refused_files;
mod rehearsal_report;
mod rehearse;
mod rejudging;
mod reload_requests;
mod repeats;
mod replay_files;
mod retention;
mod running;
mod runtimes;
mod service_callers;
mod service_manager;
mod services;
mod shared_moves;
mod signals;
#[cfg(test)]
mod sim;
mod sockets;
mod stall_report;
mod started_parts;
mod stored;
mod stores;
mod succession;
mod text_hashes;
mod time;
mod twins;
mod uncompared_calls;
mod zero_counters;

pub use commands::{demo, sample_services, serve};
pub use process::{App, StartOptions};
pub use rehearsal_report::{RehearsalReport, RehearsedGroup, RehearsedRoute};
pub use rehearse::{Capture, RehearsalFiles};
pub use replay_files::{MovedCall, ReplayFiles, ReplayResult, StoredPlan};
pub use running::{Ended, RemainingConnections};
pub use signals::Signals;
pub use sockets::{GivenSocket, GivenSockets};
pub use stored::{OpenRun, OpenRunPage, StoredRuns, too_many_events};
pub use stores::{store_backup, store_check};
