//! PURE. Two observations held against each other.
//!
//! The question it answers: "did both arms do the same, and where not?" A pair is looked at in this order: status,
//! then both bodies by what they are (`body`: JSON by structure in `walk`, text in `text`, the rest by digest), with
//! legacy's and the engine's ids held one-to-one against each other (`ids`), then headers and intents with the same
//! ids, then the route's own asserts.
//!
//! Always true: an [`Observation`] is frozen when it is made; a [`Comparison`] is bounded in time, size and depth, and
//! what it shows of values is redacted; `ignored` is a verdict of its own and stays counted, by rule; what could not
//! be judged is never a match.
//!
//! Which requests are compared is `flag`'s and `shadow`'s business, what comparisons add up to is `evidence`'s.

mod assert;
mod body;
mod decode;
mod draft;
mod equal;
mod findings;
mod headers;
mod ids;
mod marks;
mod number;
mod observation;
mod pairing;
mod place;
mod redact;
mod rules;
mod text;
mod times;
mod verdict;
mod walk;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use decode::unpacked;
pub use draft::{CompareWorld, RulesDraft, StatusDraft, ToleranceDraft};
pub use observation::{Body, Intent, Observation};
pub use redact::{redact, sample_text, shorten};
pub use rules::Rules;
pub use verdict::{Comparison, Difference, Kind, TooMuch, Verdict};

use body::Form;
use findings::Findings;
use ids::Ids;
use marks::Marks;
use place::Place;
use rules::Status;
use walk::Walk;

/// One request, what both arms did with it, and what is known of how they did.
pub struct Pair<'a> {
    /// What legacy did.
    pub legacy: &'a Observation,
    /// What the engine did.
    pub engine: &'a Observation,
    /// The request, as expressions see it.
    pub request: &'a serde_json::Value,
    /// The engine read the world after legacy had acted: what differs in the body is of kind `stale_read`.
    pub stale_reads: bool,
}

/// The bounds of one comparison.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Differences listed.
    pub differences: usize,
    /// Nesting of a body.
    pub depth: usize,
    /// Bytes of a body, decoded.
    pub bytes: usize,
}

impl Bounds {
    /// From the limits in force.
    pub fn of(limits: &crate::limits::Limits) -> Self {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            differences: size(limits.compare_differences_max),
            depth: size(limits.compare_depth_max),
            bytes: size(limits.compare_bytes_max),
        }
    }
}

/// Holds two observations against each other. `expired` is asked every now and then whether the time is used up; a
/// comparison that has found a difference by then is a truncated mismatch, one that has not is [`TooMuch::Time`].
///
/// # Errors
/// The bodies cannot be compared within the bounds: no verdict, so neither a match nor a mismatch.
pub fn compare(
    pair: &Pair<'_>,
    rules: &Rules,
    bounds: &Bounds,
    expired: &dyn Fn() -> bool,
) -> Result<Comparison, TooMuch> {
    let mut found = Findings::new(rules, bounds.differences, expired);
    match judge(pair, rules, bounds, &mut found) {
        Ok(()) => {}
        Err(TooMuch::Time) if found.any() => found.truncate(),
        Err(too_much) => return Err(too_much),
    }
    Ok(found.finish(rules))
}

fn judge(pair: &Pair<'_>, rules: &Rules, bounds: &Bounds, found: &mut Findings<'_>) -> Result<(), TooMuch> {
    let same_class = status(pair, rules, found);
    let legacy = Form::of(pair.legacy, bounds)?;
    let engine = Form::of(pair.engine, bounds)?;

    let mut ids = Ids::default();
    if let (Form::Json(legacy), Form::Json(engine)) = (&legacy, &engine) {
        let marks = Marks::of(rules, legacy, engine, found)?;
        if rules.has_ids() {
            Walk::bind(rules, &marks, &mut ids, found, legacy, engine)?;
        }
        headers::compare(pair, rules, &mut ids, found);
        // A refusal and a success have nothing in common but that they differ, which the status has said.
        if same_class {
            found.as_stale_reads(pair.stale_reads);
            Walk::reporting(rules, &marks, &mut ids, found).body(legacy, engine)?;
            found.as_stale_reads(false);
        }
    } else {
        headers::compare(pair, rules, &mut ids, found);
        if same_class {
            found.as_stale_reads(pair.stale_reads);
            body::differing_forms(&legacy, &engine, found)?;
            found.as_stale_reads(false);
        }
    }

    if !pair.legacy.intents().is_empty() && !pair.engine.intents().is_empty() {
        let (legacy, engine) = (assert::intents(pair.legacy), assert::intents(pair.engine));
        let marks = Marks::default();
        found.as_intents(true);
        Walk::reporting(rules, &marks, &mut ids, found).at(Place::of("intents"), &legacy, &engine)?;
        found.as_intents(false);
    }
    assert::judge(pair, &legacy, &engine, rules, &ids, found)
}

/// Compares the statuses; whether they are of one class.
fn status(pair: &Pair<'_>, rules: &Rules, found: &mut Findings<'_>) -> bool {
    let (legacy, engine) = (pair.legacy.status(), pair.engine.status());
    let same_class = legacy.as_u16() / 100 == engine.as_u16() / 100;
    match rules.status {
        _ if legacy == engine => {}
        Status::Class { rule } if same_class => found.hit(rule),
        Status::Class { .. } | Status::Exact => {
            found.plain("status", Kind::Status, Some(legacy.as_str()), Some(engine.as_str()));
        }
    }
    same_class
}
