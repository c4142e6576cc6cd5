//! Names the headers of a pair's replies that the rules do not compare.

use http::HeaderName;
use http::header::{
    ACCEPT_RANGES, AGE, ALT_SVC, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, PROXY_AUTHENTICATE, SERVER, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};

use super::observation::Observation;
use super::rules::Rules;

/// Headers that are never named: they say how or when one message is sent, or by which program. `content-encoding` is
/// among them because bodies are compared as they are when they are decompressed. `vary`, `etag`, `cache-control` and
/// the like are not: caches and clients act on them.
const NEVER_NAMED: [HeaderName; 17] = [
    ACCEPT_RANGES,
    AGE,
    ALT_SVC,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    DATE,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    SERVER,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VIA,
    // Pointsman itself adds it to errors.
    HeaderName::from_static("x-pointsman-source"),
];

/// A header that at least one of the two replies has and that the rules do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UncomparedHeader<'p> {
    /// Its name.
    pub name: &'p HeaderName,
    /// Whether the replies have different values of it, byte for byte and in their order, or only one reply has it.
    pub differs: bool,
}

impl Rules {
    /// The headers of two replies that these rules neither compare nor ignore. Headers that say only how or when a
    /// message is sent (`NEVER_NAMED`) are left out.
    pub fn uncompared_headers<'p>(
        &'p self,
        legacy: &'p Observation,
        engine: &'p Observation,
    ) -> impl Iterator<Item = UncomparedHeader<'p>> {
        let (legacy, engine) = (legacy.headers(), engine.headers());
        let only_at_engine = engine.keys().filter(|name| !legacy.contains_key(*name));
        let has_rule = |name: &HeaderName| {
            self.headers.contains(name) || self.ignored_headers.iter().any(|(ignored, _)| ignored == name)
        };
        let names = legacy.keys().chain(only_at_engine);
        names
            .filter(move |name| !has_rule(name) && !NEVER_NAMED.contains(name))
            .map(move |name| UncomparedHeader { name, differs: !legacy.get_all(name).iter().eq(engine.get_all(name)) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{reply, rules};
    use super::*;

    fn found(legacy: &[(&str, &str)], engine: &[(&str, &str)], rules: &Rules) -> Vec<(String, bool)> {
        let (legacy, engine) = (reply(200, legacy, ""), reply(200, engine, ""));
        let found = rules.uncompared_headers(&legacy, &engine);
        let mut found: Vec<_> = found.map(|of| (of.name.to_string(), of.differs)).collect();
        found.sort();
        found
    }

    #[test]
    fn headers_of_either_reply_without_a_rule_are_named_and_compared_byte_for_byte() {
        let legacy = [
            ("content-type", "text/plain"),
            ("date", "today"),
            ("content-length", "7"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-total-count", "3"),
            ("vary", "accept"),
        ];
        let engine =
            [("content-type", "text/html"), ("set-cookie", "b=2"), ("set-cookie", "a=1"), ("x-total-count", "3")];
        let named = |names: &[(&str, bool)]| names.iter().map(|(n, differs)| ((*n).to_owned(), *differs)).collect();
        let expected: Vec<_> = named(&[("set-cookie", true), ("vary", true), ("x-total-count", false)]);
        assert_eq!(found(&legacy, &engine, &Rules::default()), expected);
        assert_eq!(found(&engine, &legacy, &Rules::default()), expected, "also those that only the engine has");
        // One that is compared, or ignored by name, has a rule.
        let draft = json!({ "headers": ["Set-Cookie", "vary"], "ignore": ["header.vary", "header.x-total-count"] });
        assert_eq!(found(&legacy, &engine, &rules(draft)), named(&[("content-type", true)]));
    }
}
