//! `flip`, `freeze` and `flips`: move routes, set the kill switch, list the history.

use std::time::Duration;

use jiff::Timestamp;

use super::args::Server;
use super::client::{CallError, Client, component, query};
use super::format::{Formatter, TableCell, Tone, ago, counted, escape_control, plain, why};
use super::output::Output;
use crate::admin::types::{FlipRequest, FlipResponse, FlipRow, FreezeRequest, FreezeResponse, RouteDetail};
use crate::flag::{Freeze, State};

/// How long a flip may take: `egress.window` (at most a minute), and what the store takes.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// The options of `flip`.
#[derive(Clone)]
pub(crate) struct FlipOptions {
    pub route: String,
    pub state: State,
    pub percent: Option<f64>,
    pub reason: Option<String>,
    pub force: bool,
    pub yes: bool,
}

pub(crate) fn flip(
    client: &Client,
    server: &Server,
    options: &FlipOptions,
    format: Formatter,
) -> Result<Output, CallError> {
    let FlipOptions { route, state, percent, reason, force, yes } = options.clone();
    let request = FlipRequest { to: state, percent, reason, force, acknowledge: yes, by: server.caller_name() };
    let path = format!("/api/v2/routes/{}/flip", component(&route));
    let what = "the pairs that are under way are compared before the gate opens (`egress.window`): this waits for them";
    let (done, json) = client.post_showing_wait::<FlipResponse>(&path, &request, ANSWER_WITHIN, what)?;
    let flip = &done.flip;
    let share = match state {
        State::Off | State::Only => String::new(),
        state => format!(" at {}", done.shares.of(state)),
    };
    let mut text = if done.changed {
        format!(
            "{} {} -> {}{share}, by {}{}\n",
            format.tone(&route, Tone::Strong),
            escape_control(&flip.from),
            format.tone(&flip.to, Tone::of(state)),
            escape_control(&flip.by),
            format.tone(force_text(flip), Tone::Warn),
        )
    } else {
        let route = format.tone(&route, Tone::Strong);
        format!("{route} is {}{share} already: nothing changed\n", format.tone(&flip.to, Tone::of(state)))
    };
    if let Some(note) = unrecorded_note(&done) {
        text.push_str(&format.tone(format!("{}\n", escape_control(&note)), Tone::Warn));
    }
    if done.effective.state != state {
        let note = format!("the state in force is {}: {}\n", done.effective.state, why(done.effective.why));
        text.push_str(&format.tone(note, Tone::Warn));
    }
    if done.runs_in_flight > 0 {
        let goes_on = if done.runs_in_flight == 1 { "continues as it was" } else { "continue as they were" };
        text.push_str(&format!("{} in flight {goes_on} started\n", counted(done.runs_in_flight, "run")));
    }
    for line in &done.still_required {
        text.push_str(&format!("{} {}\n", format.tone("passed by force:", Tone::Warn), escape_control(line)));
    }
    for line in &done.horizon {
        let label = if is_about_share(line) { "note:" } else { "horizon:" };
        text.push_str(&format!("{} {}\n", format.tone(label, Tone::Warn), escape_control(line)));
    }
    Ok(Output { text, json, is_ok: true })
}

/// Whether a sentence of `horizon` is about the larger share that was given together with a lower state; the others
/// are consequences for instances and cohorts. The API tells the two apart only by the text.
fn is_about_share(sentence: &str) -> bool {
    sentence.starts_with("its share of `")
}

/// If the store has not recorded a flip: a sentence that says so, also where the server is of a version that sends
/// none.
fn unrecorded_note(done: &FlipResponse) -> Option<String> {
    let by_client = || (!done.recorded).then(|| "the store has not recorded the flip, which is in force".to_owned());
    done.note.clone().or_else(by_client)
}

pub(crate) fn freeze(
    client: &Client,
    server: &Server,
    on: bool,
    effects: bool,
    reason: Option<String>,
    format: Formatter,
) -> Result<Output, CallError> {
    let request = FreezeRequest { on, effects, reason, by: server.caller_name() };
    let (done, json) = client.post::<FreezeResponse>("/api/v2/freeze", &request)?;
    let what = match done.freeze {
        Freeze::No => format.tone("the kill switch is off: routes are at their own states again", Tone::Good),
        Freeze::Instances => format.tone(
            "frozen: no new engine instances, except by routes in `only` (runs that the API starts and runs in flight \
             continue; `--effects` also holds their private and shared steps)",
            Tone::Bad,
        ),
        Freeze::Effects => format
            .tone("frozen: no new engine instances, except by routes in `only`; no private or shared step begins, theirs included", Tone::Bad),
    };
    let note = done.note.as_ref().map(|note| format.tone(format!("{}\n", escape_control(note)), Tone::Warn));
    let open = match done.open_runs {
        Some(open) => format!("{} open, waiting ones included", counted(open, "run")),
        None => "how many are open is not known".to_owned(),
    };
    let in_flight = counted(done.runs_in_flight, "run");
    let text = format!("{what}\n{}{in_flight} in flight; {open}\n", note.unwrap_or_default());
    Ok(Output { text, json, is_ok: true })
}

/// Text after a flip that says which gate was passed by force; empty if none was.
pub(crate) fn force_text(flip: &FlipRow) -> String {
    let before = flip.forced_above.filter(|rung| rung.as_str() != flip.from);
    match (flip.forced_now_above, before) {
        _ if !flip.forced => String::new(),
        (Some(now), Some(rung)) if rung < now => format!(" (forced; the gate above `{rung}` was forced before, too)"),
        (None, Some(rung)) => format!(" (the gate above `{rung}` was forced before)"),
        (Some(_), _) | (None, None) => " (forced)".to_owned(),
    }
}

pub(crate) fn horizon(client: &Client, route: &str, format: Formatter) -> Result<Output, CallError> {
    let (detail, _) = client.get::<RouteDetail>(&format!("/api/v2/routes/{}", component(route)))?;
    let lines: Vec<String> = detail.horizon.iter().map(|line| format!("- {}\n", escape_control(line))).collect();
    let text = match lines.is_empty() {
        true => "the engine owns no instance that legacy does not know\n".to_owned(),
        false => format!("{}\n{}", format.tone(route, Tone::Strong), lines.concat()),
    };
    Ok(Output { text, json: serde_json::json!({ "route": route, "horizon": detail.horizon }), is_ok: true })
}

pub(crate) fn list(
    client: &Client,
    route: Option<String>,
    limit: usize,
    format: Formatter,
) -> Result<Output, CallError> {
    let other = route.as_ref().map(|route| {
        format!(" (`pointsman record show {}` also has what the files put in force without one)", escape_control(route))
    });
    let query = query(&[("route", route), ("limit", Some(limit.to_string()))]);
    let (flips, json) = client.get::<Vec<FlipRow>>(&format!("/api/v2/flips{query}"))?;
    if flips.is_empty() {
        let text = format!("no flip has been recorded{}\n", other.unwrap_or_default());
        return Ok(Output { text, json, is_ok: true });
    }
    let now = Timestamp::now();
    let header = ["#", "ROUTE", "FROM", "TO", "SHARE", "BY", "WHEN", "REASON"];
    let rows = flips.iter().map(|flip| row(flip, now)).collect();
    Ok(Output { text: format.table(&header, &[0], rows), json, is_ok: true })
}

fn row(flip: &FlipRow, now: Timestamp) -> Vec<TableCell> {
    let state = flip.to.parse::<State>().ok();
    let share = match (state, flip.shares) {
        (Some(state @ (State::Shadow | State::Dark | State::Live)), Some(shares)) => plain(shares.of(state)),
        _ => plain("-"),
    };
    let forced = force_text(flip);
    let guard = flip.guard.map(|guard| format!("guard {}: ", guard.as_str())).unwrap_or_default();
    let candidate = flip.candidate.map(|what| format!("candidate {}", what.as_str())).unwrap_or_default();
    let reason = flip.reason.as_deref().unwrap_or("");
    let colon = if candidate.is_empty() || reason.is_empty() { "" } else { ": " };
    vec![
        plain(flip.number),
        match &flip.route {
            Some(route) => (route.to_string(), Tone::Strong),
            None => ("(kill switch)".to_owned(), Tone::Bad),
        },
        plain(&flip.from),
        (flip.to.clone(), state.map_or(Tone::Plain, Tone::of)),
        share,
        plain(&flip.by),
        plain(ago(flip.at, now)),
        plain(format!("{guard}{candidate}{colon}{reason}{forced}")),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use serde_json::json;

    use super::*;
    use crate::evidence::Evidence;
    use crate::flag::Percent;
    use crate::ladder::MoveRequest;
    use crate::ladder::tests::failing_store::FailingStore;
    use crate::ladder::tests::{files, open_ladder};

    /// The sentence is the ladder's own.
    #[tokio::test(start_paused = true)]
    async fn what_the_ladder_says_of_a_larger_share_is_shown_as_a_note() {
        let store = Arc::new(FailingStore::default());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let ladder = open_ladder(files(&[]), &store, &evidence).await.unwrap();
        let flip = async |to, percent| {
            let (percent, reason, by) = (Percent::new(percent), Some("a drill".to_owned()), "ann".to_owned());
            let request = MoveRequest { to, percent, force: true, reason, acknowledge: false, by };
            ladder.flip(&"plain".into(), request).await.unwrap()
        };
        flip(State::Dark, 20.0).await;
        flip(State::Live, 10.0).await;
        store.refuse_flips.store(true, Ordering::SeqCst);
        let down = flip(State::Dark, 50.0).await;
        assert!(down.horizon.iter().any(|sentence| is_about_share(sentence)), "{:?}", down.horizon);
        assert!(!is_about_share("the engine owns 3 instances of `create` that legacy does not know"));
    }

    #[test]
    fn a_flip_that_is_not_recorded_is_reported_also_if_the_server_sends_no_note() {
        let note = |recorded: bool, note: Option<&str>| {
            let done = json!({
                "flip": { "number": 0, "route": "a", "from": "live", "to": "off", "shares": null, "by": "ann",
                    "at": "2026-01-01T00:00:00Z", "reason": null, "forced": false },
                "recorded": recorded, "note": note, "effective": { "state": "off", "why": "requested" },
                "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 }, "horizon": [], "runs_in_flight": 0,
            });
            unrecorded_note(&serde_json::from_value(done).unwrap())
        };
        assert_eq!(note(true, None), None);
        assert_eq!(note(false, Some("as sent")).as_deref(), Some("as sent"));
        assert!(note(false, None).unwrap().contains("has not recorded the flip"));
    }
}
