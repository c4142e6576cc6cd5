//! PURE. The decision for a request: the rules of the five states, with shares, cohorts, pins and retries.
//!
//! The question it answers: "which arm answers this request, and what does the other one do?" Always true: [`decide`]
//! is total; a shared effect is real in exactly one arm; on the rung `only` no decision names legacy. The order of the
//! checks: a request for an instance that the engine owns goes to the engine in every state; a retry stays on the arm
//! of its first try; then the rung decides.

use http::header;
use http::{HeaderMap, Method};

use super::facts::scope;
use super::hashes::Bucket;
use super::{
    Arm, Cohort, Decision, DecisionDiagnostics, EngineReason, EngineWork, FlagSet, Instance, InstanceKey, Owner,
    Percent, RequestFacts, RouteFlag, Shares, SkipReason, State,
};

/// Why nobody answers for an instance that is being moved to the engine.
pub const MOVING: &str = "the instance of this request is being moved from legacy to the engine; nothing was started";
const ADOPTION_UNKNOWN: &str = "the instance of this request was being moved from legacy to the engine, and whether \
                                legacy released it is not known: until a person has decided (`pointsman adopt`), \
                                nobody answers for it; nothing was started";

/// Why a retry of a request that legacy took before its instance was adopted is not answered.
const TRIED_BEFORE_ADOPTION: &str = "legacy took the first try of this request before the engine adopted its instance, \
                                     and may not have done it, or may do it again: look at the instance, and send the \
                                     request with a new key if it was not done; nothing was started";

/// Decides one request as if it were new, and reports what should be counted; [`Decision::for_retry`] has the decision
/// for a retry. Total: every flag set and every request has a decision.
pub fn decide(
    set: &FlagSet,
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
    diagnostics: &mut DecisionDiagnostics,
) -> Decision {
    let state = flag.effective.state;
    match facts.owner {
        Owner::Engine => return Decision::Engine { rung: state, may_fall_back: false, reason: EngineReason::Pin },
        Owner::Adopted => return Decision::Engine { rung: state, may_fall_back: false, reason: EngineReason::Adopted },
        Owner::Unknown => {
            let why = "which arm owns the instance of this request cannot be determined now; nothing was started";
            return Decision::Nobody { rung: state, why };
        }
        Owner::Moving => return Decision::Nobody { rung: state, why: MOVING },
        Owner::AdoptionUnknown => return Decision::Nobody { rung: state, why: ADOPTION_UNKNOWN },
        Owner::NoPin | Owner::LegacyWithTwin => {}
    }
    let (rung, reason) = rung(set, flag, facts, diagnostics);
    match rung {
        Rung::Off => Decision::Legacy { rung: State::Off, engine_work: EngineWork::None },
        Rung::NotSampled => {
            Decision::Legacy { rung: State::Shadow, engine_work: EngineWork::Skip(SkipReason::NotSampled) }
        }
        Rung::Shadow => {
            let engine_work = if is_follower_without_twin(flag, facts) {
                EngineWork::Skip(SkipReason::NoInstance)
            } else {
                work_or_skip(facts, EngineWork::Rehearse)
            };
            Decision::Legacy { rung: State::Shadow, engine_work }
        }
        Rung::Dark => Decision::Legacy { rung: State::Dark, engine_work: dark_work(flag, facts) },
        // Legacy created the instance, so only legacy can answer.
        Rung::Live if is_follower(flag) => Decision::Legacy { rung: State::Live, engine_work: dark_work(flag, facts) },
        Rung::Live => {
            let may_fall_back = !set.has_follower_in_only(flag);
            Decision::Engine { rung: State::Live, may_fall_back, reason }
        }
        Rung::Only => Decision::Engine { rung: State::Only, may_fall_back: false, reason },
    }
}

/// Whether the route of a request or the cohort of its caller is in `live` or above, or returns there without passing a
/// gate: when the engine is healthy again, when a freeze is lifted, when the time for which it is held below `live` is
/// over, or at a restart before its flip down is recorded.
pub fn could_be_live(flag: &RouteFlag, facts: &RequestFacts<'_>) -> bool {
    let in_cohort = |cohort| flag.granted_rung_of(cohort) >= State::Live;
    flag.could_be_live() || matching_cohort(flag, facts, &mut DecisionDiagnostics::default()).is_some_and(in_cohort)
}

/// Whether a request that the engine answers is compared with the candidate of its route: by the share of `shadow`.
pub fn is_sampled_for_candidate(set: &FlagSet, flag: &RouteFlag, facts: &RequestFacts<'_>) -> bool {
    CallerKey { set, flag, facts, text: None }.is_sampled(flag.shares)
}

/// Which version of its workflow answers a follow-up, as far as the follow-up's instance decides that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionByInstance {
    /// Either version may answer: the route follows up no instances, or the route that creates them has no candidate.
    Either,
    /// The plan in force, because the creator's plan in force, or an earlier version, made the instance.
    InForce,
    /// The candidate, because the creator's candidate made the instance.
    Candidate,
}

/// Whether the candidate of a route, with this share, answers a new request that goes to the engine.
///
/// - If the route follows up instances whose creator has a candidate too, the version that made an instance answers all
///   its follow-ups, however small the share is (a candidate with a share of 0 % answers nothing).
/// - Any other request is placed by the hash of its instance, else of the caller's key, else at random. While the share
///   stays as it is, the same version answers all requests of one instance.
pub fn candidate_answers(
    set: &FlagSet,
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
    follows: Option<&InstanceKey>,
    share: Percent,
    by_instance: VersionByInstance,
) -> bool {
    match by_instance {
        VersionByInstance::InForce => return false,
        VersionByInstance::Candidate => return share > Percent::NONE,
        VersionByInstance::Either => {}
    }
    if share == Percent::NONE || share == Percent::ALL {
        return share == Percent::ALL;
    }
    let family = flag.family.first_id();
    let bucket = match follows {
        Some(instance) => set.hash_keys().candidate_bucket(family, &instance.id),
        None => match (CallerKey { set, flag, facts, text: None }).text() {
            Some(key) => set.hash_keys().candidate_bucket(family, key),
            None => Bucket::from_hash(facts.random),
        },
    };
    bucket.is_in(share)
}

impl Decision {
    /// The decision for a request whose first try was taken by `first_try`, if there was one. `self` is the decision
    /// for a new request with the same facts. A retry stays on the arm of its first try, except that:
    ///
    /// - The engine answers for an instance that it created, whichever arm took the first try.
    /// - If legacy took the first try and the engine has adopted the instance since, legacy answers only if it
    ///   recognises retries and does nothing new to an instance that it has released. Otherwise nobody answers, or the
    ///   engine if the runs of the route are not kept.
    /// - Where nobody answers a new request, nobody answers a retry.
    pub fn for_retry(self, flag: &RouteFlag, first_try: Option<Arm>) -> Decision {
        match (self, first_try) {
            (Decision::Nobody { .. } | Decision::Engine { reason: EngineReason::Pin, .. }, _) | (_, None) => self,
            // Runs that are not kept only read, so nothing is done twice; and legacy's data are out of date since the
            // adoption, so the engine answers.
            (Decision::Engine { reason: EngineReason::Adopted, .. }, _) if !flag.route.keeps_runs => self,
            (Decision::Engine { rung, reason: EngineReason::Adopted, .. }, Some(Arm::Legacy))
                if !flag.legacy_recognises_retries_of_adopted() =>
            {
                Decision::Nobody { rung, why: TRIED_BEFORE_ADOPTION }
            }
            (Decision::Legacy { .. } | Decision::Engine { .. }, Some(arm)) => decide_retry(flag.effective.state, arm),
        }
    }
}

/// A retry stays on the arm that took the first try. The engine may give a retry back to legacy, because the store says
/// whether the run of the first try was abandoned to legacy.
fn decide_retry(state: State, arm: Arm) -> Decision {
    match (arm, state) {
        (Arm::Engine, _) => {
            Decision::Engine { rung: state, may_fall_back: state != State::Only, reason: EngineReason::Retry }
        }
        (Arm::Legacy, State::Only) => {
            let why = "legacy took the first try of this request and is never called in `only`: doing it again could \
                       do the work twice";
            Decision::Nobody { rung: state, why }
        }
        (Arm::Legacy, State::Off) => Decision::Legacy { rung: state, engine_work: EngineWork::None },
        (Arm::Legacy, State::Shadow | State::Dark | State::Live) => {
            Decision::Legacy { rung: state, engine_work: EngineWork::Skip(SkipReason::Retried) }
        }
    }
}

fn is_follower(flag: &RouteFlag) -> bool {
    matches!(flag.route.instance, Some(Instance::Follows { .. }))
}

fn is_follower_without_twin(flag: &RouteFlag, facts: &RequestFacts<'_>) -> bool {
    is_follower(flag) && facts.owner != Owner::LegacyWithTwin
}

fn dark_work(flag: &RouteFlag, facts: &RequestFacts<'_>) -> EngineWork {
    if is_follower_without_twin(flag, facts) {
        return EngineWork::Skip(SkipReason::NoTwin);
    }
    work_or_skip(facts, EngineWork::Dark)
}

/// Returns `engine_work`, or why the request is skipped: the replies to it could not be compared.
pub fn work_or_skip(facts: &RequestFacts<'_>, engine_work: EngineWork) -> EngineWork {
    if facts.method == Method::CONNECT || facts.headers.contains_key(header::UPGRADE) {
        return EngineWork::Skip(SkipReason::Streaming);
    }
    if facts.method == Method::HEAD || is_conditional(facts.headers) {
        return EngineWork::Skip(SkipReason::Conditional);
    }
    engine_work
}

fn is_conditional(headers: &HeaderMap) -> bool {
    const CONDITIONS: [header::HeaderName; 6] = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
    ];
    CONDITIONS.iter().any(|name| headers.contains_key(name))
}

/// The rung of one request: a state, or `NotSampled` for `shadow` without being sampled.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rung {
    Off,
    NotSampled,
    Shadow,
    Dark,
    Live,
    Only,
}

impl From<State> for Rung {
    fn from(state: State) -> Self {
        match state {
            State::Off => Rung::Off,
            State::Shadow => Rung::Shadow,
            State::Dark => Rung::Dark,
            State::Live => Rung::Live,
            State::Only => Rung::Only,
        }
    }
}

/// The rung of a request, and why the engine answers if the rung is `live` or above.
fn rung(
    set: &FlagSet,
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
    diagnostics: &mut DecisionDiagnostics,
) -> (Rung, EngineReason) {
    // A cohort never lowers a caller from `only`: legacy may no longer exist.
    let cohort = match flag.effective.state {
        State::Only => None,
        State::Off | State::Shadow | State::Dark | State::Live => matching_cohort(flag, facts, diagnostics),
    };
    match cohort {
        // A cohort's rung applies to all of its callers, without a share.
        Some(cohort) if !flag.lacks_evidence(cohort) => {
            let rung: Rung = flag.rung_of(cohort).into();
            let is_live = flag.is_ahead(cohort) && rung >= Rung::Live;
            // Callers of the cohort need no key, so a missing key is not counted.
            let by_share = || rung_by_share(set, flag, facts, &mut DecisionDiagnostics::default());
            let by_cohort = is_live && by_share() < Rung::Live;
            (rung, if by_cohort { EngineReason::Cohort } else { EngineReason::Rung })
        }
        // Without evidence the cohort is below the rung of its rule, but never below the callers outside it.
        Some(cohort) => {
            let (by_share, by_rule) = (rung_by_share(set, flag, facts, diagnostics), flag.rung_of(cohort).into());
            let by_cohort = by_rule >= Rung::Live && by_share < Rung::Live;
            (by_share.max(by_rule), if by_cohort { EngineReason::Cohort } else { EngineReason::Rung })
        }
        None => (rung_by_share(set, flag, facts, diagnostics), EngineReason::Rung),
    }
}

/// The rung of a caller according to the route's state and shares.
fn rung_by_share(
    set: &FlagSet,
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
    diagnostics: &mut DecisionDiagnostics,
) -> Rung {
    let mut key = CallerKey { set, flag, facts, text: None };
    let shares = flag.shares;
    match flag.effective.state {
        State::Off => Rung::Off,
        State::Only => Rung::Only,
        State::Shadow => shadow_if_sampled(&mut key, shares),
        state @ (State::Dark | State::Live) => {
            if state == State::Live && key.is_in_share(shares, State::Live, diagnostics) {
                Rung::Live
            } else if key.is_in_share(shares, State::Dark, diagnostics) {
                Rung::Dark
            } else {
                shadow_if_sampled(&mut key, shares)
            }
        }
    }
}

fn shadow_if_sampled(key: &mut CallerKey<'_>, shares: Shares) -> Rung {
    if key.is_sampled(shares) { Rung::Shadow } else { Rung::NotSampled }
}

/// The first cohort whose condition is true. A condition that fails counts as false.
fn matching_cohort<'a>(
    flag: &'a RouteFlag,
    facts: &RequestFacts<'_>,
    diagnostics: &mut DecisionDiagnostics,
) -> Option<&'a Cohort> {
    let index = flag.route.cohorts.iter().position(|cohort| {
        let holds = cohort.when.holds(&scope(cohort.when.reads(), facts));
        diagnostics.cohort_errors += u32::from(holds.is_err());
        holds.unwrap_or(false)
    })?;
    diagnostics.cohort = Some(index);
    flag.route.cohorts.get(index)
}

/// The caller's key, evaluated at most once and only if a share needs it.
struct CallerKey<'a> {
    set: &'a FlagSet,
    flag: &'a RouteFlag,
    facts: &'a RequestFacts<'a>,
    text: Option<Option<String>>,
}

impl CallerKey<'_> {
    fn text(&mut self) -> Option<&str> {
        let (flag, facts) = (self.flag, self.facts);
        let text = self.text.get_or_insert_with(|| {
            let key = flag.route.key.as_ref()?;
            key.evaluate_text(&scope(key.reads(), facts)).ok().filter(|text| !text.is_empty())
        });
        text.as_deref()
    }
    /// Whether the caller is within the share of a rung. A share of 100 % includes callers without a key.
    fn is_in_share(&mut self, shares: Shares, rung: State, diagnostics: &mut DecisionDiagnostics) -> bool {
        let (set, flag) = (self.set, self.flag);
        let share = shares.of(rung);
        if share == super::Percent::ALL {
            return true;
        }
        match self.text() {
            Some(key) => set.hash_keys().dark_live_bucket(flag.family.first_id(), key).is_in(share),
            None => {
                diagnostics.without_key = true;
                false
            }
        }
    }
    /// Whether the request is sampled: by the hash of the key, or without a key by the request's random number.
    fn is_sampled(&mut self, shares: Shares) -> bool {
        let (set, flag, random) = (self.set, self.flag, self.facts.random);
        match self.text() {
            _ if shares.shadow == super::Percent::ALL => true,
            Some(key) => set.hash_keys().sampling_bucket(flag.family.first_id(), key).is_in(shares.shadow),
            None => Bucket::from_hash(random).is_in(shares.shadow),
        }
    }
}
