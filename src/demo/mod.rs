//! Sample services to try the product with: a legacy service, the services that it calls, and traffic.
//!
//! The question it answers: "what does it look like when a workflow endpoint is moved?" The sample services are real
//! HTTP servers on ports of their own, so the product sees nothing that it would not see elsewhere. Always true: every
//! effect on the outside world is recorded in its [`Ledger`], whoever caused it, so that promises are checked by
//! counting. The caller starts the product ([`run`]); nothing here uses its internals.

pub mod campaign;
pub mod console;
pub mod control;
pub mod demo_run;
pub mod files;
pub mod http;
pub mod latency;
pub mod ledger;
pub mod legacy;
pub mod promises;
pub mod studio;
pub mod traffic;
pub mod walk;
pub mod world;

pub use demo_run::{DemoOptions, Product, ProductSettings, run};
pub use latency::Latency;
pub use ledger::{Balance, Ledger, LedgerEntry};
pub use legacy::Legacy;
pub use world::OutsideWorld;
