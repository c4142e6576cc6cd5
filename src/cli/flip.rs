//! `flip`, `freeze`, `flips`: moving routes, and who did.

use jiff::Timestamp;

use super::Done;
use super::args::Server;
use super::client::{CallError, Client, component, query};
use super::paint::{Field, Paint, Tone, ago, harmless, plain, why};
use super::status::runs;
use crate::admin::types::{FlipRequest, FlipResponse, FlipRow, FreezeRequest, FreezeResponse};
use crate::flag::{Freeze, State};

/// What `flip` was told.
pub(crate) struct Wish {
    pub route: String,
    pub state: State,
    pub percent: Option<f64>,
    pub reason: Option<String>,
    pub force: bool,
    pub yes: bool,
}

/// The name that is recorded where the API needs no token.
fn who(server: &Server) -> Option<String> {
    server.by.clone().or_else(|| std::env::var("USER").ok()).filter(|name| !name.trim().is_empty())
}

pub(crate) fn flip(client: &Client, server: &Server, wish: Wish, paint: Paint) -> Result<Done, CallError> {
    let Wish { route, state, percent, reason, force, yes } = wish;
    let ask = FlipRequest { to: state, percent, reason, force, acknowledge: yes, by: who(server) };
    let path = format!("/api/v2/routes/{}/flip", component(&route));
    let (done, json) = client.post::<FlipResponse>(&path, &ask)?;
    let flip = &done.flip;
    let share = match state {
        State::Off | State::Only => String::new(),
        state => format!(" at {}", done.shares.of(state)),
    };
    let mut text = if done.changed {
        format!(
            "{} {} -> {}{share}, by {}{}\n",
            paint.tone(&route, Tone::Strong),
            harmless(&flip.from),
            paint.tone(&flip.to, Tone::of(state)),
            harmless(&flip.by),
            if flip.forced { paint.tone(" (forced)", Tone::Warn) } else { String::new() },
        )
    } else {
        let route = paint.tone(&route, Tone::Strong);
        format!("{route} is {}{share} already: nothing changed\n", paint.tone(&flip.to, Tone::of(state)))
    };
    if done.effective.state != state {
        let note = format!("in force is {}: {}\n", done.effective.state, why(done.effective.why));
        text.push_str(&paint.tone(note, Tone::Warn));
    }
    if done.runs_in_flight > 0 {
        text.push_str(&format!("{} in flight go on as they were born\n", runs(done.runs_in_flight)));
    }
    for line in &done.horizon {
        text.push_str(&format!("{} {}\n", paint.tone("horizon:", Tone::Warn), harmless(line)));
    }
    Ok(Done { text, json, fine: true })
}

pub(crate) fn freeze(
    client: &Client,
    server: &Server,
    on: bool,
    effects: bool,
    reason: Option<String>,
    paint: Paint,
) -> Result<Done, CallError> {
    let ask = FreezeRequest { on, effects, reason, by: who(server) };
    let (done, json) = client.post::<FreezeResponse>("/api/v2/freeze", &ask)?;
    let what = match done.freeze {
        Freeze::No => paint.tone("the kill switch is off: routes are at their own states again", Tone::Good),
        Freeze::Instances => paint.tone(
            "frozen: no new engine instances (runs that the API starts, and those in flight, go on: `--effects` holds \
             their private and shared steps too)",
            Tone::Bad,
        ),
        Freeze::Effects => {
            paint.tone("frozen: no new engine instances, no private or shared step begins (`only` included)", Tone::Bad)
        }
    };
    let text = format!("{what}\n{} in flight\n", runs(done.runs_in_flight));
    Ok(Done { text, json, fine: true })
}

pub(crate) fn list(client: &Client, route: Option<String>, limit: usize, paint: Paint) -> Result<Done, CallError> {
    let query = query(&[("route", route), ("limit", Some(limit.to_string()))]);
    let (flips, json) = client.get::<Vec<FlipRow>>(&format!("/api/v2/flips{query}"))?;
    if flips.is_empty() {
        return Ok(Done { text: "no flip has been recorded\n".to_owned(), json, fine: true });
    }
    let now = Timestamp::now();
    let header = ["#", "ROUTE", "FROM", "TO", "SHARE", "BY", "WHEN", "REASON"];
    let rows = flips.iter().map(|flip| row(flip, now)).collect();
    Ok(Done { text: paint.table(&header, &[0], rows), json, fine: true })
}

fn row(flip: &FlipRow, now: Timestamp) -> Vec<Field> {
    let state = flip.to.parse::<State>().ok();
    let share = match (state, flip.shares) {
        (Some(state @ (State::Shadow | State::Dark | State::Live)), Some(shares)) => plain(shares.of(state)),
        _ => plain("-"),
    };
    let forced = if flip.forced { " (forced)" } else { "" };
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
        plain(format!("{}{forced}", flip.reason.as_deref().unwrap_or(""))),
    ]
}
