//! Parsers of the values of arguments.

use std::net::SocketAddr;

use crate::admin::types::CandidateStage;

pub(super) fn candidate_stage(text: &str) -> Result<CandidateStage, String> {
    match text {
        "shadow" => Ok(CandidateStage::Shadow),
        "live" => Ok(CandidateStage::Live),
        "in-force" => Ok(CandidateStage::InForce),
        _ => Err("expected `shadow`, `live` (with `--percent`) or `in-force`".to_owned()),
    }
}

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("`{text}` is not a number"))?;
    crate::flag::Percent::exact(number).map(crate::flag::Percent::as_f64)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    crate::config::parse_address(text).map_err(|(message, hint)| format!("{message}: {hint}"))
}
