//! The integration binary: the house's own rules, and end-to-end tests against the real binary.

mod crash;
mod dashboard;
mod disk;
mod drain;
mod hostile;
mod house;
mod json_server;
mod ladder;
mod legacy_faults;
mod overload;
mod readme;
mod reload;
mod support;
