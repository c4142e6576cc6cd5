//! Ids in the paths of headers: `header.location: /orders/{id}`.

use http::HeaderName;
use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};

use super::header_names::header;
use super::id_map::{FoundIds, IdMap};
use super::pair::Pair;
use super::redact::ShownAs;
use super::rule_texts::{IdKind, IdRule, RuleId, RuleTexts};
use crate::problem::{Problems, Site};
use crate::secret::is_secret;

/// The largest compiled pattern, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 18;

/// The ids in one header.
#[derive(Clone, Debug)]
pub(super) struct HeaderIds {
    name: HeaderName,
    pattern: Regex,
    /// The names in braces, one for each group of the pattern.
    names: Vec<String>,
    /// The declared kinds of these names.
    kinds: Vec<IdKind>,
    rule: IdRule,
}

impl HeaderIds {
    /// Checks a header's name and the pattern of its value; `rule` registers the rule.
    pub(super) fn check(
        name: &str,
        text: &str,
        site: &Site,
        rule: impl FnOnce() -> IdRule,
        problems: &mut Problems,
    ) -> Option<Self> {
        let name = header(name, &site.clone().at_key(), problems)?;
        let (mut pattern, mut names, mut rest) = (String::from("^"), Vec::new(), text);
        if text.starts_with('/') {
            pattern.push_str("(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?");
        }
        while let Some((before, after)) = rest.split_once('{') {
            let Some((id, after)) = after.split_once('}').filter(|(id, _)| is_name(id)) else {
                names.clear();
                break;
            };
            pattern.push_str(&regex::escape(before));
            pattern.push_str("([^/?#&]+)");
            names.push(id.to_owned());
            rest = after;
        }
        if names.is_empty() {
            problems
                .error(site, format!("`{text}` does not say where the id is"))
                .hint("the path of the header with the id's name in braces: `/orders/{id}`");
            return None;
        }
        pattern.push_str(&regex::escape(rest));
        pattern.push_str(if text.contains('?') { "$" } else { "(?:[?#].*)?$" });
        match RegexBuilder::new(&pattern).size_limit(PATTERN_COMPILED_BYTES_MAX).build() {
            Ok(pattern) => Some(Self { name, pattern, kinds: vec![IdKind::ANY; names.len()], names, rule: rule() }),
            Err(_) => {
                problems.error(site, "the pattern is too long").hint("write the path with fewer ids");
                None
            }
        }
    }

    /// Gives the names in braces that are those of declared kinds these kinds.
    pub(super) fn with_kinds(self, texts: &RuleTexts) -> Self {
        Self { kinds: self.names.iter().map(|name| texts.kind(name)).collect(), ..self }
    }

    /// Binds the ids of the header, if both sides have one and it fits the pattern.
    pub(super) fn bind(&self, pair: &Pair<'_>, ids: &mut IdMap) {
        let value = |headers: &http::HeaderMap| headers.get(&self.name)?.to_str().ok().map(|v| v.trim().to_owned());
        let (Some(legacy), Some(engine)) = (value(pair.legacy.headers()), value(pair.engine.headers())) else { return };
        let (Some(a), Some(b)) = (self.pattern.captures(&legacy), self.pattern.captures(&engine)) else { return };
        let is_secret = is_secret(self.name.as_str());
        for (n, (name, kind)) in self.names.iter().zip(&self.kinds).enumerate() {
            let (Some(a), Some(b)) = (a.get(n + 1), b.get(n + 1)) else { continue };
            // In a body the same id is not encoded.
            let [a, b] = [a, b].map(|id| percent_decode_str(id.as_str()).decode_utf8_lossy());
            ids.bind_as(*kind, Some(name), &a, &b, || FoundIds {
                path: format!("headers.{}", self.name),
                shown_as: if is_secret { ShownAs::Stars } else { ShownAs::UnderKey },
                legacy: (&*a).into(),
                engine: (&*b).into(),
                rule: Some(self.rule.rule),
                unproven: Some(self.rule.unproven),
            });
        }
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.name
    }

    pub(super) fn rule(&self) -> RuleId {
        self.rule.rule
    }
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}
