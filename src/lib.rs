//! Pointsman.
#![warn(missing_docs)]

pub mod admin;
pub mod cli;
pub mod compare;
pub mod config;
pub mod demo;
pub mod engine;
pub mod evidence;
pub mod exchange;
pub mod expression;
pub mod flag;
pub mod ladder;
pub mod limits;
pub mod names;
pub mod problem;
pub mod proxy;
pub mod secret;
pub mod shadow;
pub mod store;
pub mod telemetry;
pub mod workflow;
