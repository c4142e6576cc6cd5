//! A world to try the product in: a legacy service, what it talks to, and traffic.
//!
//! The question it answers: "what does it look like when a workflow endpoint is moved?" The sample services are real
//! HTTP servers on ports of their own, so the product sees nothing that it would not see elsewhere. Always true: every
//! effect on the outside world stands in its [`Ledger`], whoever caused it, so that promises can be counted and not
//! only told. The product itself is handed in, started ([`run`]); nothing here reaches into its rooms.

pub mod account;
pub mod control;
pub mod files;
pub mod http;
pub mod launch;
pub mod ledger;
pub mod legacy;
pub mod pace;
pub mod stage;
pub mod story;
pub mod studio;
pub mod traffic;
pub mod walk;
pub mod world;

pub use ledger::{Balance, Entry, Ledger};
pub use legacy::Legacy;
pub use pace::Pace;
pub use stage::{DemoOptions, Product, Wanted, run};
pub use world::World;
