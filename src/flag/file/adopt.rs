//! `adopt:`, how legacy's instances become the engine's.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::duration_within;
use super::{KnownNames, suggest};
use crate::flag::{ADOPT_SETTLES, AdoptRule};
use crate::names::WorkflowName;
use crate::problem::{Problems, Site};

/// The longest that legacy's requests can be waited for.
const SETTLES_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How instances of legacy become the engine's: the name of a workflow, or a map.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AdoptDraft {
    /// The workflow.
    Workflow(String),
    /// The workflow and how long legacy's requests are waited for.
    Map(AdoptMapDraft),
}

/// How instances of legacy become the engine's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptMapDraft {
    /// The workflow: it has only `read` steps and one with `release: true`, or says `legacy_passive`.
    pub workflow: String,
    /// For how long legacy may go on with a request whose end was not seen. Default `30s`.
    pub settles: Option<String>,
}

/// Checks how legacy's instances become the engine's. Whether the workflow may do that is checked with the workflow.
pub(super) fn adopt_rule(
    draft: &AdoptDraft,
    known: &KnownNames<'_>,
    site: &Site,
    problems: &mut Problems,
) -> Option<AdoptRule> {
    let (name, settles, of_name) = match draft {
        AdoptDraft::Workflow(name) => (name, None, site.clone()),
        AdoptDraft::Map(AdoptMapDraft { workflow, settles }) => (workflow, settles.as_ref(), site.key("workflow")),
    };
    let name = WorkflowName::from(name.as_str());
    let Some(facts) = known.workflows.get(&name) else {
        let hint = suggest(name.as_str(), known.workflows.keys().map(|name| name.as_str()));
        problems.error(&of_name, format!("no workflow is called `{name}`")).hint(hint);
        return None;
    };
    let tells_legacy = facts.as_ref().is_some_and(|facts| facts.tells_legacy);
    let settles = match settles {
        None => ADOPT_SETTLES,
        Some(text) => duration_within(text, Duration::ZERO..=SETTLES_MAX, "0s and 1d", &site.key("settles"), problems)?,
    };
    Some(AdoptRule { workflow: name, tells_legacy, settles })
}
