//! The demo: a sample legacy service, the services that it calls, and traffic, with Pointsman ("the product") in front.
//!
//! The question it answers: "what does it look like when a workflow endpoint is moved?" The sample services are real
//! HTTP servers on ports of their own, so the product treats them as any other service. Always true: every
//! effect on the outside world is recorded in its [`Ledger`], whoever caused it, so that promises are checked by
//! counting. The caller starts the product ([`run`]); of the product, only types of its API's requests and
//! answers are used here.

pub mod campaign;
mod changes;
pub mod console;
pub mod control;
pub mod demo_run;
pub mod files;
pub mod http;
pub mod ladder_demo;
pub mod latency;
pub mod ledger;
pub mod legacy;
pub mod promises;
pub mod sample_answers;
pub mod traffic;
pub mod world;

pub use demo_run::{DemoOptions, Product, ProductSettings, run};
pub use latency::Latency;
pub use ledger::{Balance, Ledger, LedgerEntry};
pub use legacy::Legacy;
pub use world::OutsideWorld;
