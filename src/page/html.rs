//! The frame around each page, and the pieces that several pages have.

use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::admin::Viewer;
use crate::page::assets;

/// What the frame of a page says, beside its content.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Who looks; `None` before the login.
    pub viewer: Option<Viewer>,
    /// The key of the forms of this session.
    pub form_key: String,
    /// The path of the page, with its query: where forms of the frame lead back to.
    pub path: String,
    /// Which part of the page it is: `routes`, `runs` or another path of the navigation.
    pub part: &'static str,
}

/// The parts of the page, in the order of the navigation: name, path, text.
const PARTS: &[(&str, &str, &str)] =
    &[("routes", "/", "Routes"), ("runs", "/runs", "Runs"), ("record", "/record", "Record")];

/// A whole page.
pub(super) fn respond(status: StatusCode, frame: &Frame, title: &str, content: Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Pointsman" }
                link rel="icon" href=(assets::ICON.path) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE.path);
                script type="module" src=(assets::SCRIPT.path) {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "Pointsman" }
                    @if frame.viewer.is_some() { (navigation(frame)) }
                    // The script fills it (`/waiting`).
                    @if frame.viewer.is_some() { div #waiting.waiting data-count="0" {} }
                    @if let Some(viewer) = &frame.viewer { (who(frame, viewer)) }
                }
                main #content tabindex="-1" { (content) }
            }
        }
    };
    (status, Html(page.into_string())).into_response()
}

fn navigation(frame: &Frame) -> Markup {
    html! {
        nav aria-label="Parts" {
            @for (part, path, text) in PARTS {
                a href=(path) aria-current=[(*part == frame.part).then_some("page")] { (text) }
            }
            a href="/docs" { "Docs" }
        }
    }
}

/// Who looks at the page, and how to change that.
fn who(frame: &Frame, viewer: &Viewer) -> Markup {
    html! {
        div.who {
            @if viewer.has_token() {
                span { "Logged in as " strong { (viewer.name().unwrap_or_default()) } }
                form method="post" action="/logout" {
                    (form_key(frame))
                    button type="submit" { "Log out" }
                }
            } @else {
                form method="post" action="/name" {
                    (form_key(frame))
                    label for="your-name" { "Your name" }
                    input #your-name name="name" value=(viewer.name().unwrap_or_default()) maxlength="64"
                        placeholder="not verified" autocomplete="name";
                    button type="submit" { "Set" }
                }
            }
        }
    }
}

/// The hidden fields of every form: the key of the session, and the page that it leads back to.
pub(super) fn form_key(frame: &Frame) -> Markup {
    html! {
        input type="hidden" name="form_key" value=(frame.form_key);
        input type="hidden" name="back" value=(frame.path);
    }
}

/// A time, in UTC; the script shows it in the viewer's zone.
pub(super) fn time(at: Timestamp) -> Markup {
    let at = at.round(jiff::Unit::Second).unwrap_or(at);
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// A number with spaces between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_spaces_between_thousands() {
        let shown = [0, 999, 1_000, 1_234_567].map(|number| count(number).replace('\u{202f}', " "));
        assert_eq!(shown, ["0", "999", "1 000", "1 234 567"]);
    }
}
