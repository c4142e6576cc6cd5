//! PURE. The decision itself: the table of the five states, with shares, floors, cohorts, pins and retries.
//!
//! The question it answers: "who answers this request, and what happens beside it?" Always true: [`decide`] is total;
//! a shared effect is real in exactly one arm; on the rung `only` legacy is never named. In this order: an instance of
//! the engine's is the engine's whatever the flag says; a retry stays on the arm of its first try; then the rung.

use http::header;
use http::{HeaderMap, Method};

use super::draw::Place;
use super::facts::scope;
use super::{
    Arm, Because, Decision, FlagSet, Instance, Notes, Other, Owner, RequestFacts, RouteFlag, Shares, SkipReason, State,
};

/// Decides one request. Total: every flag set and every request has a decision.
pub fn decide(set: &FlagSet, flag: &RouteFlag, facts: &RequestFacts<'_>) -> Decision {
    decide_noting(set, flag, facts, &mut Notes::default())
}

/// As [`decide`], and notes what should be counted beside it.
pub fn decide_noting(set: &FlagSet, flag: &RouteFlag, facts: &RequestFacts<'_>, notes: &mut Notes) -> Decision {
    let state = flag.effective.state;
    match facts.owner {
        Owner::Engine => return Decision::Engine { rung: state, may_fall_back: false, because: Because::Pin },
        Owner::Unknown => {
            let why = "it cannot be told now which arm owns what the request follows up; nothing was begun";
            return Decision::Nobody { rung: state, why };
        }
        Owner::Nobody | Owner::LegacyWithTwin => {}
    }
    if let Some(arm) = facts.first_try {
        return retried(state, arm);
    }
    match rung(set, flag, facts, notes) {
        Rung::Off => Decision::Legacy { rung: State::Off, other: Other::None },
        Rung::NotSampled => Decision::Legacy { rung: State::Shadow, other: Other::Skip(SkipReason::NotSampled) },
        Rung::Shadow => {
            let other = if is_follower_without_twin(flag, facts) {
                Other::Skip(SkipReason::NoInstance)
            } else {
                comparable(facts, Other::Rehearse)
            };
            Decision::Legacy { rung: State::Shadow, other }
        }
        Rung::Dark => Decision::Legacy { rung: State::Dark, other: dark(flag, facts) },
        // What legacy created only legacy can answer.
        Rung::Live if is_follower(flag) => Decision::Legacy { rung: State::Live, other: dark(flag, facts) },
        Rung::Live => Decision::Engine { rung: State::Live, may_fall_back: true, because: Because::Rung },
        Rung::Only => Decision::Engine { rung: State::Only, may_fall_back: false, because: Because::Rung },
    }
}

/// A retry stays with the arm that took the first try. The engine may give it back where its run was given up for
/// legacy, which is on disk by then.
fn retried(state: State, arm: Arm) -> Decision {
    match (arm, state) {
        (Arm::Engine, _) => {
            Decision::Engine { rung: state, may_fall_back: state != State::Only, because: Because::Retry }
        }
        (Arm::Legacy, State::Only) => {
            let why = "legacy took the first try of this request and is never called in `only`: doing it again could \
                       do the work twice";
            Decision::Nobody { rung: state, why }
        }
        (Arm::Legacy, State::Off) => Decision::Legacy { rung: state, other: Other::None },
        (Arm::Legacy, State::Shadow | State::Dark | State::Live) => {
            Decision::Legacy { rung: state, other: Other::Skip(SkipReason::Retried) }
        }
    }
}

fn is_follower(flag: &RouteFlag) -> bool {
    matches!(flag.route.instance, Some(Instance::Follows { .. }))
}

fn is_follower_without_twin(flag: &RouteFlag, facts: &RequestFacts<'_>) -> bool {
    is_follower(flag) && facts.owner != Owner::LegacyWithTwin
}

fn dark(flag: &RouteFlag, facts: &RequestFacts<'_>) -> Other {
    if is_follower_without_twin(flag, facts) {
        return Other::Skip(SkipReason::NoTwin);
    }
    comparable(facts, Other::Dark)
}

/// The other arm's part, unless the replies could not be held against each other.
fn comparable(facts: &RequestFacts<'_>, other: Other) -> Other {
    if facts.method == Method::CONNECT || facts.headers.contains_key(header::UPGRADE) {
        return Other::Skip(SkipReason::Streaming);
    }
    if facts.method == Method::HEAD || is_conditional(facts.headers) {
        return Other::Skip(SkipReason::Conditional);
    }
    other
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

/// Where one request stands: the states, and outside the sample of `shadow`.
enum Rung {
    Off,
    NotSampled,
    Shadow,
    Dark,
    Live,
    Only,
}

fn rung(set: &FlagSet, flag: &RouteFlag, facts: &RequestFacts<'_>, notes: &mut Notes) -> Rung {
    let state = flag.effective.state;
    // Nobody is taken down from `only`: legacy may be gone by then.
    if state != State::Only
        && let Some(state) = cohort(flag, facts, notes)
    {
        // A cohort is a rung for all of it: no share applies.
        return match state {
            State::Off => Rung::Off,
            State::Shadow => Rung::Shadow,
            State::Dark => Rung::Dark,
            State::Live => Rung::Live,
            State::Only => Rung::Only,
        };
    }
    let mut key = Key { set, flag, facts, text: None };
    let shares = flag.shares;
    match state {
        State::Off => Rung::Off,
        State::Only => Rung::Only,
        State::Shadow => sampled(&mut key, shares),
        State::Dark | State::Live => {
            if state == State::Live && key.is_in_cohort(shares, State::Live, notes) {
                Rung::Live
            } else if key.is_in_cohort(shares, State::Dark, notes) {
                Rung::Dark
            } else {
                sampled(&mut key, shares)
            }
        }
    }
}

fn sampled(key: &mut Key<'_>, shares: Shares) -> Rung {
    if key.is_sampled(shares) { Rung::Shadow } else { Rung::NotSampled }
}

/// The rung of the first cohort that holds, no higher than guard, health and kill switch allow. An error is a no.
fn cohort(flag: &RouteFlag, facts: &RequestFacts<'_>, notes: &mut Notes) -> Option<State> {
    flag.route.cohorts.iter().find_map(|cohort| {
        let holds = cohort.when.holds(&scope(cohort.when.reads(), facts));
        notes.cohort_errors += u32::from(holds.is_err());
        holds.unwrap_or(false).then(|| flag.rung_of(cohort))
    })
}

/// The caller's key, evaluated at most once and only where a share asks for it.
struct Key<'a> {
    set: &'a FlagSet,
    flag: &'a RouteFlag,
    facts: &'a RequestFacts<'a>,
    text: Option<Option<String>>,
}

impl Key<'_> {
    fn text(&mut self) -> Option<&str> {
        let (flag, facts) = (self.flag, self.facts);
        let text = self.text.get_or_insert_with(|| {
            let key = flag.route.key.as_ref()?;
            key.evaluate_text(&scope(key.reads(), facts)).ok().filter(|text| !text.is_empty())
        });
        text.as_deref()
    }
    /// At 100 % everybody is in, also without a key.
    fn is_in_cohort(&mut self, shares: Shares, rung: State, notes: &mut Notes) -> bool {
        let (set, flag) = (self.set, self.flag);
        let share = shares.of(rung);
        if share == super::Percent::ALL {
            return true;
        }
        match self.text() {
            Some(key) => set.salts().cohort(flag.family.first_id(), key).is_in(share),
            None => {
                notes.without_key = true;
                false
            }
        }
    }
    /// By key, or without one by the request's own draw.
    fn is_sampled(&mut self, shares: Shares) -> bool {
        let (set, flag, draw) = (self.set, self.flag, self.facts.draw);
        match self.text() {
            _ if shares.shadow == super::Percent::ALL => true,
            Some(key) => set.salts().sample(flag.family.first_id(), key).is_in(shares.shadow),
            None => Place::of_draw(draw).is_in(shares.shadow),
        }
    }
}
