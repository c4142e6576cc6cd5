//! What a page says right after its form was carried out: what is in force, whether it is recorded, and which processes
//! have not acknowledged it. The address of the page names the move (`?done=flip-17`); all that is said comes from the
//! API, so that a made-up address says nothing that is not so.

use maud::{Markup, html};

use crate::admin::types::{FlipRow, ProcessRow};
use crate::page::routes::moves;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum Done {
    /// The move with this number was made; 0 where the store has not recorded it yet.
    Moved(u64),
    /// Nothing changed: it was so already.
    Unchanged,
}

impl Done {
    /// What the address says; `None` if it says nothing that is known.
    pub(in crate::page) fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "unchanged" => Some(Self::Unchanged),
            text => text.strip_prefix("flip-")?.parse().ok().map(Self::Moved),
        }
    }

    /// The value for the address.
    pub(in crate::page) fn text(self) -> String {
        match self {
            Self::Moved(number) => format!("flip-{number}"),
            Self::Unchanged => "unchanged".to_owned(),
        }
    }
}

/// What is known of the newest move.
pub(in crate::page) struct NewestMove<'a> {
    /// The newest move of the route, or of the kill switch.
    pub row: Option<&'a FlipRow>,
    /// Whether the store has not recorded it.
    pub is_unrecorded: bool,
    /// What is in force now.
    pub in_force: Markup,
    /// The processes on the same store; `None` if they are not known.
    pub processes: Option<&'a [ProcessRow]>,
}

/// The notice; nothing if the address names a move that was not made.
pub(in crate::page) fn notice(done: Option<Done>, newest: &NewestMove<'_>) -> Markup {
    let body = match (done, newest.row) {
        (None, _) => return html! {},
        (Some(Done::Unchanged), _) => html! { strong { "Nothing changed." } " It was so already: " (newest.in_force) },
        (Some(Done::Moved(number)), Some(row)) if number == row.number || number == 0 || row.number == 0 => {
            html! {
                strong { "Done: " (moves::what(row)) "." } " " (newest.in_force)
                @if newest.is_unrecorded {
                    p.bad {
                        span aria-hidden="true" { "▲ " }
                        "The store has not recorded it yet. Pointsman tries again until it has; if the process ends \
                         before that, it is lost."
                    }
                } @else {
                    p { "It is recorded with the number " (row.number) "." }
                    (acknowledged(row.number, newest.processes))
                }
            }
        }
        (Some(Done::Moved(number)), Some(row)) if number < row.number => {
            html! {
                "The move with the number " (number) " was made. A newer one followed: " (moves::what(row)) ". "
                (newest.in_force)
            }
        }
        (Some(Done::Moved(_)), _) => return html! {},
    };
    html! { div #move-notice .notice role="status" data-live { (body) } }
}

/// Which processes do not have the move in force yet.
fn acknowledged(number: u64, processes: Option<&[ProcessRow]>) -> Markup {
    let Some(processes) = processes else {
        return html! { p.wait { "Whether the other processes have it in force is not known." } };
    };
    let is_behind = |process: &&ProcessRow| {
        !process.is_this && process.lease_left_ms.is_some() && process.newest_flip.is_none_or(|newest| newest < number)
    };
    let behind: Vec<&str> = processes.iter().filter(is_behind).map(|process| process.name.as_str()).collect();
    html! {
        @if !behind.is_empty() {
            p.wait {
                span aria-hidden="true" { "◆ " }
                "Not in force yet in: " (behind.join(", ")) ". Each follows as soon as the store answers it, or is out \
                 when its lease is over."
            }
        } @else if processes.len() > 1 {
            p { "All " (processes.len()) " processes have it in force." }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flip(number: u64) -> FlipRow {
        let row = json!({
            "number": number, "route": "a", "from": "dark", "to": "live", "shares": null, "by": "ann",
            "at": "2026-12-01T12:00:00Z", "reason": "r", "forced": false,
        });
        serde_json::from_value(row).unwrap()
    }

    fn process(name: &str, is_this: bool, newest_flip: u64) -> ProcessRow {
        let row = json!({
            "name": name, "is_this": is_this, "host": "h", "pid": 1, "version": "1", "started": null, "listen": [],
            "admin": "", "edition": "", "files": "same", "newest_flip": newest_flip, "clock_ahead_ms": null,
            "lease_left_ms": 1000,
        });
        serde_json::from_value(row).unwrap()
    }

    fn shown(text: &str, row: Option<&FlipRow>, is_unrecorded: bool, processes: &[ProcessRow]) -> String {
        let in_force = html! { "live is in force." };
        let newest = NewestMove { row, is_unrecorded, in_force, processes: Some(processes) };
        notice(Done::read(Some(text)), &newest).into_string()
    }

    #[test]
    fn it_says_what_is_in_force_whether_it_is_recorded_and_who_has_not_acknowledged() {
        let processes = [process("this", true, 17), process("<b>", false, 16), process("fast", false, 17)];
        let text = shown("flip-17", Some(&flip(17)), false, &processes);
        assert!(text.contains("live is in force.") && text.contains("recorded with the number 17"), "{text}");
        assert!(text.contains("Not in force yet in: &lt;b&gt;.") && !text.contains("fast"), "{text}");
        let unrecorded = shown("flip-0", Some(&flip(0)), true, &processes);
        assert!(
            unrecorded.contains("has not recorded it yet") && !unrecorded.contains("with the number"),
            "{unrecorded}"
        );
    }

    #[test]
    fn unknown_values_say_nothing() {
        for text in ["", "flip-", "flip-99", "<script>", "flip-17x"] {
            assert_eq!(shown(text, Some(&flip(17)), false, &[]), "", "{text}");
        }
        assert_eq!(shown("flip-1", None, false, &[]), "");
        assert_eq!(Done::read(Some(&Done::Moved(17).text())), Some(Done::Moved(17)));
        assert_eq!(Done::read(Some(&Done::Unchanged.text())), Some(Done::Unchanged));
    }

    #[test]
    fn a_newer_move_is_told() {
        let text = shown("flip-16", Some(&flip(17)), false, &[]);
        assert!(text.contains("A newer one followed"), "{text}");
    }
}
