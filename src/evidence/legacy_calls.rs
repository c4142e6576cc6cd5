//! What is known of the calls that legacy made for the requests that were compared.
//!
//! If legacy makes calls for a request and the workflow makes none, the pair differs only if legacy's calls are known
//! to belong to the request. If they are attributed to no request, the pair looks equal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;
use crate::exchange::{CallTarget, RequestEffects};

/// How many pairs are needed at most after more calls are ignored.
const PAIRS_AFTER_IGNORING_CALLS: u64 = 100;

/// What is known of the calls that legacy made for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LegacyCallsStatus {
    /// Nothing: they do not come through the egress listener.
    #[default]
    NotWatched,
    /// All its calls, and it made at least one.
    Known,
    /// As far as is known, it made none.
    None,
    /// Not all: some calls may belong to this request or to another one, were not kept, or had not ended when the pair
    /// was compared.
    Incomplete,
    /// None was attributed to the request, and legacy made calls that may have changed something and belong to no known
    /// request.
    OnlyUnattributed,
    /// Legacy made calls that may have changed something, belong to no known request, and are none that the workflow
    /// makes: if one of them is for the request, the workflow lacks it, and no difference shows that.
    Unexpected,
}

impl LegacyCallsStatus {
    /// Whether legacy's calls are watched, but it is not known which of them belong to this request.
    pub fn are_unknown(self) -> bool {
        match self {
            // Unattributed calls that the workflow also makes count as calls for other requests. That is wrong if no
            // call is ever attributed; `why_not_known` judges this over all pairs.
            Self::NotWatched | Self::Known | Self::None | Self::OnlyUnattributed => false,
            Self::Incomplete | Self::Unexpected => true,
        }
    }

    /// What is known of a request's calls. `are_judged`: whether they were compared with the engine's. `is_expected`:
    /// whether the workflow makes such a call. `is_ignored`: whether the rules ignore it.
    pub fn of(
        effects: Option<&RequestEffects>,
        are_judged: bool,
        is_ignored: impl Fn(&CallTarget) -> bool,
        is_expected: impl Fn(&CallTarget) -> bool,
    ) -> Self {
        let Some(effects) = effects else { return Self::NotWatched };
        if !are_judged || effects.gaps() > 0 {
            return Self::Incomplete;
        }
        let mut unattributed = effects.unattributed_writes();
        unattributed.calls.retain(|to| !is_ignored(to));
        // A call that the workflow does not make may belong to the request, even if other calls are known to.
        let has_unexpected = unattributed.may_have_others || unattributed.calls.iter().any(|to| !is_expected(to));
        match (has_unexpected, effects.is_empty(), unattributed.is_empty()) {
            (true, _, _) => Self::Unexpected,
            (false, false, _) => Self::Known,
            (false, true, true) => Self::None,
            (false, true, false) => Self::OnlyUnattributed,
        }
    }
}

/// Numbers of pairs by what is known of legacy's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "LegacyCallsOfPairs")]
pub struct LegacyCallCounts {
    /// Pairs of which legacy's calls come through the egress listener.
    pub watched: u64,
    /// Of these, those with a call by legacy that is known to be theirs.
    pub known: u64,
    /// Of these, those where some calls may be another request's, were not kept, or had not ended.
    pub incomplete: u64,
    /// Of these, those without a call, while legacy made calls that may have changed something and belong to no known
    /// request.
    #[serde(rename = "unseen")] // as stored, and in the API
    pub only_unattributed: u64,
    /// Of these, those during which legacy made calls that may have changed something, belong to no known request, and
    /// are none that the workflow makes.
    pub unexpected: u64,
    /// How many more pairs without an unexpected call are needed, since `ignore_calls` was extended and the earlier
    /// unexpected ones no longer count.
    #[serde(rename = "wanted")]
    pub more_needed: u64,
}

add_change!(LegacyCallCounts {
    sum watched,
    sum known,
    sum incomplete,
    sum only_unattributed,
    sum unexpected,
    sum more_needed,
});

impl LegacyCallCounts {
    pub(super) fn count(&mut self, calls: LegacyCallsStatus) {
        self.watched += u64::from(calls != LegacyCallsStatus::NotWatched);
        self.known += u64::from(calls == LegacyCallsStatus::Known);
        self.incomplete += u64::from(calls == LegacyCallsStatus::Incomplete);
        self.only_unattributed += u64::from(calls == LegacyCallsStatus::OnlyUnattributed);
        self.unexpected += u64::from(calls == LegacyCallsStatus::Unexpected);
        let would_show_unexpected = !matches!(
            calls,
            LegacyCallsStatus::NotWatched | LegacyCallsStatus::Incomplete | LegacyCallsStatus::Unexpected
        );
        self.more_needed -= u64::from(would_show_unexpected).min(self.more_needed);
    }

    /// Called when the rules ignore more calls. It is not stored which unexpected calls the pairs so far had, and so
    /// not known which of these the rules ignore now. The pairs with such calls no longer count as watched, and further
    /// pairs have to show that no unexpected calls are left. `uncompared`: how many calls to unlisted targets in no
    /// compared pair were forgotten for the same reason.
    pub(super) fn forget_unexpected(&mut self, uncompared: u64) {
        let wanted = self.unexpected.max(uncompared).min(PAIRS_AFTER_IGNORING_CALLS);
        self.more_needed = self.more_needed.max(wanted);
        self.watched = self.watched.saturating_sub(std::mem::take(&mut self.unexpected));
    }

    /// Why these pairs do not show which calls legacy makes, if its calls have to be known in this share of them (0 to
    /// 1); `None` if they do.
    pub(super) fn why_not_known(self, share: f64) -> Option<String> {
        let Self { watched, known, incomplete, only_unattributed, unexpected, more_needed } = self;
        let is_too_many = |pairs: u64| pairs as f64 > (1.0 - share) * watched as f64;
        let advice = "have legacy send with each call the request's `traceparent`, or what `egress.correlate` names (`pointsman egress ROUTE`)";
        // In both cases it is not known which calls are the request's.
        let unknown = incomplete + unexpected;
        if is_too_many(unknown) && incomplete >= unexpected {
            let also = match unexpected {
                0 => String::new(),
                n => {
                    format!("; and during {n} pairs it made calls of no known request that the workflow does not make")
                }
            };
            return Some(format!(
                "of {incomplete} of {watched} pairs it is not known which calls legacy made, because they may be another \
                 request's, were not kept or had not ended{also}: {advice}"
            ));
        }
        if is_too_many(unknown) {
            return Some(format!(
                "during {unexpected} of {watched} pairs legacy made calls that may have changed something, belong to no \
                 known request and are none that the workflow makes, so that it may lack one of them: {advice}; those that \
                 are never for this route are named in `compare.ignore_calls`"
            ));
        }
        if more_needed > 0 {
            return Some(format!(
                "more calls are ignored since calls by legacy were found that belong to no known request: {more_needed} more \
                 {} needed to show that none is left",
                if more_needed == 1 { "pair is" } else { "pairs are" }
            ));
        }
        // A known call shows that attribution works, also for the calls that the workflow makes. So the calls of no
        // known request are somebody else's.
        (known == 0 && is_too_many(only_unattributed)).then(|| {
            format!(
                "no call by legacy is known to be for a request of this route, and during {only_unattributed} of {watched} \
                 pairs it made calls that may have changed something and belong to no known request: {advice}; or name in \
                 `compare.ignore_calls` those that are never for this route"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::{OpenCallsView, UnattributedWrites};

    /// A fake without open calls and with these unattributed writes.
    struct Unattributed(UnattributedWrites);

    impl OpenCallsView for Unattributed {
        fn count(&self) -> u64 {
            0
        }
        fn unattributed_writes(&self) -> UnattributedWrites {
            self.0.clone()
        }
    }

    #[test]
    fn unattributed_calls_count_only_where_no_call_is_known() {
        let of = |known, incomplete, only_unattributed| {
            let pairs = LegacyCallCounts { watched: 100, known, incomplete, only_unattributed, ..Default::default() };
            pairs.why_not_known(0.95).map(|why| why.split(' ').next().unwrap_or_default().to_owned())
        };
        assert_eq!(LegacyCallCounts::default().why_not_known(0.95), None, "not watched");
        assert_eq!(of(0, 0, 0), None, "legacy makes no calls");
        assert_eq!((of(95, 5, 0), of(94, 6, 0)), (None, Some("of".to_owned())));
        assert_eq!((of(0, 0, 5), of(0, 0, 6)), (None, Some("no".to_owned())));
        assert_eq!(of(1, 0, 99), None);
    }

    /// The mail of each order is known to be its own, and its charge is not: a workflow without the charge looks equal.
    #[test]
    fn unattributed_calls_that_the_workflow_does_not_make_count_beside_known_ones() {
        let of = |unexpected| {
            let pairs = LegacyCallCounts { watched: 100, known: 100 - unexpected, unexpected, ..Default::default() };
            pairs.why_not_known(0.95)
        };
        assert_eq!(of(5), None);
        let why = of(6).unwrap();
        assert!(why.starts_with("during 6 of 100 pairs legacy made calls") && why.contains("ignore_calls"), "{why}");
        // With those of which it is not known either, there are too many.
        let both = LegacyCallCounts { watched: 100, known: 92, incomplete: 5, unexpected: 3, ..Default::default() };
        assert!(both.why_not_known(0.95).unwrap().contains("during 3 pairs it made calls of no known request"));
    }

    #[test]
    fn after_calls_are_ignored_more_pairs_are_needed() {
        let mut pairs = LegacyCallCounts { watched: 500, known: 20, unexpected: 480, ..Default::default() };
        pairs.forget_unexpected(0);
        assert!(pairs.why_not_known(0.95).unwrap().contains("100 more pairs are needed"), "{pairs:?}");
        (0..99).for_each(|_| pairs.count(LegacyCallsStatus::Known));
        pairs.count(LegacyCallsStatus::Incomplete);
        assert!(pairs.why_not_known(0.95).unwrap().contains("1 more pair is needed"), "{pairs:?}");
        pairs.count(LegacyCallsStatus::None);
        assert_eq!((pairs.watched, pairs.why_not_known(0.95)), (121, None));
        // Not all of them were named.
        pairs.forget_unexpected(0);
        (0..7).for_each(|_| pairs.count(LegacyCallsStatus::Unexpected));
        assert!(pairs.why_not_known(0.95).unwrap().starts_with("during 7 of 128 pairs"));
    }

    #[test]
    fn writes_that_the_workflow_does_not_make_are_unexpected_and_a_gap_is_incomplete() {
        let effects = RequestEffects::default();
        let of = |effects: Option<&RequestEffects>| {
            LegacyCallsStatus::of(effects, true, |to| to.path == "/metrics", |to| to.path == "/mails")
        };
        assert_eq!(of(None), LegacyCallsStatus::NotWatched);
        assert_eq!(of(Some(&effects)), LegacyCallsStatus::None);
        let with_open_calls = LegacyCallsStatus::of(Some(&effects), false, |_| false, |_| true);
        assert_eq!(with_open_calls, LegacyCallsStatus::Incomplete);
        let with = |paths: &[&str], may_have_others| {
            let to = |path: &&str| CallTarget {
                service: None,
                authority: "bank.test".to_owned(),
                method: http::Method::POST,
                path: (*path).to_owned(),
            };
            let calls = paths.iter().map(|path| Arc::new(to(path))).collect();
            effects.with_open_calls(Arc::new(Unattributed(UnattributedWrites { calls, may_have_others })))
        };
        assert_eq!(of(Some(&with(&["/mails"], false))), LegacyCallsStatus::OnlyUnattributed);
        assert_eq!(of(Some(&with(&["/mails", "/charges"], false))), LegacyCallsStatus::Unexpected);
        assert_eq!(of(Some(&with(&["/mails"], true))), LegacyCallsStatus::Unexpected);
        assert_eq!(of(Some(&with(&["/metrics"], false))), LegacyCallsStatus::None, "the rules ignore it");
        effects.add_gap();
        assert_eq!(of(Some(&effects)), LegacyCallsStatus::Incomplete);
        assert_eq!(of(Some(&with(&["/charges"], false))), LegacyCallsStatus::Incomplete);
    }
}
