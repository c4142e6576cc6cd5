//! Calls by legacy that may have changed something and that are in no compared pair: they came after `egress.window`,
//! belong to no known request, or went through a tunnel.
//!
//! A workflow that lacks such a call looks right. So they are kept with the pairs, as part of the evidence: in the
//! store, over restarts, and until the evidence starts from zero.
//!
//! Always true: paths are kept without the values in them; the list of targets is bounded, and calls to targets that
//! found no room are counted.

use http::Method;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, add_change, oldest};
use crate::exchange::{CallTarget, UncomparedCalls, UncomparedReason};
use crate::names::ServiceName;

/// The most targets that are listed, of each kind of calls.
const TARGETS_MAX: usize = 64;
/// The longest path that is listed.
const PATH_BYTES_MAX: usize = 512;

/// The calls by legacy that are in no compared pair. When they were counted, the workflow made no such call, and
/// `ignore_calls` did not name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UncomparedCallCounts {
    /// Calls for a request of the route that came after the end of its `egress.window`.
    pub late: UncomparedTargets,
    /// Calls that belong to no known request, and tunnels, if requests of the route may have caused them.
    pub of_no_request: UncomparedTargets,
}

add_change!(UncomparedCallCounts { sum late, sum of_no_request });

/// Where such calls went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UncomparedTargets {
    /// The first 64 targets.
    pub listed: Vec<UncomparedTarget>,
    /// How many calls went to other targets.
    pub others: u64,
    /// When the first call to another target ended.
    pub others_since: Option<Timestamp>,
}

impl AddChange for UncomparedTargets {
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.others.add_change(&before.others, &after.others);
        oldest(&mut self.others_since, &before.others_since, &after.others_since);
        for target in &after.listed {
            let calls_before =
                before.listed.iter().find(|before| before.is_same(target)).map_or(0, |known| known.calls);
            let calls = target.calls.saturating_sub(calls_before);
            let has_room = self.listed.len() < TARGETS_MAX;
            match self.listed.iter_mut().find(|own| own.is_same(target)) {
                Some(own) => (own.calls, own.first) = (own.calls + calls, own.first.min(target.first)),
                None if calls == 0 => {}
                None if has_room => self.listed.push(UncomparedTarget { calls, ..target.clone() }),
                None => {
                    self.others += calls;
                    oldest(&mut self.others_since, &None, &Some(target.first));
                }
            }
        }
    }
}

/// One target of such calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UncomparedTarget {
    /// The service; `null` if no service has the address.
    pub service: Option<ServiceName>,
    /// Host and port.
    pub authority: String,
    /// The method; `CONNECT` for a tunnel.
    pub method: String,
    /// The path, with `{}` in place of values; empty for a tunnel.
    pub path: String,
    /// How many calls.
    pub calls: u64,
    /// When the first one ended.
    pub first: Timestamp,
}

impl UncomparedTarget {
    /// The target; `None` if the method is not a valid one.
    pub fn target(&self) -> Option<CallTarget> {
        let Self { service, authority, method, path, calls: _, first: _ } = self;
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        Some(CallTarget { service: service.clone(), authority: authority.clone(), method, path: path.clone() })
    }

    /// As a line of `ignore_calls` names it: `POST bank/accounts/*`.
    pub fn pattern(&self) -> String {
        let to = self.service.as_ref().map_or(self.authority.as_str(), ServiceName::as_str);
        format!("{} {to}{}", self.method, self.path.replace("{}", "*"))
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.service, &self.authority, &self.method, &self.path)
            == (&other.service, &other.authority, &other.method, &other.path)
    }

    fn is(&self, to: &CallTarget) -> bool {
        (&self.service, &self.authority, self.method.as_str(), &self.path)
            == (&to.service, &to.authority, to.method.as_str(), &to.path)
    }
}

impl UncomparedTargets {
    /// All calls.
    pub fn calls(&self) -> u64 {
        self.listed.iter().map(|target| target.calls).sum::<u64>().saturating_add(self.others)
    }

    /// Whether such calls would be the first ones to their target, or the first ones that are not listed.
    pub(super) fn would_be_first(&self, to: Option<&CallTarget>) -> bool {
        let is_listed = |to| self.listed.iter().any(|target| target.is(to));
        let has_room = to.is_some() && self.listed.len() < TARGETS_MAX;
        (has_room || self.others == 0) && !to.is_some_and(is_listed)
    }

    /// Whether the target is listed, or there is room for it.
    pub(super) fn can_name(&self, to: Option<&CallTarget>) -> bool {
        to.is_some_and(|to| self.listed.len() < TARGETS_MAX || self.listed.iter().any(|target| target.is(to)))
    }

    /// Counts calls to a target; the values in its path are already replaced by `{}`. If the list is full, first
    /// removes the targets that are expected by now: the workflow calls them, or `ignore_calls` names them.
    pub(super) fn count(
        &mut self,
        to: Option<CallTarget>,
        calls: &UncomparedCalls,
        is_expected: &dyn Fn(&CallTarget) -> bool,
    ) {
        if let Some(known) = self.listed.iter_mut().find(|target| to.as_ref().is_some_and(|to| target.is(to))) {
            known.calls += calls.calls;
            return;
        }
        if self.listed.len() >= TARGETS_MAX {
            self.listed.retain(|target| !target.target().is_some_and(|to| is_expected(&to)));
        }
        match to.filter(|to| to.path.len() <= PATH_BYTES_MAX && self.listed.len() < TARGETS_MAX) {
            Some(CallTarget { service, authority, method, path }) => {
                let (method, calls, first) = (method.to_string(), calls.calls.max(1), calls.first);
                self.listed.push(UncomparedTarget { service, authority, method, path, calls, first });
            }
            None => {
                self.others += calls.calls.max(1);
                self.others_since.get_or_insert(calls.first);
            }
        }
    }
}

impl UncomparedCallCounts {
    pub(super) fn of_mut(&mut self, reason: UncomparedReason) -> &mut UncomparedTargets {
        match reason {
            UncomparedReason::Late => &mut self.late,
            UncomparedReason::NoKnownRequest => &mut self.of_no_request,
        }
    }

    /// Forgets the calls to targets that are not listed, because the rules ignore more calls than before: it is not
    /// known whether they are ignored now, and further pairs have to show it. Returns how many these were.
    pub(super) fn forget_unlisted(&mut self) -> u64 {
        [&mut self.late, &mut self.of_no_request].into_iter().fold(0, |all, targets| {
            targets.others_since = None;
            all + std::mem::take(&mut targets.others)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::evidence::testing::{Memory, evidence};
    use crate::evidence::{Evidence, EvidenceBasis, LEGACY_ADDRESS, RULES};
    use crate::names::RouteId;

    fn calls(path: &str, reason: UncomparedReason) -> UncomparedCalls {
        let (authority, path) = ("bank.test".to_owned(), path.to_owned());
        let to = CallTarget { service: Some("bank".into()), authority, method: Method::POST, path };
        UncomparedCalls {
            route: "orders".into(),
            to: Some(Arc::new(to)),
            reason,
            calls: 2,
            first: Timestamp::UNIX_EPOCH,
        }
    }

    fn shown(targets: &UncomparedTargets) -> Vec<String> {
        targets.listed.iter().map(|target| format!("{} {}", target.pattern(), target.calls)).collect()
    }

    fn basis(hash: &str, rules: &serde_json::Value) -> EvidenceBasis {
        let parts = [("the workflow `w`", hash.to_owned()), (RULES, rules.to_string())];
        EvidenceBasis {
            hash: format!("{hash} {rules}"),
            parts: parts.map(|(name, hash)| (name.to_owned(), hash)).into(),
            rules: rules.to_string(),
            ..EvidenceBasis::default()
        }
    }

    #[tokio::test]
    async fn uncompared_calls_are_kept_with_the_pairs_over_restarts_and_until_these_start_from_zero() {
        let store = Arc::new(Memory::new());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let route = RouteId::from("orders");
        let set = |evidence: &Evidence, hash: &str, rules: &serde_json::Value| {
            evidence.set_basis(0, &[(route.clone(), basis(hash, rules))]);
        };
        set(&evidence, "1", &json!({}));
        for path in ["/mails/17", "/mails/18", "/points", "/x/../mails"] {
            evidence.count_uncompared(&calls(path, UncomparedReason::NoKnownRequest), &|_| false);
        }
        evidence.count_uncompared(&calls("/charges", UncomparedReason::Late), &|_| false);
        evidence.count_uncompared(&calls("/expected", UncomparedReason::Late), &|to| to.path == "/expected");
        evidence.flush().await.unwrap();
        let again = Evidence::load(store).await.unwrap();
        let found = |evidence: &Evidence| {
            let UncomparedCallCounts { late, of_no_request } = evidence.uncompared_calls(&route);
            (shown(&late), shown(&of_no_request))
        };
        let all = (
            vec!["POST bank/charges 2".to_owned()],
            ["POST bank/mails/* 4", "POST bank/points 2", "POST bank/x/../mails 2"].map(str::to_owned).to_vec(),
        );
        assert_eq!(found(&again), all);
        again.counters(&route).lock().evidence.shadow_pairs = 1;
        set(&again, "1", &json!({"ignore_calls": ["analytics"]}));
        assert_eq!(found(&again), all, "the pairs go on");
        set(&again, "2", &json!({}));
        assert_eq!(found(&again), (vec![], vec![]), "the pairs start from zero");
        set(&again, "1", &json!({"ignore_calls": ["analytics"]}));
        assert_eq!(found(&again), all, "and go on");
    }

    /// What the added rule ignores, and what came under a window that was taken back, is missing in the earlier pairs.
    #[tokio::test]
    async fn uncompared_calls_under_files_that_are_taken_back_count_for_the_earlier_pairs_too() {
        let (evidence, _store) = evidence().await;
        let route = RouteId::from("orders");
        let set = |workflow: &str, address: &str, rules: &serde_json::Value| {
            let mut basis = basis(workflow, rules);
            basis.hash = format!("{} {address}", basis.hash);
            basis.parts.hashes.insert(LEGACY_ADDRESS.into(), address.into());
            evidence.set_basis(0, &[(route.clone(), basis)]);
            evidence.counters(&route).lock().evidence.shadow_pairs += 1;
        };
        let late = || shown(&evidence.uncompared_calls(&route).late);
        set("1", "a", &json!({}));
        set("1", "a", &json!({"ignore_calls": ["bank/mails"]}));
        evidence.count_uncompared(&calls("/mails", UncomparedReason::Late), &|to| to.path == "/mails");
        assert_eq!(late(), [""; 0], "the rule ignores it");
        evidence.count_uncompared(&calls("/points", UncomparedReason::Late), &|to| to.path == "/mails");
        set("1", "a", &json!({}));
        assert_eq!(late(), ["POST bank/mails 2", "POST bank/points 2"]);
        set("2", "a", &json!({}));
        assert_eq!(late(), [""; 0], "other pairs");
        set("2", "b", &json!({}));
        evidence.count_uncompared(&calls("/charges", UncomparedReason::Late), &|_| false);
        set("1", "a", &json!({}));
        // A request that was decided by the files before, and went to the legacy before, may have caused it.
        assert_eq!(late(), ["POST bank/mails 2", "POST bank/points 2", "POST bank/charges 2"]);
        // What is expected now takes no room that is needed to name others.
        set("3", "a", &json!({}));
        let word = |n: usize| -> String { format!("{n:04}").bytes().map(|digit| char::from(digit + 49)).collect() };
        for n in 0..TARGETS_MAX + 3 {
            evidence.count_uncompared(&calls(&format!("/{}", word(n)), UncomparedReason::Late), &|_| true);
        }
        set("1", "a", &json!({}));
        let late = evidence.uncompared_calls(&route).late;
        assert_eq!((late.listed.len(), late.others), (TARGETS_MAX, 0));
    }

    #[tokio::test]
    async fn uncompared_calls_to_unlisted_targets_count_until_the_rules_ignore_more_calls() {
        let (evidence, _store) = evidence().await;
        let route = RouteId::from("orders");
        evidence.set_basis(0, &[(route.clone(), basis("1", &json!({})))]);
        let word = |n: usize| -> String { format!("{n:04}").bytes().map(|digit| char::from(digit + 49)).collect() };
        for n in 0..TARGETS_MAX + 3 {
            evidence.count_uncompared(&calls(&format!("/{}", word(n)), UncomparedReason::Late), &|_| false);
        }
        let late = evidence.uncompared_calls(&route).late;
        assert_eq!((late.listed.len(), late.others, late.calls()), (TARGETS_MAX, 6, 134));
        let longer = json!({"ignore_calls": ["bank"]});
        evidence.set_basis(1, &[(route.clone(), basis("1", &longer))]);
        let late = evidence.uncompared_calls(&route).late;
        assert_eq!((late.listed.len(), late.others, late.others_since), (TARGETS_MAX, 0, None));
        assert_eq!(evidence.of(&route).dark.legacy_calls.more_needed, 6);
        // What is expected by now makes room.
        let mut elsewhere = calls("/a", UncomparedReason::Late);
        let to = CallTarget { service: None, ..CallTarget::clone(elsewhere.to.as_ref().unwrap()) };
        elsewhere.to = Some(Arc::new(to));
        evidence.count_uncompared(&elsewhere, &|to| to.service.is_some());
        assert_eq!(shown(&evidence.uncompared_calls(&route).late), ["POST bank.test/a 2"]);
    }
}
