//! The checks of what a route does with instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json_path::JsonPath;

use super::adopt::adopt_rule;
use super::creates::{created_id_source, refuse_secret, selects_one_value};
use super::next_page::next_page;
use super::parts::{check_end_to_end, check_reads_only_head};
use super::values::{condition, duration_within};
use super::{AliveDraft, InstanceDraft, KnownNames, UnknownDraft, suggest};
use crate::expression::{ReadPath, Scope, Template, UrlTemplate, parse_json_path};
use crate::flag::{
    AliveCall, Instance, InstanceEnd, InstanceKeySource, InstanceLifetime, REPLY_PARTS, RouteMatch, UnknownInstance,
};
use crate::problem::{Problems, Site};
use crate::secret::RedactRules;

/// The longest life of an instance that may be declared: 100 years.
const AGE_MAX: Duration = Duration::from_secs(36_500 * 24 * 3_600);

/// Checks how long the instances of a route's family live.
pub fn lifetime(
    draft: &InstanceDraft,
    params: &[&str],
    redact: &RedactRules,
    known: &KnownNames<'_>,
    site: &Site,
    problems: &mut Problems,
) -> InstanceLifetime {
    let InstanceDraft { creates, follows, key: _, ends, ends_after, alive, unknown, adopt } = draft;
    let of_creator = "it concerns the whole family: say it on the route that creates the instances";
    if creates.is_none() && follows.is_some() {
        let keys = [("ends_after", ends_after.is_some()), ("alive", alive.is_some()), ("adopt", adopt.is_some())];
        for (key, _) in keys.iter().filter(|(_, is_given)| *is_given) {
            problems.error(&site.key(*key).at_key(), format!("a follower must not have `{key}`")).hint(of_creator);
        }
    }
    if unknown.is_some() && creates.is_some() {
        problems
            .error(&site.key("unknown").at_key(), "a creator must not have `unknown`")
            .hint("it says who answers for an id in the path: say it on the routes that follow the instances up");
    }
    let age = |text: &String| {
        let range = Duration::from_secs(1)..=AGE_MAX;
        duration_within(text, range, "1s and 36500d", &site.key("ends_after"), problems)
    };
    let ends_after = ends_after.as_ref().and_then(age);
    InstanceLifetime {
        ends: ends.as_ref().and_then(|text| end(text, params, &site.key("ends"), problems)),
        ends_after,
        alive: alive
            .as_ref()
            .and_then(|draft| alive_call(draft, redact, known, &site.key("alive"), problems))
            .map(Arc::new),
        unknown: match unknown {
            None => UnknownInstance::NotDeclared,
            Some(UnknownDraft::Workflow) => UnknownInstance::Workflow,
            Some(UnknownDraft::NotFound) => UnknownInstance::NotFound,
        },
        adopt: adopt.as_ref().and_then(|draft| adopt_rule(draft, known, &site.key("adopt"), problems)).map(Arc::new),
    }
}

/// Checks the condition by which an instance ends.
fn end(text: &str, params: &[&str], site: &Site, problems: &mut Problems) -> Option<InstanceEnd> {
    let condition = condition(text, site, problems)?;
    let (of_reply, others): (Vec<_>, Vec<_>) =
        condition.reads().iter().cloned().partition(|read: &ReadPath| read.root() == "reply");
    for read in &of_reply {
        if let Some(part) = read.part(0).filter(|part| !REPLY_PARTS.contains(part)) {
            problems.error(site, format!("a reply has no `{part}`")).hint(suggest(part, REPLY_PARTS.into_iter()));
        }
    }
    for read in others.iter().filter(|read| read.root() != "request") {
        problems
            .error(site, format!("`{}` cannot be read here", read.root()))
            .hint("`request`, without its body, and `reply` can: ${reply.status == 200}");
    }
    let of_request: Vec<_> = others.into_iter().filter(|read| read.root() == "request").collect();
    check_reads_only_head(&of_request, params, site, problems);
    if of_reply.is_empty() {
        problems
            .error(site, "it does not read the reply, so that a refused request would end the instance too")
            .hint("ask for the status at least: ${reply.status == 200}");
    }
    Some(InstanceEnd::new(condition))
}

/// Checks a call by which legacy lists its instances.
fn alive_call(
    draft: &AliveDraft,
    redact: &RedactRules,
    known: &KnownNames<'_>,
    site: &Site,
    problems: &mut Problems,
) -> Option<AliveCall> {
    let AliveDraft { call, ids, next, headers } = draft;
    let headers = alive_headers(headers, &site.key("headers"), problems);
    let ids = alive_ids(ids, redact, &site.key("ids"), problems);
    let next = next.as_ref().and_then(|next| next_page(next, &site.key("next"), problems));
    let site = site.key("call");
    let example = "for example GET ${services.shop}/orders?open=1";
    let Some(url) = call.strip_prefix("GET ").map(str::trim) else {
        problems.error(&site, "the call has to use the method GET").hint(example);
        return None;
    };
    let template = match UrlTemplate::parse(url) {
        Ok(template) => template,
        Err(error) => {
            problems.error(&site, error.message).hint(example);
            return None;
        }
    };
    if let Some(read) = template.reads().iter().find(|read| read.root() != "services") {
        problems
            .error(&site, format!("`{}` cannot be read here: the call is made without a request", read.root()))
            .hint(example);
        return None;
    }
    let Some(name) = template.service() else {
        problems.error(&site, "the call has to go to a declared service, not to an address").hint(example);
        return None;
    };
    let Some(service) = known.services.get(name) else {
        let hint = suggest(name, known.services.keys().map(|name| name.as_str()));
        problems.error(&site, format!("no service is called `{name}`")).hint(hint);
        return None;
    };
    let path = template.evaluate(&Scope::new()).map_err(|error| problems.error(&site, error.message).hint(example));
    let path = path.ok().map(|path| if path.starts_with('/') { path } else { format!("/{path}") });
    let (list, ids) = ids?;
    Some(AliveCall { service: service.clone()?, path: path?, headers, list, ids, next })
}

/// Checks where the ids are: one in each element of one list. Returns the path of the list, and that of the ids.
fn alive_ids(text: &str, redact: &RedactRules, site: &Site, problems: &mut Problems) -> Option<(JsonPath, JsonPath)> {
    let ids = match parse_json_path(text) {
        Ok(ids) => ids,
        Err(error) => {
            let problem = problems.error(site, format!("`{text}` is not a JSONPath: {error}"));
            problem.hint("for example $.items[*].id");
            return None;
        }
    };
    refuse_secret(&ids, redact, site, "for example $.items[*].id", problems)?;
    let parts = text.split_once("[*]").filter(|(list, id)| selects_one_value(list) && selects_one_value(id));
    let Some(list) = parts.and_then(|(list, _)| parse_json_path(list).ok()) else {
        problems
            .error(site, format!("`{text}` does not name one id in each element of one list"))
            .hint("the list, `[*]`, and the id in an element: $.items[*].id, or $[*] if the body is a list of ids");
        return None;
    };
    Some((list, ids))
}

fn alive_headers(
    drafts: &BTreeMap<String, String>,
    site: &Site,
    problems: &mut Problems,
) -> Vec<(HeaderName, Template)> {
    let mut headers = Vec::new();
    for (name, text) in drafts {
        let site = site.key(name.as_str());
        if !check_end_to_end(name, &site, problems) {
            continue;
        }
        let Ok(header) = HeaderName::try_from(name.as_str()) else {
            problems.error(&site, format!("`{name}` is not a header name"));
            continue;
        };
        let template = match Template::parse_str(text) {
            Ok(template) => template,
            Err(error) => {
                problems.error(&site, error.message);
                continue;
            }
        };
        if let Some(read) = template.reads().iter().find(|read| read.root() != "secrets") {
            problems.error(&site, format!("`{}` cannot be read here", read.root())).hint("only `secrets` can");
        }
        if template.reads().is_empty() && HeaderValue::try_from(text.as_str()).is_err() {
            problems.error(&site, format!("`{text}` is not a header value"));
        }
        headers.push((header, template));
    }
    headers
}

/// Checks what a route does with instances. Whether the creator exists is checked once all routes are known. `redact`:
/// what is declared as secret, which no id of an instance may be.
pub fn instance(
    draft: &InstanceDraft,
    params: &[&str],
    redact: &RedactRules,
    site: &Site,
    problems: &mut Problems,
) -> Option<Instance> {
    let InstanceDraft { creates, follows, key, .. } = draft;
    match (creates, follows) {
        (Some(draft), None) => {
            if key.is_some() {
                let site = site.key("key").at_key();
                problems.error(&site, "a creator must not have a `key`").hint("`key` goes with `follows`");
            }
            let id = created_id_source(draft, redact, &site.key("creates"), problems)?;
            Some(Instance::Creates { id })
        }
        (None, Some(creator)) => {
            let example =
                "where a request has the instance's id: key: path.id, query.order, header.x-order-id or body.order.id";
            let Some(key) = key else {
                problems.error(&site.key("follows"), "a follower needs a `key`").hint(example);
                return None;
            };
            let site = site.key("key");
            let key = key_source(key, (params, redact), example, &site, problems)?;
            Some(Instance::Follows { creator: creator.as_str().into(), key })
        }
        (Some(_), Some(_)) | (None, None) => {
            problems
                .error(site, "give exactly one of `creates` and `follows`")
                .hint("`creates: $.id`, or `follows: ROUTE` with `key: path.id`");
            None
        }
    }
}

/// Where a follower finds the id of the instance.
fn key_source(
    key: &str,
    (params, redact): (&[&str], &RedactRules),
    example: &str,
    site: &Site,
    problems: &mut Problems,
) -> Option<InstanceKeySource> {
    let mut secret = |name: &str| {
        let message = format!("`{name}` is a secret, and ids of instances are stored and shown");
        problems.error(site, message).hint(example);
        None
    };
    match key.split_once('.') {
        Some(("path", name)) if redact.has_name(name) => secret(name),
        Some(("path", param)) if params.contains(&param) => Some(InstanceKeySource::Path(param.to_owned())),
        Some(("path", param)) => {
            let hint = suggest(param, params.iter().copied());
            problems.error(site, format!("the path has no parameter `{param}`")).hint(hint);
            None
        }
        Some(("query" | "header", name)) if redact.is_secret(name) => secret(name),
        Some(("query", name)) if !name.is_empty() => Some(InstanceKeySource::Query(name.to_owned())),
        Some(("header", name)) => match HeaderName::try_from(name) {
            Ok(name) => check_end_to_end(name.as_str(), site, problems).then_some(InstanceKeySource::Header(name)),
            Err(_) => {
                problems.error(site, format!("`{name}` is not the name of a header")).hint(example);
                None
            }
        },
        Some(("body", path)) if !path.is_empty() => {
            body_path(path, redact, site, problems).map(InstanceKeySource::Body)
        }
        _ => {
            problems.error(site, format!("`{key}` does not say where a request has the instance's id")).hint(example);
            None
        }
    }
}

/// Refuses an id in the body of requests that have none.
pub fn check_has_body(instance: Option<&Instance>, matches: Option<&RouteMatch>, site: &Site, problems: &mut Problems) {
    if let (Some(Instance::Follows { key: InstanceKeySource::Body(_), .. }), Some(matches)) = (instance, matches)
        && [Method::GET, Method::HEAD].contains(&matches.method)
    {
        problems.error(&site.key("key"), format!("a request with the method {} has no body", matches.method)).hint(
            "say where the path, the query or a header has the id: key: path.id, query.order or header.x-order-id",
        );
    }
}

/// The path of an id in the body of a request: `order.id` is short for `$.order.id`.
fn body_path(text: &str, redact: &RedactRules, site: &Site, problems: &mut Problems) -> Option<JsonPath> {
    let path = if text.starts_with('$') { text.to_owned() } else { format!("$.{text}") };
    let example = "for example `key: body.order.id`, or `key: body.$['order-id']`";
    match parse_json_path(&path) {
        Ok(_) if !selects_one_value(&path) => {
            let message = format!("`{path}` may select several values, and a request follows up one instance");
            problems.error(site, message).hint(example);
            None
        }
        Ok(path) => refuse_secret(&path, redact, site, example, problems).map(|()| path),
        Err(error) => {
            problems.error(site, format!("`{path}` is not a JSONPath: {error}")).hint(example);
            None
        }
    }
}
