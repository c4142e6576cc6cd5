//! `status`: every route in a row that a person reads at a glance.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::args::{Globals, Server};
use super::client::{CallError, Client};
use super::paint::{Field, Paint, Tone, count, harmless, lasting, plain, why};
use super::{Done, complain};
use crate::admin::types::{RouteRow, Status};
use crate::flag::{Freeze, State, Why};

pub(crate) fn show(client: &Client, paint: Paint) -> Result<Done, CallError> {
    let (status, json) = client.get::<Status>("/api/v2/status")?;
    Ok(Done { text: text(&status, paint), json, fine: true })
}

/// Shows it again and again until interrupted, or until the server is gone.
pub(crate) fn watch(globals: &Globals, server: &Server, paint: Paint) -> ExitCode {
    loop {
        match Client::new(server).and_then(|client| show(&client, paint)) {
            Ok(done) => {
                let clear = if paint.0 { "\u{1b}[2J\u{1b}[H" } else { "" };
                let mut out = std::io::stdout().lock();
                if write!(out, "{clear}{}", done.text).and_then(|()| out.flush()).is_err() {
                    return ExitCode::SUCCESS; // nobody reads any more
                }
            }
            Err(error) => {
                complain(globals, error);
                return ExitCode::from(1);
            }
        }
        std::thread::park_timeout(Duration::from_secs(2));
    }
}

pub(crate) fn text(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    let build = format!("pointsman {}", harmless(&status.build.version));
    out.push_str(&format!(
        "{}  proxy on {}  flags {} old, set {}  {} in flight  shadow {} waiting, {} under way\n",
        paint.tone(build, Tone::Strong),
        harmless(&status.listen),
        lasting(status.flags.age_s),
        status.flags.generation,
        runs(status.runs_in_flight),
        count(status.shadow.queue_depth),
        count(status.shadow.in_flight),
    ));
    match status.freeze {
        Freeze::No => {}
        Freeze::Instances => {
            out.push_str(&paint.tone("FROZEN: no new engine instances (`pointsman freeze --off` ends it)\n", Tone::Bad))
        }
        Freeze::Effects => out.push_str(&paint.tone(
            "FROZEN: no new engine instances, and every private and shared step that has not begun is held\n",
            Tone::Bad,
        )),
    }
    if !status.engine_healthy {
        let why = match &status.store_trouble {
            Some(why) => format!("its store takes nothing: {}", harmless(why)),
            None => "its store does not answer".to_owned(),
        };
        out.push_str(&paint.tone(format!("the engine takes no new runs: {why}\n"), Tone::Bad));
    }
    if let Some(trouble) = &status.clock_trouble {
        out.push_str(&paint.tone(format!("clock: {}\n", harmless(trouble)), Tone::Bad));
    }
    for stuck in &status.stuck {
        let line = format!("stuck: {}: {}\n", harmless(&stuck.run_id), harmless(&stuck.why));
        out.push_str(&paint.tone(line, Tone::Bad));
    }
    out.push('\n');
    let header =
        ["ROUTE", "MATCHES", "REQUESTED", "EFFECTIVE", "WHY", "SHARE", "PAIRS", "MISMATCH", "REQUESTS", "OVERHEAD"];
    if !status.routes.is_empty() {
        out.push_str(&paint.table(&header, &[5, 6, 7, 8, 9], status.routes.iter().map(row).collect()));
    }
    if let Some(error) = &status.flags.last_error {
        out.push_str(&format!(
            "\n{}\n{}\n",
            paint.tone("the flag files as they are now were refused; the last good set stays in force:", Tone::Bad),
            harmless(error).trim_end()
        ));
    }
    for warning in &status.flags.warnings {
        out.push_str(&format!("\n{} {}", paint.tone("warning:", Tone::Warn), harmless(warning)));
    }
    if !status.flags.warnings.is_empty() {
        out.push('\n');
    }
    out
}

/// `3 runs`.
pub(crate) fn runs(number: u64) -> String {
    if number == 1 { "1 run".to_owned() } else { format!("{} runs", count(number)) }
}

fn row(route: &RouteRow) -> Vec<Field> {
    let effective = route.effective;
    let lowered = effective.state < route.requested;
    let reason = match effective.why {
        Why::Requested if route.forced.is_some() => ("forced, not yet proven".to_owned(), Tone::Warn),
        Why::Requested => (String::new(), Tone::Plain),
        // There is nothing to prove of `off`.
        Why::Unproven if effective.state == State::Off => ("from the file".to_owned(), Tone::Faint),
        Why::Unproven => (why(effective.why).to_owned(), Tone::Faint),
        Why::Gate | Why::Guard | Why::Health | Why::Freeze => (why(effective.why).to_owned(), Tone::Warn),
    };
    let share = match effective.state {
        State::Off | State::Only => plain("-"),
        state => plain(route.shares.of(state)),
    };
    let mismatch = match (route.pairs, route.mismatched) {
        (0, _) => plain("-"),
        (_, 0) => ("0".to_owned(), Tone::Good),
        (pairs, wrong) => {
            #[allow(clippy::cast_precision_loss)] // shown with two digits
            let percent = wrong as f64 * 100.0 / pairs as f64;
            (format!("{} ({percent:.2}%)", count(wrong)), Tone::Bad)
        }
    };
    vec![
        (route.id.to_string(), Tone::Strong),
        (route.matches.clone(), Tone::Faint),
        (route.requested.to_string(), Tone::of(route.requested)),
        (effective.state.to_string(), if lowered { Tone::Warn } else { Tone::of(effective.state) }),
        reason,
        share,
        if route.pairs == 0 { plain("-") } else { plain(count(route.pairs)) },
        mismatch,
        plain(count(route.requests)),
        match route.overhead_p50_us {
            Some(micros) => plain(lasting(micros / 1e6)),
            None => plain("-"),
        },
    ]
}
