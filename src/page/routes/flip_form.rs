//! The form that moves a route: the gate and the consequences first, then the rung, the reason and the button. Passing
//! the gate by force is another form, in which the route's id has to be typed.

use maud::{Markup, html};

use crate::admin::types::{ApiProblem, Freeze, RouteRow, State};
use crate::page::client::segment;
use crate::page::failure::problem_box;
use crate::page::html::{Frame, count, form_key};
use crate::page::routes::gate;
use crate::page::routes::route_data::RouteData;
use crate::page::routes::rungs;

/// What was typed, or what is proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::page) struct Typed {
    pub to: String,
    pub percent: String,
    pub reason: String,
    pub has_read: bool,
    /// The id of the route as it was typed, in the form that passes the gate by force; `None` in the other form.
    pub confirmed: Option<String>,
}

/// The content of the page, from its title to its forms.
pub(in crate::page) fn content(
    frame: &Frame,
    data: &RouteData,
    typed: &Typed,
    problem: Option<&ApiProblem>,
    may_flip: bool,
) -> Markup {
    let row = &data.row;
    let path = format!("/routes/{}", segment(row.id.as_str()));
    html! {
        p { a href=(path) { "Back to " (row.id) } }
        h1 { "Move " (row.id) }
        p {
            "Requested: " strong { (row.requested) } ", in force: " strong { (row.effective.state) }
            " (" (rungs::why(row.effective.why)) ")."
        }
        @if data.status.freeze != Freeze::No {
            p.wait { span aria-hidden="true" { "■ " } strong { "Frozen. " } (rungs::about_freeze(data.status.freeze)) }
        }
        @if row.workflow.is_none() {
            p { "The route has no workflow, so the engine cannot answer it: it stays in off." }
        }
        (before(data))
        @if let Some(problem) = problem { (refusal(problem)) }
        @if may_flip {
            (plain_form(frame, &path, data, typed))
            (forced_form(frame, &path, row, typed))
        } @else {
            p { strong { "You cannot move it: a token with the scope " code { "flip" } " is needed." } }
        }
    }
}

/// What has to be known before: the gate, the horizon, and who is affected.
fn before(data: &RouteData) -> Markup {
    html! {
        section #gate data-live aria-labelledby="gate-title" {
            h2 #gate-title { "Going up" }
            @match data.evidence.as_ref().map(|evidence| &evidence.next) {
                Ok(Some(next)) => { (gate::conditions(next)) }
                Ok(None) => { p { "The route is on the highest rung." } }
                Err(problem) => { (problem_box(problem)) }
            }
        }
        section #horizon data-live aria-labelledby="horizon-title" {
            h2 #horizon-title { "Going down" }
            p { "It can go down at once, by any number of rungs. Runs that have begun go on as they were started." }
            @match &data.detail {
                Ok(detail) if detail.horizon.is_empty() => {
                    p { "The engine owns no instance that legacy does not know." }
                }
                Ok(detail) => {
                    p { strong { "The horizon:" } }
                    ul.horizon { @for line in &detail.horizon { li { (line) } } }
                }
                Err(problem) => {
                    p.wait { "What the engine owns is not known now. A flip down works all the same." }
                    (problem_box(problem))
                }
            }
        }
        (affected(&data.row, &data.status.routes))
    }
}

/// Who is affected by a move.
fn affected(row: &RouteRow, routes: &[RouteRow]) -> Markup {
    let followers: Vec<&RouteRow> = routes.iter().filter(|other| other.follows.as_ref() == Some(&row.id)).collect();
    html! {
        section #affected data-live aria-labelledby="affected-title" {
            h2 #affected-title { "Who is affected" }
            ul {
                li {
                    "Callers of " bdi { (row.matches) } ": " (count(row.requests))
                    " requests since the process started."
                }
                @for cohort in &row.cohorts_ahead {
                    li { "The cohort " (cohort.name) " is in " (cohort.rung) " already." }
                }
                @if let Some(creator) = &row.follows {
                    li { "It follows up instances of " (creator) ", which is not raised above it." }
                }
                @if !followers.is_empty() {
                    li {
                        "A route that creates instances is not raised above those that follow it up: "
                        @for (at, follower) in followers.iter().enumerate() {
                            @if at > 0 { ", " } (follower.id) " (" (follower.effective.state) ")"
                        }
                        "."
                    }
                }
                @for instances in &row.instances {
                    li {
                        "The " (instances.arm.as_str()) " has " (count(instances.alive))
                        " instances that are alive: they stay there."
                    }
                }
            }
        }
    }
}

/// Why the API refused the move, and what would pass.
pub(in crate::page) fn refusal(problem: &ApiProblem) -> Markup {
    html! {
        (problem_box(problem))
        @if !problem.commands.is_empty() {
            p { "These moves would pass, one after the other:" }
            ol { @for command in &problem.commands { li { code { (command) } } } }
        }
    }
}

fn plain_form(frame: &Frame, path: &str, data: &RouteData, typed: &Typed) -> Markup {
    let row = &data.row;
    let next = data.evidence.as_ref().ok().and_then(|evidence| evidence.next.as_ref()).map(|next| next.to);
    let highest = next.unwrap_or(row.requested).max(row.requested);
    html! {
        h2 { "Move it" }
        form.move method="post" action=(format!("{path}/flip")) {
            (form_key(frame))
            fieldset {
                legend { "To which rung?" }
                @for rung in State::ALL {
                    @let id = format!("to-{rung}");
                    div.rung-choice {
                        input id=(id) type="radio" name="to" value=(rung) required checked[typed.to == rung.as_str()]
                            disabled[rung > highest] aria-describedby=(format!("about-{rung}"));
                        label for=(id) {
                            strong { (rung) }
                            @if rung == row.requested {
                                " (requested now"
                                @if let Some(percent) = rungs::share(&row.shares, rung) { ", " (percent) " %" }
                                ")"
                            }
                        }
                        p.hint id=(format!("about-{rung}")) {
                            (rungs::about(rung))
                            @if rung > highest { " Not yet: it goes up one rung at a time, first to " (highest) "." }
                        }
                    }
                }
            }
            (share_and_reason("", row, &typed.percent, &typed.reason, false))
            @if row.requested == State::Only {
                div.rung-choice {
                    input #has-read type="checkbox" name="acknowledge" value="yes" checked[typed.has_read];
                    label for="has-read" { "I have read what lowering it would mean (needed to leave only)" }
                }
            }
            button.primary type="submit" { "Move " (row.id) }
        }
    }
}

/// The fields that both forms have. `prefix`: of their ids.
fn share_and_reason(prefix: &str, row: &RouteRow, percent: &str, reason: &str, is_reason_required: bool) -> Markup {
    let shares: Vec<String> = [State::Shadow, State::Dark, State::Live]
        .iter()
        .filter_map(|rung| Some(format!("{rung} {} %", rungs::share(&row.shares, *rung)?)))
        .collect();
    html! {
        div.field {
            label for=(format!("{prefix}percent")) { "Share in percent" }
            input id=(format!("{prefix}percent")) name="percent" type="number" min="0" max="100" step="0.01"
                inputmode="decimal" value=(percent) aria-describedby=(format!("{prefix}about-percent"));
            p.hint id=(format!("{prefix}about-percent")) {
                "For shadow, dark and live. Empty: it stays as it is (" (shares.join(", ")) ")."
            }
        }
        div.field {
            label for=(format!("{prefix}reason")) { "Reason" }
            textarea id=(format!("{prefix}reason")) name="reason" rows="2" required[is_reason_required]
                aria-describedby=(format!("{prefix}about-reason")) { (reason) }
            p.hint id=(format!("{prefix}about-reason")) { "It stands in the record with your name. No secrets." }
        }
    }
}

/// The longer way: without the evidence that the gate asks for.
fn forced_form(frame: &Frame, path: &str, row: &RouteRow, typed: &Typed) -> Markup {
    let is_forced = typed.confirmed.is_some();
    let own = |text: &str| if is_forced { text.to_owned() } else { String::new() };
    html! {
        details.force #force open[is_forced] {
            summary { "Pass the gate by force" }
            p {
                "The route moves without the evidence that the gate asks for. Everybody sees that it was forced until \
                 the evidence suffices. What force cannot do: pass a freeze to only, raise a creator above its \
                 followers, or move a route without a workflow."
            }
            form.move method="post" action=(format!("{path}/flip")) {
                (form_key(frame))
                div.field {
                    label for="force-to" { "To which rung?" }
                    select #force-to name="to" required {
                        option value="" { "Choose" }
                        @for rung in State::ALL {
                            option value=(rung) selected[is_forced && typed.to == rung.as_str()] { (rung) }
                        }
                    }
                }
                (share_and_reason("force-", row, &own(&typed.percent), &own(&typed.reason), true))
                div.field {
                    label for="force-confirm" { "Type the route's id to confirm" }
                    input #force-confirm name="confirm" required autocomplete="off" spellcheck="false"
                        value=(typed.confirmed.as_deref().unwrap_or_default()) aria-describedby="about-confirm";
                    p.hint #about-confirm { "It is " code { (row.id) } "." }
                }
                @if row.requested == State::Only {
                    div.rung-choice {
                        input #force-has-read type="checkbox" name="acknowledge" value="yes" checked[is_forced &&
                            typed.has_read];
                        label for="force-has-read" { "I have read what lowering it would mean (needed to leave only)" }
                    }
                }
                button.danger type="submit" name="force" value="yes" { "Move by force" }
            }
        }
    }
}

#[cfg(test)]
#[path = "flip_form_tests.rs"]
mod tests;
