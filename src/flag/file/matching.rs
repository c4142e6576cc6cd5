//! The check of `match:`.

use std::collections::HashSet;

use http::Method;

use super::MatchDraft;
use crate::flag::RouteMatch;
use crate::flag::matcher::{PARAMS_MAX, host_name};
use crate::flag::path::{NotPlain, check_plain, match_key};
use crate::problem::{Problems, Site, nearest};

/// Checks which requests belong to a route.
pub fn check_match(draft: &MatchDraft, site: &Site, problems: &mut Problems) -> Option<RouteMatch> {
    let MatchDraft { method, path, host } = draft;
    let method = check_method(method, &site.key("method"), problems);
    let path = check_template(path, &site.key("path"), problems);
    if let Some(path) = &path {
        warn_of_foreign_parameters(path, &site.key("path"), problems);
    }
    let host = match host {
        Some(host) => Some(check_host(host, &site.key("host"), problems)?),
        None => None,
    };
    Some(RouteMatch { method: method?, path: path?, host })
}

/// The common methods; a similar name is probably a spelling mistake.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn check_method(text: &str, site: &Site, problems: &mut Problems) -> Option<Method> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(upper.as_bytes()) {
        Ok(Method::CONNECT) => {
            problems.error(site, "CONNECT opens a tunnel and has no path to match");
            None
        }
        Ok(Method::TRACE) => {
            problems.error(site, "TRACE is not served, so no request would match");
            None
        }
        Ok(method) if upper == text => {
            // HTTP allows any token as a method, but a misspelt one would silently match nothing.
            if !METHODS.contains(&text)
                && let Some(near) = nearest(text, METHODS)
            {
                problems.warn(site, format!("`{text}` is an unusual method")).hint(format!("did you mean `{near}`?"));
            }
            Some(method)
        }
        Ok(_) => {
            problems.error(site, format!("the method is not in upper case: write `{upper}`"));
            None
        }
        Err(_) => {
            problems.error(site, format!("`{text}` is not a method"));
            None
        }
    }
}

fn check_host(text: &str, site: &Site, problems: &mut Problems) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        problems.error(site, format!("`{text}` is not a host")).hint("a plain name or address: shop.example.com");
        return None;
    }
    let name = host_name(text);
    if name != text {
        problems.error(site, "the host has a port or a dot at its end: leave it out").hint(format!("write `{name}`"));
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// Checks that a path template starts with a slash, is plain, and has only whole segments as parameters.
fn check_template(path: &str, site: &Site, problems: &mut Problems) -> Option<String> {
    let mut refuse = |message: String, hint: &str| {
        problems.error(site, message).hint(hint);
        None
    };
    if path.contains(['?', '#']) || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse(
            format!("`{path}` has a character that paths cannot have"),
            "a path, without query: /orders/{id}",
        );
    }
    match check_plain(path) {
        Err(NotPlain::Refused(why)) => {
            return refuse(format!("`{path}` can match nothing: {why}"), "for example /orders/{id}");
        }
        Err(NotPlain::Slashes) => {
            let hint = "leave out `//`, `%2F`, `%5C` and backslashes: servers interpret such paths differently";
            return refuse(format!("`{path}` can match nothing"), hint);
        }
        Err(NotPlain::Dots(resolved)) => {
            return refuse(format!("`{path}` has dot segments"), &format!("write `{resolved}`"));
        }
        Ok(()) => {}
    }
    let mut names = HashSet::new();
    for segment in path.split('/') {
        if !match_key(segment).contains(['{', '}']) {
            continue;
        }
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = name.filter(|name| is_identifier(name)) else {
            let hint = "a parameter is a whole segment: `/orders/{id}`, not `/order-{id}`, `{*rest}` or `{id?}`";
            return refuse(format!("`{segment}` is not a parameter"), hint);
        };
        if !names.insert(name) {
            return refuse(format!("the parameter `{name}` is used twice"), "each needs a name of its own");
        }
    }
    if names.len() > PARAMS_MAX {
        return refuse(format!("the path has {} parameters", names.len()), &format!("at most {PARAMS_MAX}"));
    }
    Some(path.to_owned())
}

/// Warns of segments that are parameters or wildcards in the syntax of other routers, and plain text here.
fn warn_of_foreign_parameters(path: &str, site: &Site, problems: &mut Problems) {
    let is_foreign = |segment: &&str| segment.starts_with([':', '<']) || segment.contains('*');
    for segment in path.split('/').filter(is_foreign) {
        let problem = problems.warn(site, format!("`{segment}` matches this text only"));
        problem.hint("a parameter is written `{name}`, and stands for one whole segment");
    }
}

fn is_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
