//! The record of all moves: who, when, from, to and why.

use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use crate::admin::types::{FlipRow, RecordPage};
use crate::page::client::segment;
use crate::page::failure::Failure;
use crate::page::html::{count, respond};
use crate::page::request::Visit;
use crate::page::routes::moves;
use crate::page::routes::record_entries;

/// How many entries a page has.
const ENTRIES: u64 = 50;
/// How many moves of one route are shown.
const MOVES_OF_ROUTE: u64 = 200;

#[derive(Deserialize)]
pub(in crate::page) struct RecordQuery {
    /// Only entries with a number below this one.
    before: Option<u64>,
    /// Only the moves of this route.
    route: Option<String>,
}

pub(in crate::page) async fn show(Query(query): Query<RecordQuery>, visit: Visit) -> Result<Response, Failure> {
    let visit = visit.part("record");
    if let Some(route) = query.route.filter(|route| !route.is_empty()) {
        return of_route(&visit, &route).await;
    }
    // Only the newest number is asked for: the entries are listed from the oldest on.
    let head: RecordPage = visit.client.get("/api/v2/record?limit=1").await.map_err(|problem| visit.failed(problem))?;
    let range = EntryRange::of(query.before, head.newest);
    let path = format!("/api/v2/record?after={}&limit={}", range.after, range.limit);
    let page: RecordPage = visit.client.get(&path).await.map_err(|problem| visit.failed(problem))?;
    // An entry that was added meanwhile belongs to a newer page.
    let mut entries = page.entries;
    entries.retain(|entry| entry.number < range.before);
    let content = html! {
        h1 { "Record" }
        p { "Who moved what, when and why, with the evidence at that moment. " (count(head.newest)) " entries." }
        (filter(""))
        @if entries.is_empty() { p { "There is no entry here." } } @else { (record_entries::table(&entries)) }
        (range.links())
        p.hint {
            "Each entry has a hash that covers all before it: " code { "pointsman record verify" }
            " checks that none was changed."
        }
    };
    Ok(respond(StatusCode::OK, &visit.frame, "Record", content))
}

/// Which entries a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryRange {
    /// Those below this number.
    before: u64,
    /// Those above this number.
    after: u64,
    limit: u64,
    newest: u64,
}

impl EntryRange {
    fn of(before: Option<u64>, newest: u64) -> Self {
        let end = newest.saturating_add(1);
        let before = before.map_or(end, |before| before.clamp(1, end));
        let after = before.saturating_sub(ENTRIES + 1);
        Self { before, after, limit: (before - after).saturating_sub(1).max(1), newest }
    }

    /// The links to newer and older entries.
    fn links(self) -> Markup {
        let newer = self.before.saturating_add(ENTRIES);
        html! {
            nav.pages aria-label="Pages of the record" {
                @if self.before <= self.newest {
                    @let is_first = newer > self.newest;
                    a href=(if is_first { "/record".to_owned() } else { format!("/record?before={newer}") }) { "Newer" }
                }
                @if self.after > 0 { a href=(format!("/record?before={}", self.after + 1)) { "Older" } }
            }
        }
    }
}

/// The moves of one route.
async fn of_route(visit: &Visit, route: &str) -> Result<Response, Failure> {
    let path = format!("/api/v2/flips?route={}&limit={MOVES_OF_ROUTE}", segment(route));
    let rows: Vec<FlipRow> = visit.client.get(&path).await.map_err(|problem| visit.failed(problem))?;
    let content = html! {
        h1 { "Moves of " (route) }
        p { a href=(format!("/routes/{}", segment(route))) { "The route" } " · " a href="/record" { "The whole record" }
            }
        (filter(route))
        (moves::table("moves", "Moves of the route", &rows, true))
        @if rows.len() as u64 >= MOVES_OF_ROUTE { p.hint { "Older moves are in the whole record." } }
    };
    Ok(respond(StatusCode::OK, &visit.frame, "Record", content))
}

fn filter(route: &str) -> Markup {
    html! {
        form.filter method="get" action="/record" role="search" {
            label for="route" { "Only the moves of the route" }
            input #route name="route" value=(route) autocomplete="off" spellcheck="false";
            button type="submit" { "Show" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_follow_each_other_without_a_gap() {
        let newest = EntryRange::of(None, 120);
        assert_eq!((newest.before, newest.after, newest.limit), (121, 70, 50));
        let older = EntryRange::of(Some(newest.after + 1), 120);
        assert_eq!((older.before, older.after, older.limit), (71, 20, 50));
        let oldest = EntryRange::of(Some(older.after + 1), 120);
        assert_eq!((oldest.before, oldest.after, oldest.limit), (21, 0, 20));
        assert!(!oldest.links().into_string().contains("Older"));
        assert!(oldest.links().into_string().contains("/record?before=71"));
        assert!(older.links().into_string().contains("href=\"/record\""));
        assert!(!newest.links().into_string().contains("Newer"));
    }

    #[test]
    fn numbers_that_no_entry_has_are_no_error() {
        for (before, newest) in [(Some(0), 5), (Some(u64::MAX), 5), (None, 0), (Some(7), 0), (None, u64::MAX)] {
            let range = EntryRange::of(before, newest);
            assert!(range.limit >= 1 && range.after < range.before, "{range:?}");
        }
    }
}
