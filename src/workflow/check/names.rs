//! Which names an expression may read, depending on where it is, and which steps it therefore needs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::context::Check;
use crate::expression::{EFFECTS, Expression, ExpressionError, ReadPath, Template};
use crate::problem::{Site, nearest};
use crate::workflow::CREDENTIALS;
use crate::workflow::definition::{FailuresDraft, StepDraft};

/// The members of `request`.
const REQUEST: [&str; 7] = ["method", "path", "params", "query", "headers", "body", "raw"];
/// The members of `steps.NAME`.
const STEP: [&str; 9] = ["output", "status", "headers", "skipped", "by", "errors", "approved", "struck", "timed_out"];

/// What the value of an expression is used for. It determines which names the expression may read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// A call's URL or headers.
    Wire,
    /// Any other value of a step.
    Value,
    /// `rehearse:`.
    Rehearse,
    /// `respond`.
    Respond,
}

/// The context of an expression; the steps that it reads are added to it.
pub(super) struct ExpressionContext<'n> {
    pub(super) usage: Usage,
    /// `item` and `index` exist.
    pub(super) item: bool,
    /// The steps that were found to be read.
    pub(super) needs: &'n mut BTreeSet<String>,
    /// Further names that exist in this context.
    pub(super) extra: &'static [&'static str],
}

impl Check<'_> {
    /// Parses a value and checks what it reads.
    pub(super) fn template(
        &mut self,
        value: &Value,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Template> {
        match Template::parse_within(value, &self.bounds) {
            Ok(template) => {
                for (at, reads) in template.reads_by_location() {
                    let mut site = site.clone();
                    site.path.extend(at.iter().cloned());
                    let text = text_at(value, &at).unwrap_or_default();
                    self.reads(reads, text, 0, &site, context);
                }
                Some(template)
            }
            Err(errors) => {
                for (at, error) in errors {
                    let mut site = site.clone();
                    site.path.extend(at);
                    self.report_parse_error(&site, &error, 0);
                }
                None
            }
        }
    }

    /// Parses a condition and checks what it reads.
    pub(super) fn condition(
        &mut self,
        text: &str,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) -> Option<Expression> {
        match Expression::parse_braced(text, &self.bounds) {
            Ok(expression) => {
                self.reads(expression.reads(), text, 0, site, context);
                Some(expression)
            }
            Err(error) => {
                self.report_parse_error(site, &error, 0);
                None
            }
        }
    }

    /// Reports an expression that does not parse; `base_offset` is the offset of its text within the value, in
    /// characters.
    pub(super) fn report_parse_error(&mut self, site: &Site, error: &ExpressionError, base_offset: usize) {
        let problem = self.problems.error(site, error.message.clone());
        if let Some(offset) = error.offset {
            problem.offset(offset + base_offset);
        }
    }

    /// Checks every path that is read, and adds the steps among them to the needs.
    pub(super) fn reads(
        &mut self,
        reads: &[ReadPath],
        text: &str,
        base_offset: usize,
        site: &Site,
        context: &mut ExpressionContext<'_>,
    ) {
        for path in reads {
            let wrong = match path.root() {
                "request" => self.request(path, context.usage),
                "steps" => self.step_read(path, context),
                "run" | "instance" | "now" | "uuid()" | "random()" => None,
                name if context.extra.contains(&name) => None,
                "item" | "index" if context.item => None,
                "item" | "index" => Some((
                    format!("`{}` exists only in a step with `for_each`, and in the fallback of one", path.root()),
                    None,
                )),
                "services" => self.service(path, context.usage),
                "secrets" => self.secret(path, context.usage),
                "legacy" if context.usage == Usage::Rehearse => None,
                "legacy" => Some((
                    "`legacy` can be read only in `rehearse:`".to_owned(),
                    Some("what the engine does must not depend on legacy's reply".to_owned()),
                )),
                "signal" => Some((
                    "`signal` can be read only in `where:` of a `wait`".to_owned(),
                    Some("the payload is the output of the step: steps.NAME.output".to_owned()),
                )),
                "failed" | "input_error" if context.usage == Usage::Respond => None,
                "failed" | "input_error" => Some((format!("`{}` can be read only in `respond`", path.root()), None)),
                "engine" | "intents" | EFFECTS => {
                    Some((format!("`{}` can be read only in a route's `assert` and `invariants`", path.root()), None))
                }
                other => Some(self.unknown(other, text, context)),
            };
            self.reads.insert(path.clone());
            if let Some((message, hint)) = wrong {
                let problem = self.problems.error(site, message);
                if let Some(hint) = hint {
                    problem.hint(hint);
                }
                if let Some(at) = find(text, path) {
                    problem.offset(at + base_offset);
                }
            }
        }
    }

    fn request(&self, path: &ReadPath, usage: Usage) -> Option<(String, Option<String>)> {
        let credentials = |what: String| {
            let only = (!matches!(usage, Usage::Wire)).then(|| {
                let hint = "credentials of callers are only passed on to services, and never stored or shown in clear";
                (format!("{what} can be read only in a call's headers or URL"), Some(hint.to_owned()))
            });
            only.or_else(|| {
                (!self.known.has_store_key && !self.is_stored_definition).then(|| {
                    let message =
                        format!("{what} would be stored in clear, because there is no `store_key` to seal it with");
                    (message, Some("declare `store_key: { file: … }` in pointsman.yaml".to_owned()))
                })
            })
        };
        // A stored plan, which an earlier version accepted, may read such a path: there the path has no value.
        if let Some((message, hint)) =
            path.misread_request_text().filter(|_| !self.is_stored_definition && path.part(0) != Some("peer"))
        {
            return Some((message, Some(hint)));
        }
        match (path.part(0), path.part(1)) {
            (None, _) => Some((
                "name the part of `request` that is meant".to_owned(),
                Some(format!("it has {}", REQUEST.join(", "))),
            )),
            (Some("headers"), None) => {
                let message = "name the header that is meant: all of them hold the caller's credentials".to_owned();
                Some((message, Some("write request.headers[\"x-name\"]".to_owned())))
            }
            (Some("headers"), Some(name)) if CREDENTIALS.contains(&name) => {
                credentials(format!("the caller's `{name}`"))
            }
            (Some(part), _) if REQUEST.contains(&part) => None,
            // An earlier version accepted it, and a run keeps its plan; there it has no value.
            (Some("peer"), _) if self.is_stored_definition => None,
            (Some("peer"), _) => Some((
                "a workflow does not see the address of the caller: `request` has no `peer`".to_owned(),
                Some("only `key:` of a route and `when:` of a cohort see request.peer".to_owned()),
            )),
            (Some(part), _) => Some((
                format!("`request` has no `{part}`"),
                Some(nearest(part, REQUEST).map_or_else(|| format!("it has {}", REQUEST.join(", ")), did_you_mean)),
            )),
        }
    }

    fn step_read(&self, path: &ReadPath, context: &mut ExpressionContext<'_>) -> Option<(String, Option<String>)> {
        let Some(name) = path.part(0) else {
            let message = "name the step that is meant: a step whose name is computed cannot be waited for".to_owned();
            return Some((message, Some("write steps.NAME.output".to_owned())));
        };
        let Some((_, _, step)) = self.steps.iter().find(|(known, ..)| *known == name) else {
            return Some((format!("unknown step `{name}`"), self.step_hint(name)));
        };
        context.needs.insert(name.to_owned());
        let Some(part) = path.part(1) else {
            return Some((
                format!("name the part of the step `{name}` that is meant"),
                Some(format!("write steps.{name}.output")),
            ));
        };
        let message = match part {
            "skipped" => return None,
            _ if !STEP.contains(&part) => {
                let hint = nearest(part, STEP).map_or_else(|| format!("it has {}", STEP.join(", ")), did_you_mean);
                let hint = if path.part(1) == Some("body") { "the body is `output`".to_owned() } else { hint };
                return Some((format!("a step has no `{part}`"), Some(hint)));
            }
            "by" if step.fallback.is_none() && step.checkpoint.is_none() => {
                format!("`{name}` has no `fallback`, and so no `by`")
            }
            "errors" if step.failures != Some(FailuresDraft::Collect) => {
                format!("`{name}` does not collect what fails (`failures: collect`) and has no `errors`")
            }
            _ if step.fail.is_some() => format!("`{name}` ends the run and has no `{part}`"),
            "status" | "headers" if step.call.is_none() => format!("`{name}` is no call and has no `{part}`"),
            "approved" if step.checkpoint.is_none() => format!("`{name}` is no checkpoint and has no `approved`"),
            "timed_out" if step.wait.is_none() => format!("`{name}` is no `wait` and has no `timed_out`"),
            "struck" if step.call.is_none() && step.run.is_none() => {
                format!("`{name}` is neither a `call` nor a `run` and has no `struck`")
            }
            "status" | "headers" if step.for_each.is_some() => {
                let message = format!("`{name}` is many calls (`for_each`) and has no `{part}` of its own");
                return Some((message, Some(items_hint(name, step))));
            }
            "output" => return self.streamed_output(name, step),
            _ => return None,
        };
        Some((message, None))
    }

    /// A hint for the name of a step that does not exist.
    pub(super) fn step_hint(&self, name: &str) -> Option<String> {
        let names = || self.steps.iter().map(|(name, ..)| *name);
        // `steps.charge-by-invoice` reads `steps.charge` and subtracts.
        if let Some(dashed) = names().find(|known| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))) {
            return Some(format!("a name with a dash is written steps[\"{dashed}\"]"));
        }
        nearest(name, names()).map(did_you_mean).or_else(|| {
            let names: Vec<_> = names().take(12).collect();
            Some(format!("the steps are {}", names.join(", ")))
        })
    }

    fn service(&self, path: &ReadPath, usage: Usage) -> Option<(String, Option<String>)> {
        if matches!(usage, Usage::Respond) {
            return Some(("`services` cannot be read in `respond`: addresses are not for callers".to_owned(), None));
        }
        match path.part(0) {
            None => Some(("name the service that is meant".to_owned(), Some("write services.NAME".to_owned()))),
            Some(name) if self.is_stored_definition || self.known.services.contains_key(name) => None,
            Some(name) => {
                let known = || self.known.services.keys().map(|name| name.as_str());
                let list = || format!("declare it under `services:` in pointsman.yaml; there are {}", join(known()));
                Some((
                    format!("unknown service `{name}`"),
                    Some(nearest(name, known()).map_or_else(list, did_you_mean)),
                ))
            }
        }
    }

    fn secret(&self, path: &ReadPath, usage: Usage) -> Option<(String, Option<String>)> {
        if usage != Usage::Wire {
            let message = "`secrets` can be read only in a call's headers or URL".to_owned();
            return Some((message, Some("anywhere else it would be stored and shown".to_owned())));
        }
        match path.part(0) {
            None => Some(("name the secret that is meant".to_owned(), Some("write secrets.NAME".to_owned()))),
            Some(name) if self.is_stored_definition || self.known.secrets.contains(name) => None,
            Some(name) => {
                let known = || self.known.secrets.iter().map(String::as_str);
                let list = || "declare it under `secrets:` in pointsman.yaml".to_owned();
                Some((format!("unknown secret `{name}`"), Some(nearest(name, known()).map_or_else(list, did_you_mean))))
            }
        }
    }

    fn unknown(&self, name: &str, text: &str, context: &ExpressionContext<'_>) -> (String, Option<String>) {
        let mut known = vec!["request", "steps", "run", "instance", "now"];
        match context.usage {
            Usage::Wire => known.extend(["services", "secrets"]),
            Usage::Value => known.push("services"),
            Usage::Rehearse => known.push("legacy"),
            Usage::Respond => known.extend(["failed", "input_error"]),
        }
        if context.item {
            known.extend(["item", "index"]);
        }
        known.extend(context.extra);
        let step = self.steps.iter().any(|(step, ..)| *step == name);
        let hint = if step {
            format!("write steps.{name}.output")
        } else if let Some(known) = nearest(name, known.iter().copied()) {
            did_you_mean(known)
        } else if text.contains(&format!("-{name}")) {
            "a name with a dash is written in brackets: a[\"b-c\"]".to_owned()
        } else {
            format!("names here are {}", known.join(", "))
        };
        (format!("unknown name `{name}`"), Some(hint))
    }
}

pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// What a `for_each` of calls has instead of one `status` and one `headers`.
fn items_hint(name: &str, step: &StepDraft) -> String {
    let path = match name.contains('-') {
        true => format!("steps[\"{name}\"]"),
        false => format!("steps.{name}"),
    };
    let collect = match step.failures {
        Some(FailuresDraft::Collect) => "",
        Some(FailuresDraft::FailFast) | None => "with `failures: collect` ",
    };
    format!(
        "{path}.output is the list of what its items were answered, such as {path}.output[0]; {collect}{path}.errors has \
         the `index`, `status` and `message` of each item that failed"
    )
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(12).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The string at a location within a value.
fn text_at<'v>(value: &'v Value, at: &[crate::problem::Segment]) -> Option<&'v str> {
    let mut value = value;
    for segment in at {
        value = match segment {
            crate::problem::Segment::Key(key) => value.get(&**key)?,
            crate::problem::Segment::Index(index) => value.get(*index)?,
        };
    }
    value.as_str()
}

/// The offset at which a path is read in a text, in characters.
fn find(text: &str, path: &ReadPath) -> Option<usize> {
    let full_path = path.to_string();
    let root = path.root();
    let head = match path.part(0) {
        Some(part) => format!("{root}.{part}"),
        None => root.to_owned(),
    };
    [full_path.as_str(), head.as_str(), root].into_iter().find_map(|wanted| {
        let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let ends = |at: usize| !text[at..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let (byte, _) = text.match_indices(wanted).find(|(at, _)| begins(*at) && ends(at + wanted.len()))?;
        Some(text[..byte].chars().count())
    })
}
