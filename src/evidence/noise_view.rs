//! What is shown of the noise of a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bound::ALPHA;
use super::noise::{LegacyWrite, NoiseOfLegacy};
use super::noise_places::{is_in_list, is_status, may_be_noise_at};
use super::paired::PairedCounts;
use super::route::RouteEvidence;

/// An interval of a share or of a difference of shares, valid with 95 % confidence however often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// The lower end.
    pub at_least: f64,
    /// The upper end.
    pub at_most: f64,
}

/// How legacy differs from itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoiseView {
    /// The requests that legacy answered twice, since the rules or legacy's address last changed.
    pub repeats: u64,
    /// Of these, those whose bodies were compared: the statuses of the engine's reply and of both of legacy's are of
    /// one class (2xx). Where they are not, it is not known whether a value in the bodies differs.
    pub bodies_compared: u64,
    /// Of the pairs, those that count as equal because legacy differs from itself wherever they differ.
    pub ignored: u64,
    /// The places, those with the most noise first. Places at which only the engine differed are not listed.
    pub places: Vec<NoisyPlace>,
    /// How often a place was not counted because too many are known; such a place is no noise.
    pub unlisted: u64,
    /// A call by legacy that may have changed something, because of which no request is repeated any more; `null` if
    /// none was seen.
    pub legacy_write: Option<LegacyWrite>,
}

/// A place at which legacy differs from itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoisyPlace {
    /// The kind of the difference and the path: `value $.generated_at`.
    pub place: String,
    /// In how many of the repeated requests legacy differed from itself.
    pub legacy_differs: u64,
    /// Of so many repeated requests: those whose bodies were compared, and all for a difference in status.
    pub legacy_compared: u64,
    /// The share of these in which it does.
    pub rate: Interval,
    /// In how many of the repeated requests the engine differed from legacy's first reply, since the evidence last
    /// started from zero; in a list, in at least as many elements as legacy's second reply.
    pub engine_differs: u64,
    /// Of so many repeated requests since then, as `legacy_compared`.
    pub engine_compared: u64,
    /// The share of these in which it does.
    pub engine_rate: Interval,
    /// In how many of the repeated requests only the engine differed from legacy's first reply, since the evidence last
    /// started from zero.
    pub only_engine: u64,
    /// In how many only legacy's second reply did.
    pub only_legacy: u64,
    /// By how much the share of requests in which the engine differs exceeds that in which legacy does.
    pub excess: Interval,
    /// Whether the engine differs more often than legacy from itself, so that differences here count.
    pub engine_differs_more: bool,
    /// Whether legacy differs from itself more often than the engine from legacy, so that its second reply says nothing
    /// of the first one, and differences here count.
    pub legacy_differs_more: bool,
    /// Whether differences here may be noise. A text, a body of bytes or all cookies stand for values that are not
    /// counted: differences there count.
    pub may_be_noise: bool,
    /// Whether the place stands for the elements of a list (`[*]`). Then `only_engine` and `only_legacy` are the
    /// requests in which the one differed in more elements than the other.
    pub is_in_list: bool,
    /// The pairs that count as equal although they differ here.
    pub ignored: u64,
}

impl From<(f64, f64)> for Interval {
    fn from((at_least, at_most): (f64, f64)) -> Self {
        Self { at_least, at_most }
    }
}

/// The share of requests in which something differs, of which it did in `differs` of `compared`.
fn rate(differs: u64, compared: u64) -> Interval {
    let pairs = compared.max(differs);
    let (low, high) = PairedCounts { pairs, only_first: differs, only_second: 0 }.interval(ALPHA);
    (low.max(0.0), high).into()
}

/// The noise of a route as it is shown; `None` if no request was repeated and legacy was not seen to write.
pub(super) fn view(legacy: &NoiseOfLegacy, evidence: &RouteEvidence) -> Option<NoiseView> {
    if legacy.repeats == 0 && legacy.write.is_none() {
        return None;
    }
    let noise = &evidence.noise;
    let place = |(place, differs): (&String, &u64)| {
        let outcomes = noise.places.get(place).copied().unwrap_or_default();
        let compared = |repeats: u64, bodies: u64| if is_status(place) { repeats } else { bodies };
        let legacy_compared = compared(legacy.repeats, legacy.bodies);
        let engine_compared = compared(noise.repeats, noise.bodies);
        let engine_differs = outcomes.both + outcomes.only_engine;
        NoisyPlace {
            place: place.clone(),
            legacy_differs: *differs,
            legacy_compared,
            rate: rate(*differs, legacy_compared),
            engine_differs,
            engine_compared,
            engine_rate: rate(engine_differs, engine_compared),
            only_engine: outcomes.only_engine,
            only_legacy: outcomes.only_legacy,
            excess: noise.excess(place, ALPHA).into(),
            engine_differs_more: outcomes.engine_differs_more,
            legacy_differs_more: outcomes.legacy_differs_more,
            may_be_noise: may_be_noise_at(place),
            is_in_list: is_in_list(place),
            ignored: noise.ignored_at(place),
        }
    };
    let mut places: Vec<NoisyPlace> = legacy.places.iter().map(place).collect();
    places.sort_by(|a, b| b.legacy_differs.cmp(&a.legacy_differs).then_with(|| a.place.cmp(&b.place)));
    Some(NoiseView {
        repeats: legacy.repeats,
        bodies_compared: legacy.bodies,
        ignored: noise.ignored,
        places,
        unlisted: legacy.unlisted,
        legacy_write: legacy.write.clone(),
    })
}
