//! What a comparison has found so far, and how much it may still spend.

use super::place::Place;
use super::redact;
use super::rules::{RuleId, Rules};
use super::verdict::{Comparison, Difference, Kind, TooMuch, Verdict};
use serde_json::Value;

/// The time is looked at once in this many steps.
const STEPS_BETWEEN_LOOKS: u32 = 256;

pub(super) struct Findings<'a> {
    differences: Vec<Difference>,
    max: usize,
    truncated: bool,
    hits: Vec<u32>,
    steps: u32,
    expired: &'a dyn Fn() -> bool,
    stale_reads: bool,
    intents: bool,
}

/// How far the findings had come: to go back to when they are put in fewer words.
pub(super) struct Mark {
    differences: usize,
    truncated: bool,
    hits: Vec<u32>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(rules: &Rules, max: usize, expired: &'a dyn Fn() -> bool) -> Self {
        Self {
            differences: Vec::new(),
            max: max.max(1),
            truncated: false,
            hits: vec![0; rules.texts.len()],
            steps: 0,
            expired,
            stale_reads: false,
            intents: false,
        }
    }

    /// One step of work.
    pub(super) fn step(&mut self) -> Result<(), TooMuch> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) && (self.expired)() { Err(TooMuch::Time) } else { Ok(()) }
    }

    /// Work that cannot be interrupted comes next.
    pub(super) fn look(&self) -> Result<(), TooMuch> {
        if (self.expired)() { Err(TooMuch::Time) } else { Ok(()) }
    }

    pub(super) fn any(&self) -> bool {
        !self.differences.is_empty()
    }

    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    pub(super) fn hit(&mut self, rule: RuleId) {
        if let Some(hits) = self.hits.get_mut(rule) {
            *hits = hits.saturating_add(1);
        }
    }

    /// From here on, body differences come from a world that legacy had changed already.
    pub(super) fn as_stale_reads(&mut self, on: bool) {
        self.stale_reads = on;
    }

    /// From here on, differences are differences of intents.
    pub(super) fn as_intents(&mut self, on: bool) {
        self.intents = on;
    }

    /// A difference of values somewhere in a body: redacted and shortened here.
    pub(super) fn values(&mut self, place: &Place<'_>, kind: Kind, legacy: Option<&Value>, engine: Option<&Value>) {
        let path = place.path();
        if self.known(&path, self.kind(kind)) {
            return;
        }
        let show = |value: &Value| redact::show(place, value);
        self.plain(&path, kind, legacy.map(show).as_deref(), engine.map(show).as_deref());
    }

    /// A difference whose values hold nothing to hide.
    pub(super) fn plain(&mut self, path: &str, kind: Kind, legacy: Option<&str>, engine: Option<&str>) {
        let kind = self.kind(kind);
        if self.known(path, kind) {
            return;
        }
        if self.differences.len() >= self.max {
            self.truncated = true;
            return;
        }
        let shorten = |text: &str| redact::shorten(text, redact::VALUE_BYTES_MAX);
        self.differences.push(Difference {
            path: path.to_owned(),
            kind,
            legacy: legacy.map(shorten),
            engine: engine.map(shorten),
        });
    }

    /// The same difference in another element of an array is the same difference.
    fn known(&self, path: &str, kind: Kind) -> bool {
        self.differences.iter().any(|d| d.kind == kind && d.path == path)
    }

    fn kind(&self, kind: Kind) -> Kind {
        match kind {
            Kind::Missing | Kind::Extra | Kind::Value | Kind::Type | Kind::Order if self.intents => Kind::Intent,
            Kind::Missing | Kind::Extra | Kind::Value | Kind::Type | Kind::Order if self.stale_reads => Kind::StaleRead,
            other => other,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { differences: self.differences.len(), truncated: self.truncated, hits: self.hits.clone() }
    }

    /// Whether anything was found since the mark.
    pub(super) fn since(&self, mark: &Mark) -> bool {
        self.differences.len() > mark.differences || self.truncated != mark.truncated
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.differences.truncate(mark.differences);
        self.truncated = mark.truncated;
        self.hits = mark.hits;
    }

    pub(super) fn finish(self, rules: &Rules) -> Comparison {
        let ignored_by: Vec<(String, u32)> =
            rules.texts.iter().cloned().zip(self.hits).filter(|(_, hits)| *hits > 0).collect();
        let verdict = match (self.differences.is_empty() && !self.truncated, ignored_by.is_empty()) {
            (true, true) => Verdict::Match,
            (true, false) => Verdict::Ignored,
            (false, _) => Verdict::Mismatch,
        };
        let fingerprint = fingerprint(&self.differences);
        Comparison { verdict, differences: self.differences, truncated: self.truncated, ignored_by, fingerprint }
    }
}

fn fingerprint(differences: &[Difference]) -> String {
    let mut set: Vec<(&str, &str)> = differences.iter().map(|d| (d.path.as_str(), d.kind.as_str())).collect();
    set.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (path, kind) in set {
        hasher.update(path.as_bytes()).update(b"\0").update(kind.as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
