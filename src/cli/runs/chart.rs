//! `runs show --svg`: a run as a flowchart.

use super::common::path;
use crate::admin::types::RunGraph;
use crate::cli::client::{CallError, Client};
use crate::cli::output::Output;
use crate::page;

pub(crate) fn chart(client: &Client, run: &str) -> Result<Output, CallError> {
    let (graph, json) = client.get::<RunGraph>(&path(run, "/graph"))?;
    Ok(Output { text: page::svg(&graph), json, is_ok: true })
}
