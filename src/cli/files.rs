//! `check` and `schema`: what needs no running process.

use std::path::Path;

use serde_json::json;

use super::Done;
use super::args::SchemaKind;
use super::paint::{Paint, Tone};
use crate::config::{self, FileKind, Findings, Overrides};

pub(crate) fn check(dir: &Path, no_secrets: bool, paint: Paint) -> Done {
    let over = Overrides { secrets_may_be_absent: no_secrets, ..Overrides::default() };
    let (findings, in_short) = match config::read(dir, &over) {
        Ok(loaded) => {
            let setup = &loaded.setup;
            let counts = format!(
                "{} routes, {} workflows, {} services",
                setup.routes.len(),
                setup.workflows.len(),
                setup.services.len()
            );
            (loaded.warnings, Some(counts))
        }
        Err(failed) => (failed.findings, None),
    };
    let mut text = if findings.is_empty() { String::new() } else { findings.render(paint.0) + "\n" };
    let verdict = match &in_short {
        Some(counts) => format!("{} ({counts})", paint.tone("fit to be in force", Tone::Good)),
        None => paint.tone("refused", Tone::Bad),
    };
    text.push_str(&format!("{}: {verdict}\n", dir.display()));
    let json = json!({ "fine": in_short.is_some(), "findings": Findings::to_json(&findings) });
    Done { text, json, fine: in_short.is_some() }
}

pub(crate) fn schema(kind: Option<SchemaKind>) -> Done {
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
    Done { text: super::pretty(&json), json, fine: true }
}
