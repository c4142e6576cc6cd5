//! `schema`, and `check` without `--against-open-runs`: they read files and need no running process.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::args::SchemaKind;
use super::format::{Formatter, Tone, counted};
use super::output::Output;
use super::output::pretty;
use crate::config::{self, FileKind, Findings, Overrides};
use crate::flag::Route;
use crate::names::WorkflowName;

pub(crate) fn check(dir: &Path, no_secrets: bool, format: Formatter) -> Output {
    let over = Overrides { secrets_may_be_absent: no_secrets, ..Overrides::default() };
    // For each route with a workflow: its id, and how its retry keys are scoped by caller.
    let mut scopes: Vec<(String, String)> = Vec::new();
    // For each route whose runs in `shadow` and `dark` send calls in addition to legacy's, because their steps say
    // `effect: read`: these calls.
    let mut sent: Vec<(String, Vec<String>)> = Vec::new();
    let (findings, counts) = match config::read(dir, &over) {
        Ok(loaded) => {
            let setup = &loaded.setup;
            let with_workflow = setup.routes.iter().filter(|route| route.workflow.is_some());
            scopes.extend(with_workflow.map(|route| (route.id.to_string(), route.caller.describe())));
            let plan_of = |name: &WorkflowName| setup.workflows.get(name).map(|plan| &**plan);
            let sent_by = |route: &Arc<Route>| {
                let calls = config::sent_in_rehearsals(plan_of(route.workflow.as_ref()?)?, plan_of);
                (!calls.is_empty()).then(|| (route.id.to_string(), calls))
            };
            sent.extend(setup.routes.iter().filter_map(sent_by));
            let counts =
                [(setup.routes.len(), "route"), (setup.workflows.len(), "workflow"), (setup.services.len(), "service")];
            let counts = counts.map(|(number, thing)| counted(number as u64, thing));
            (loaded.warnings, Some(counts.join(", ")))
        }
        Err(failed) => (failed.findings, None),
    };
    let mut text = if findings.is_empty() { String::new() } else { findings.render(format.0) + "\n" };
    let verdict = match &counts {
        Some(counts) => format!("{} ({counts})", format.tone("valid", Tone::Good)),
        None => format.tone("refused", Tone::Bad),
    };
    text.push_str(&format!("{}: {verdict}\n", dir.display()));
    for (route, scope) in &scopes {
        text.push_str(&format!("{route}: retry keys are scoped by {scope}\n"));
    }
    for (route, calls) in &sent {
        let calls = calls.join(", ");
        text.push_str(&format!(
            "{route}: in `shadow` and `dark` these calls are sent in addition to legacy's, because their steps say \
             `effect: read`: {calls}\n"
        ));
    }
    let sent: serde_json::Map<_, _> = sent.into_iter().map(|(route, calls)| (route, json!(calls))).collect();
    let scopes: serde_json::Map<_, _> = scopes.into_iter().map(|(route, scope)| (route, json!(scope))).collect();
    let json = json!({
        "fine": counts.is_some(), "findings": Findings::to_json(&findings), "retry_keys_scoped_by": scopes,
        "sent_in_rehearsals": sent,
    });
    Output { text, json, is_ok: counts.is_some() }
}

pub(crate) fn schema(kind: Option<SchemaKind>) -> Output {
    let one = |kind| config::schema(kind).clone();
    let json = match kind {
        Some(SchemaKind::Pointsman) => one(FileKind::Pointsman),
        Some(SchemaKind::Routes) => one(FileKind::Routes),
        Some(SchemaKind::Workflow) => one(FileKind::Workflow),
        None => json!({
            "pointsman": one(FileKind::Pointsman),
            "routes": one(FileKind::Routes),
            "workflow": one(FileKind::Workflow),
        }),
    };
    Output { text: pretty(&json), json, is_ok: true }
}
