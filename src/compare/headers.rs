//! Compares the headers that a route's rules name, and no others.

use http::HeaderName;
use http::header::CONTENT_TYPE;

use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::pair::Pair;
use super::rules::Rules;
use super::verdict::DifferenceKind;

pub(super) fn compare(pair: &Pair<'_>, rules: &Rules, ids: &mut IdMap, findings: &mut ComparisonFindings<'_>) {
    for name in &rules.headers {
        let (of_legacy, of_engine) = (pair.legacy.headers().get_all(name), pair.engine.headers().get_all(name));
        if ids.is_empty() && of_legacy.iter().eq(of_engine) {
            continue;
        }
        let (legacy, engine) = (values(pair.legacy.headers(), name), values(pair.engine.headers(), name));
        if legacy == engine && ids.is_empty() {
            continue;
        }
        let equal = legacy.len() == engine.len()
            && legacy
                .iter()
                .zip(&engine)
                .all(|(a, b)| ids.same_text(a, b) || name == CONTENT_TYPE && media_type(a) == media_type(b));
        let ignored = rules.ignored_headers.iter().find(|(ignored, rule)| ignored == name && findings.applies(*rule));
        match ignored {
            Some((_, rule)) if legacy != engine => findings.count_use(*rule),
            Some(_) => {}
            None if equal => {
                // Different texts with corresponding ids are equal by the rules of these ids.
                if legacy != engine && name != CONTENT_TYPE {
                    let by = ids.rules_in(&legacy.join(", "), rules.body.renaming);
                    by.into_iter().for_each(|rule| findings.count_use(rule));
                }
            }
            None if findings.is_not_known(
                &format!("headers.{name}"),
                Some(&*legacy.join(", ")),
                Some(&*engine.join(", ")).filter(|text| !text.is_empty()),
            ) => {}
            None => {
                let show = |values: &[String]| {
                    (!values.is_empty()).then(|| findings.shown_header(name.as_str(), &values.join(", ")))
                };
                let texts = (&legacy, &engine);
                let (path, legacy, engine) = (format!("headers.{name}"), show(texts.0), show(texts.1));
                let contradicted: Vec<_> =
                    texts.0.iter().zip(texts.1).flat_map(|(a, b)| ids.contradicted_in_text(a, b)).collect();
                let kind = DifferenceKind::Header;
                findings.add_contradicting_text(&path, kind, legacy.as_deref(), engine.as_deref(), &contradicted);
            }
        }
    }
}

fn values(headers: &http::HeaderMap, name: &HeaderName) -> Vec<String> {
    // Bytes that are not text are compared in their escaped form.
    headers
        .get_all(name)
        .iter()
        .map(|v| v.to_str().map_or_else(|_| format!("{v:?}"), |text| text.trim().to_owned()))
        .collect()
}

/// Returns a media type in its normal form: lower case, without spaces, with sorted parameters. UTF-8 is the default
/// charset. The boundary between parts has no meaning.
fn media_type(value: &str) -> (String, Vec<String>) {
    let mut parts = value.split(';').map(|part| part.trim().replace('"', "").to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let has_meaning = |parameter: &String| {
        let is_boundary = essence.starts_with("multipart/") && parameter.starts_with("boundary=");
        !parameter.is_empty() && !is_boundary && parameter != "charset=utf-8" && parameter != "charset=utf8"
    };
    let mut parameters: Vec<String> = parts.filter(has_meaning).collect();
    parameters.sort();
    (essence, parameters)
}
