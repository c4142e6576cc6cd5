//! Rules that compare more than those in force, and by which no sample differs.
//!
//! A header that is not listed and a number that is written in another form (`1.1` for `1.10`) are equal by default. In
//! the samples both arms may have them alike; then a rule that compares them costs nothing and finds what would change.

use std::collections::BTreeMap;

use http::HeaderName;
use http::header::{
    AGE, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED, LOCATION,
    SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use serde_json::Value;

use super::judged::{Evaluation, JudgedSamples};
use crate::compare::draft::{NumbersDraft, RulesDraft};
use crate::compare::number::NumberForm;

/// The fewest samples in which both arms have what a rule would compare.
const SAMPLES_MIN: u64 = 3;

/// Headers that are never proposed: they are about one message, its time or its connection.
const NEVER: [HeaderName; 11] = [
    AGE,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    SET_COOKIE,
    TRANSFER_ENCODING,
    VARY,
];

/// A rule that compares more.
#[derive(Clone, Debug)]
pub struct StricterRule {
    /// What it would compare, for people.
    pub compares: String,
    /// In how many samples both arms have what it compares.
    pub samples: u64,
}

/// The rules that compare more than this draft, and the draft with all of them. `left`: what differs under the draft.
pub(super) fn find(
    judged: &JudgedSamples<'_>,
    draft: &RulesDraft,
    left: &Evaluation,
) -> (Vec<StricterRule>, RulesDraft) {
    let (mut found, mut all) = (Vec::new(), draft.clone());
    let finds_nothing = |draft: &RulesDraft| {
        !(judged.context.expired)()
            && judged.evaluate(draft).is_some_and(|with| with.left() <= left.left() && !with.has_new)
            // What was not judged in time says nothing.
            && !(judged.context.expired)()
    };
    for (name, samples) in headers(judged) {
        let mut with = all.clone();
        let listed = with.headers.get_or_insert_with(|| [CONTENT_TYPE, LOCATION].map(|name| name.to_string()).to_vec());
        if listed.iter().any(|listed| listed.eq_ignore_ascii_case(&name)) {
            continue;
        }
        listed.push(name.clone());
        if finds_nothing(&with) {
            found.push(StricterRule { compares: format!("the header `{name}`"), samples });
            all = with;
        }
    }
    let samples = judged.samples.iter().filter_map(|sample| sample.documents.as_ref());
    let samples = samples.filter(|[legacy, engine]| has_form(legacy) && has_form(engine)).count() as u64;
    let with = RulesDraft { numbers: NumbersDraft { form: NumberForm::Strict }, ..all.clone() };
    if samples >= SAMPLES_MIN && with != all && finds_nothing(&with) {
        found.push(StricterRule { compares: "how numbers are written (`1.10` or `1.1`)".to_owned(), samples });
        all = with;
    }
    (found, all)
}

/// The headers that both arms have in enough samples, and in how many.
fn headers(judged: &JudgedSamples<'_>) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for sample in &judged.samples {
        let of_engine = sample.read.engine.headers();
        for name in sample.read.legacy.headers().keys() {
            if !NEVER.contains(name) && of_engine.contains_key(name) {
                *found.entry(name.to_string()).or_default() += 1;
            }
        }
    }
    found.retain(|_, samples| *samples >= SAMPLES_MIN);
    found
}

/// Whether a number is written in another form than the shortest one (`1.10`, `1e2`).
fn has_form(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            text.contains(['e', 'E']) || text.contains('.') && text.ends_with('0')
        }
        Value::Array(values) => values.iter().any(has_form),
        Value::Object(members) => members.values().any(has_form),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
