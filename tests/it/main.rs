//! The integration binary: the house's own rules, and end-to-end tests against the real binary.

mod access;
mod breaker;
mod checker_bites;
mod crash;
mod dashboard;
mod disk;
mod drain;
mod drivers;
mod duplicates;
mod hostile;
mod house;
mod json_server;
mod kills;
mod ladder;
mod legacy_faults;
mod openapi;
mod orchestrate;
mod overload;
mod readme;
mod reload;
mod slow_clients;
mod store;
mod streams;
mod support;
mod two;
mod whole_sets;
