//! What else is to be known of a route: why it is not where it was requested, what its guard did, its candidate, what a
//! person has to accept, how many instances are alive.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::types::{Arm, AutoRow, CandidateRow, EffectiveReason, GuardRelease, GuardRow};
use crate::admin::types::{InstancesRow, RouteRow, State};
use crate::page::duration::duration_text;
use crate::page::html::{count, time};
use crate::page::routes::rungs::why;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::page) enum Weight {
    /// Somebody has to look.
    Bad,
    /// It is not as it should be for ever.
    Wait,
    /// For information.
    Calm,
}

/// A note with its label.
pub(in crate::page) struct Note {
    pub weight: Weight,
    pub label: &'static str,
    pub text: Markup,
}

/// For how long a restart of the evidence is told.
const RESTART_TOLD_S: i64 = 86_400;

/// The notes about a route, those that matter most first.
pub(in crate::page) fn notes(route: &RouteRow, now: Timestamp) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |weight, label, text| notes.push(Note { weight, label, text });
    if let Some(trouble) = &route.plan_trouble {
        add(Weight::Bad, "Not run", html! { "the engine begins nothing for this route: " (trouble) });
    }
    if let Some(guard) = &route.guard {
        add(Weight::Bad, "Guard", guard_text(guard));
    }
    if let Some(text) = &route.to_accept {
        add(Weight::Bad, "To accept", html! { (text) });
    }
    if route.effective.state != route.requested {
        let reason = route.effective.why;
        let text = html! { (route.requested) " is requested, " (route.effective.state) " is in force: " (why(reason)) };
        // What the guard did is said above.
        if reason != EffectiveReason::Guard || route.guard.is_none() {
            add(Weight::Wait, "Lowered", text);
        }
    } else if route.effective.why == EffectiveReason::Unproven && route.effective.state > State::Shadow {
        add(Weight::Wait, "Unproven", html! { "its state is from the file; no evidence supports it yet" });
    }
    if route.flip_unrecorded {
        let text =
            "the store has not recorded the last flip down: if the process ends before it has, the route returns";
        add(Weight::Bad, "Not recorded", html! { (text) });
    }
    if let Some(changed) = &route.changed_since_evidence {
        add(Weight::Wait, "Changed", html! { (changed) });
    }
    if let Some(reason) = &route.forced {
        add(Weight::Wait, "Forced", html! { "a gate was passed by force: " (reason) });
    }
    for cohort in &route.cohorts_ahead {
        if let Some(reason) = &cohort.forced {
            let text = html! { "its cohort " (cohort.name) " is in " (cohort.rung) " by force: " (reason) };
            add(Weight::Wait, "Forced", text);
        }
    }
    if !route.not_guarded.is_empty() {
        let text = html! { "does not count " (route.not_guarded.join(" and ")) ": legacy's own rate is not known" };
        add(Weight::Wait, "Guard", text);
    }
    if let Some(restart) = &route.evidence_restarted
        && now.duration_since(restart.at).as_secs() < RESTART_TOLD_S
    {
        let changed = if restart.changed.is_empty() { "its files".to_owned() } else { restart.changed.join(", ") };
        let text = html! {
            "counted from zero since " (time(restart.at)) " (" (count(restart.pairs_before)) " pairs before): "
            (changed)
            " changed"
        };
        add(Weight::Calm, "Evidence", text);
    }
    if let Some(candidate) = &route.candidate {
        let weight = if candidate.stopped_by_guard.is_some() { Weight::Bad } else { Weight::Calm };
        add(weight, "Candidate", candidate_text(candidate));
    }
    if let Some(auto) = &route.auto {
        add(Weight::Calm, "Share", auto_text(auto));
    }
    if !route.instances.is_empty() {
        let arms: Vec<String> = route.instances.iter().map(|row| instances_text(row, now)).collect();
        add(Weight::Calm, "Alive", html! { (arms.join("; ")) });
    }
    notes.sort_by_key(|note| note.weight);
    notes
}

/// Notes as a list; nothing if there are none.
pub(in crate::page) fn list(notes: &[Note]) -> Markup {
    html! {
        @if !notes.is_empty() {
            ul.notes {
                @for Note { weight, label, text } in notes {
                    li.bad[*weight == Weight::Bad].wait[*weight == Weight::Wait] {
                        strong.label {
                            span aria-hidden="true" {
                                @match weight { Weight::Bad => "▲ ", Weight::Wait => "◆ ", Weight::Calm => "" }
                            }
                            (label)
                        }
                        " " (text)
                    }
                }
            }
        }
    }
}

/// What a guard did.
pub(in crate::page) fn guard_text(guard: &GuardRow) -> Markup {
    html! {
        @match guard.limit {
            Some(limit) => { "keeps it at " (limit) }
            None => { "raised an alarm (a route in only is not lowered)" }
        }
        " since " (time(guard.at)) ": " (guard.reason)
        @if guard.release == GuardRelease::Evidence && guard.limit.is_some() {
            "; " (count(guard.clean_pairs)) " of " (count(guard.clean_pairs_wanted)) " clean pairs in a row release it"
        } @else {
            "; a person has to release it"
        }
        @if guard.unrecorded { "; not recorded yet: a restart would lose it" }
    }
}

fn candidate_text(candidate: &CandidateRow) -> Markup {
    html! {
        "its changed workflow is a candidate, the plan before stays in force"
        @if let Some(why) = &candidate.stopped_by_guard {
            "; the guard took its share away: " (why)
        } @else if candidate.share > 0.0 {
            "; it answers " (candidate.share) " % of new requests"
        }
        "; " (count(candidate.mismatched)) " of " (count(candidate.pairs)) " pairs differ; "
        @match candidate.missing.first() {
            None => "its gate is open",
            Some(first) => {
                "its gate needs: " (first)
                @if candidate.missing.len() > 1 { " and " (candidate.missing.len() - 1) " more" }
            }
        }
    }
}

fn auto_text(auto: &AutoRow) -> Markup {
    let waits_for_time = auto.due_in_s > 0;
    let waits_for_requests = auto.requests < auto.requests_wanted;
    html! {
        @if auto.held.is_empty() { "grows to " } @else { "would grow to " }
        (auto.next) " %"
        @if waits_for_time {
            // The seconds are bounded by the files.
            " in " (duration_text(std::time::Duration::from_secs(auto.due_in_s).as_secs_f64()))
        }
        @if waits_for_time && waits_for_requests { " and" }
        @if waits_for_requests { " after " (count(auto.requests)) " of " (count(auto.requests_wanted)) " requests" }
        @if !waits_for_time && !waits_for_requests { " now" }
        @if !auto.held.is_empty() { ", but is held: " (auto.held.join("; ")) }
    }
}

/// The instances of one arm that are alive.
pub(in crate::page) fn instances_text(row: &InstancesRow, now: Timestamp) -> String {
    let arm = row.arm.as_str();
    let age = |at: Timestamp| duration_text(now.duration_since(at).as_secs_f64().max(0.0));
    let seen = if row.arm == Arm::Legacy && !row.is_listed { " of those that requests have shown" } else { "" };
    if let Some(drained) = row.drained {
        return format!("{arm} 0{seen}, drained for {}", age(drained));
    }
    let unknown = if row.has_unknown { " and others that are not recorded" } else { "" };
    let oldest = row.oldest.map_or_else(String::new, |oldest| format!(", the oldest for {}", age(oldest)));
    let incomplete = match row.twins_incomplete {
        0 => String::new(),
        number => format!(", {} without a complete twin", count(number)),
    };
    format!("{arm} {}{unknown}{oldest}{incomplete}", count(row.alive))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn route(more: &Value) -> RouteRow {
        let mut row = json!({
            "id": "a", "matches": "GET /", "legacy": "shop", "workflow": "w", "follows": null,
            "requested": "live", "effective": { "state": "live", "why": "requested" },
            "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 },
            "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
        });
        for (name, value) in more.as_object().unwrap() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    fn shown(more: &Value) -> String {
        let now: Timestamp = "2026-12-01T12:00:00Z".parse().unwrap();
        list(&notes(&route(more), now)).into_string()
    }

    #[test]
    fn a_route_as_requested_has_no_notes() {
        assert_eq!(shown(&json!({})), "");
    }

    #[test]
    fn what_is_wrong_stands_first_and_is_escaped() {
        let both =
            json!({ "forced": "<script>alert(1)</script>", "plan_trouble": "no such step", "flip_unrecorded": true });
        let shown = shown(&both);
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(at("Not run") < at("Forced") && at("Not recorded") < at("Forced"));
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script"), "{shown}");
    }

    #[test]
    fn a_lowered_route_says_what_holds_it() {
        let frozen = shown(&json!({ "effective": { "state": "shadow", "why": "freeze" } }));
        assert!(frozen.contains("live is requested, shadow is in force: a freeze is in force"), "{frozen}");
        let guard = json!({
            "action": "lowered", "limit": "dark", "condition": null, "bad": 3, "of": 50, "runs": [],
            "at": "2026-12-01T11:00:00Z", "reason": "3 of 50 differ", "unrecorded": false, "release": "hand",
            "clean_pairs": 0, "clean_pairs_wanted": 0,
        });
        let guarded = shown(&json!({ "effective": { "state": "dark", "why": "guard" }, "guard": guard }));
        assert!(guarded.contains("keeps it at dark") && guarded.contains("a person has to release it"), "{guarded}");
        assert!(!guarded.contains("is requested"), "{guarded}");
    }

    #[test]
    fn instances_are_counted_for_each_arm() {
        let of = |arm: &str, alive: u64| {
            let row = json!({ "arm": arm, "alive": alive, "has_unknown": false, "twins_incomplete": 0 });
            let mut row = row.as_object().unwrap().clone();
            row.extend([("oldest".to_owned(), Value::Null), ("drained".to_owned(), Value::Null)]);
            row
        };
        let shown = shown(&json!({ "instances": [of("engine", 12), of("legacy", 3)] }));
        assert!(shown.contains("engine 12; legacy 3"), "{shown}");
    }
}
