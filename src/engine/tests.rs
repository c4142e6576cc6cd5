//! Tests of the whole engine, with the memory store and real HTTP servers on loopback.

mod arm;
mod children;
mod connections;
mod crash;
mod damaged_summaries;
mod descendants;
mod end_children;
mod failing;
mod faulty_stores;
mod files_versions;
mod harness;
mod keep_none;
mod modes;
mod one_arm;
mod orders;
mod other_store_key;
mod owners;
mod pending_runs;
mod reruns;
mod resting;
mod sim;
mod slow_store;
mod snapshots;
mod starts;
mod test_stores;
mod undecodable;
