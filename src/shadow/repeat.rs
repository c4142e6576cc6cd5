//! Sends a request to legacy a second time, after it was compared, and counts how legacy differs from itself.
//!
//! Always true: nobody waits for it, and its client has the reply. At most [`REPEATS_IN_FLIGHT_MAX`] are under way; a
//! request that finds no room is not repeated. A request is not repeated either
//!
//! - if legacy made a call for it that may have changed something: after the first such call no request of the route is
//!   repeated,
//! - if legacy's calls are watched, and it is not known which of them were for this request.
//!
//! If legacy is slow, a repeated request ends at its time-out; if legacy is gone, with an error. No difference is
//! counted then.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;

use super::compared::{ComparedReplies, ComparedRequest};
use super::run::Runner;
use super::stop::Stop;
use crate::compare::{CompareBounds, Effect, Observation, Pair, compare};
use crate::evidence::DifferingPlaces;
use crate::exchange::{Answered, RepeatRequest, RequestEffects, request_value};
use crate::flag::Route;
use crate::limits::Limits;

/// The most requests that are sent to legacy a second time at the same time.
pub(super) const REPEATS_IN_FLIGHT_MAX: usize = 4;

impl Runner {
    /// Notes if legacy made a call for this request that may have changed something, where the route is declared safe
    /// to repeat.
    pub(super) fn note_legacy_write(&self, answered: &Answered) {
        if let Some(effects) = &answered.effects {
            self.note_legacy_calls(&answered.flag.route, effects);
        }
    }

    /// Notes if one of these calls that legacy made may have changed something, where the route is declared safe to
    /// repeat.
    pub(super) fn note_legacy_calls(&self, route: &Route, effects: &RequestEffects) {
        if !route.replay_safe {
            return;
        }
        let rules = self.rules_of(&route.id);
        let calls = effects.so_far().calls;
        if let Some(Effect { method, service, .. }) = calls.iter().find(|call| rules.may_change_something(call)) {
            let service = service.as_ref().map_or("a service that the files do not have", |service| service.as_str());
            self.evidence.record_legacy_write(&route.id, &format!("{method} to {service}"));
        }
    }

    /// Sends a request to legacy a second time if it was chosen for that, unless a stop is asked for.
    pub(super) async fn repeat(&self, compared: &ComparedRequest, mut stop: watch::Receiver<Stop>) {
        let Some(replies) = &compared.replies else { return };
        let outcome = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => "shutting_down",
            outcome = self.try_repeat(compared, replies) => outcome,
        };
        let route = compared.answered.flag.route.id.to_string();
        metrics::counter!("pointsman_noise_repeats_total", "route" => route, "outcome" => outcome).increment(1);
    }

    /// Returns the label `outcome`.
    async fn try_repeat(&self, compared: &ComparedRequest, replies: &ComparedReplies) -> &'static str {
        let (answered, route) = (&compared.answered, &compared.answered.flag.route.id);
        let Some(legacy) = &self.legacy else { return "forbidden" };
        let within = Limits::ms(self.limits.shadow_run_ms);
        let Some(request) = RepeatRequest::of(answered, within) else { return "forbidden" };
        if !self.evidence.is_of(route, compared.generation) {
            return "files_changed";
        }
        // Calls may have come since the request was compared.
        self.note_legacy_write(answered);
        if let Err(why) = self.evidence.may_repeat(route) {
            return why;
        }
        let is_known = answered.effects.as_ref().is_some_and(|effects| {
            let so_far = effects.so_far();
            so_far.gaps == 0 && so_far.open == 0 && effects.unattributed_writes().is_empty()
        });
        if legacy.is_watched && !is_known {
            return "effects_unknown";
        }
        let Ok(_permit) = self.repeats.try_acquire() else { return "busy" };
        let second_reply = match tokio::time::timeout(within, legacy.ask(request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(why)) => return why.as_str(),
            Err(_) => return "failed",
        };
        let judged = std::panic::catch_unwind(AssertUnwindSafe(|| self.judge(compared, replies, &second_reply)));
        judged.unwrap_or("not_compared")
    }

    /// Compares legacy's two replies, and counts where they differ.
    fn judge(&self, compared: &ComparedRequest, replies: &ComparedReplies, second_reply: &Observation) -> &'static str {
        let ComparedRequest { answered, generation, .. } = compared;
        let route = &answered.flag.route.id;
        let rules = self.rules_of(route);
        let request = if rules.reads_request() { request_value(&answered.request) } else { Value::Null };
        let pair = Pair {
            legacy: &answered.legacy,
            engine: second_reply,
            effects: None,
            request: &request,
            instance: None,
            stale_reads: replies.stale_reads,
            // Of the differences only the places are kept, and no values.
            sensitive: None,
        };
        let end = Instant::now() + Limits::ms(self.limits.compare_ms).min(Duration::from_secs(1));
        let Ok(comparison) = compare(&pair, &rules, &CompareBounds::of(&self.limits), &|| Instant::now() >= end) else {
            return "not_compared";
        };
        let class = |status: StatusCode| status.as_u16() / 100;
        let same_class = [replies.status, second_reply.status()].map(class) == [class(answered.legacy.status()); 2];
        let places = DifferingPlaces::of(&comparison);
        match self.evidence.record_repeat(route, *generation, &replies.engine, &places, same_class) {
            false => "not_compared",
            true if places.are_replies_equal() => "equal",
            true => "differs",
        }
    }
}
