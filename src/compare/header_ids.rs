//! Ids in the paths of headers: `header.location: /orders/{id}`.

use http::HeaderName;
use percent_encoding::percent_decode_str;

use super::header_names::header;
use super::id_map::{FoundIds, IdMap};
use super::pair::Pair;
use super::redact::ShownAs;
use super::rule_texts::{IdKind, IdRule, RuleId, RuleTexts};
use crate::expression::{HeaderPattern, HeaderPatternError};
use crate::problem::{Problems, Site};
use crate::secret::is_secret;

/// The ids in one header.
#[derive(Clone, Debug)]
pub(super) struct HeaderIds {
    name: HeaderName,
    pattern: HeaderPattern,
    /// The kinds of the names in the pattern, in their order.
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
        match HeaderPattern::parse(text) {
            Ok(pattern) => Some(Self { name, kinds: vec![IdKind::ANY; pattern.names().len()], pattern, rule: rule() }),
            Err(HeaderPatternError { message, hint }) => {
                problems.error(site, message).hint(hint);
                None
            }
        }
    }

    /// Sets the kind of each name in braces that is the name of a declared kind.
    pub(super) fn with_kinds(self, texts: &RuleTexts) -> Self {
        Self { kinds: self.pattern.names().iter().map(|name| texts.kind(name)).collect(), ..self }
    }

    /// Binds the ids of the header, if both sides have one and it fits the pattern.
    pub(super) fn bind(&self, pair: &Pair<'_>, ids: &mut IdMap) {
        let value = |headers: &http::HeaderMap| headers.get(&self.name)?.to_str().ok().map(|v| v.trim().to_owned());
        let (Some(legacy), Some(engine)) = (value(pair.legacy.headers()), value(pair.engine.headers())) else { return };
        let (Some(a), Some(b)) = (self.pattern.ids_in(&legacy), self.pattern.ids_in(&engine)) else { return };
        let is_secret = is_secret(self.name.as_str());
        for ((name, kind), (a, b)) in self.pattern.names().iter().zip(&self.kinds).zip(a.into_iter().zip(b)) {
            // Decoded, because in a body the same id is not encoded.
            let [a, b] = [a, b].map(|id| percent_decode_str(id).decode_utf8_lossy());
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
