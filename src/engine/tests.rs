//! The engine over the memory store and real servers on loopback.

mod arm;
mod asked;
mod begun;
mod below;
mod connections;
mod crash;
mod editions;
mod failing;
mod heirs;
mod kit;
mod modes;
mod one_arm;
mod outside;
mod owners;
mod pending_runs;
mod rest;
mod sim;
mod snapshots;
mod starts;
mod stores;
mod through;
mod unkept;
