//! Which runs the list shows: the query of the page, the links that change it, and the form for searching.

use maud::{Markup, html};

use crate::admin::types::{RunCounts, RunStatus};
use crate::page::client::segment;
use crate::page::html::count;
use crate::page::runs::run_words::{badge, run_look};

/// What `status` is for runs that wait for a person.
pub(in crate::page) const WAITS_FOR_PERSON: &str = "waiting_checkpoint,paused";

/// The query of the list. An empty field counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::page) struct RunFilters {
    pub status: Option<String>,
    pub workflow: Option<String>,
    pub route: Option<String>,
    pub mode: Option<String>,
    pub job: Option<String>,
    pub parent: Option<String>,
    /// The time, in UTC, at or after which the runs began.
    pub since: Option<String>,
    /// The page: the runs before this one.
    pub before: Option<String>,
    /// What was typed as the id of a run or a job.
    pub id: Option<String>,
}

impl RunFilters {
    /// Reads a query. The first field with a name counts.
    pub(in crate::page) fn of(query: &[(String, String)]) -> Self {
        let field = |name: &str| {
            let (_, value) = query.iter().find(|(field, _)| field == name)?;
            Some(value.trim()).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        Self {
            status: field("status"),
            workflow: field("workflow"),
            route: field("route"),
            mode: field("mode"),
            job: field("job"),
            parent: field("parent"),
            since: field("since"),
            before: field("before"),
            id: field("id"),
        }
    }

    /// Whether all runs are listed, from the newest on.
    pub(in crate::page) fn is_unfiltered(&self) -> bool {
        *self == Self::default()
    }

    /// What was typed as an id: the page of that run, or the runs of that job.
    pub(in crate::page) fn path_of_id(&self) -> Option<Result<String, &str>> {
        let id = self.id.as_deref()?;
        let digits: String = id.rsplit('_').next().unwrap_or_default().replace('-', "").to_ascii_lowercase();
        let is_uuid = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
        Some(match id.split_once('_').map(|(kind, _)| kind) {
            Some("run") | None if is_uuid => Ok(format!("/runs/run_{digits}")),
            Some("job") if is_uuid => Ok(format!("/runs?job=job_{digits}")),
            _ => Err(id),
        })
    }

    /// The path of the API that lists these runs.
    pub(in crate::page) fn api_path(&self) -> String {
        let since = self.since.as_deref().map(as_timestamp);
        let query = query(&Self { since, id: None, ..self.clone() });
        format!("/api/v2/orchestrate/runs{query}")
    }

    /// The page that lists these runs.
    pub(in crate::page) fn path(&self) -> String {
        format!("/runs{}", query(self))
    }

    /// The first page of the runs of this status, with the other filters as they are.
    pub(in crate::page) fn with_status(&self, status: Option<&str>) -> Self {
        Self { status: status.map(str::to_owned), before: None, id: None, ..self.clone() }
    }

    /// The page that begins before this run.
    pub(in crate::page) fn page_before(&self, before: Option<&str>) -> Self {
        Self { before: before.map(str::to_owned), id: None, ..self.clone() }
    }

    fn fields(&self) -> [(&'static str, Option<&str>); 9] {
        [
            ("status", self.status.as_deref()),
            ("workflow", self.workflow.as_deref()),
            ("route", self.route.as_deref()),
            ("mode", self.mode.as_deref()),
            ("job", self.job.as_deref()),
            ("parent", self.parent.as_deref()),
            ("since", self.since.as_deref()),
            ("before", self.before.as_deref()),
            ("id", self.id.as_deref()),
        ]
    }
}

fn query(filters: &RunFilters) -> String {
    let fields = filters.fields().into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(value?))));
    let fields: Vec<String> = fields.collect();
    if fields.is_empty() { String::new() } else { format!("?{}", fields.join("&")) }
}

/// A time as browsers send it (`2026-12-01T12:00`) as RFC 3339 has it. Another text is left to the API to refuse.
fn as_timestamp(typed: &str) -> String {
    match typed.parse::<jiff::civil::DateTime>() {
        Ok(time) if !typed.ends_with(['Z', 'z']) => time
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_or_else(|_| typed.to_owned(), |time| time.timestamp().to_string()),
        Ok(_) | Err(_) => typed.to_owned(),
    }
}

/// The statuses as links, with the number of runs of those that have not ended.
pub(in crate::page) fn status_links(filters: &RunFilters, counts: Option<&RunCounts>) -> Markup {
    let open: Option<u64> = counts.map(|counts| counts.values().sum());
    let waiting = counts.map(|counts| {
        let of = |status| counts.get(&status).copied().unwrap_or_default();
        of(RunStatus::WaitingCheckpoint) + of(RunStatus::Paused)
    });
    let number = |status| counts.map(|counts| counts.get(&status).copied().unwrap_or_default());
    html! {
        nav #run-counts.filters data-live aria-label="Runs by status" {
            ul {
                (status_link(filters, None, html! { "all" }, None))
                (status_link(filters, Some(WAITS_FOR_PERSON), html! { "waits for a person" }, waiting))
                (status_link(filters, Some("open"), html! { "not ended" }, open))
                @for status in RunStatus::OPEN {
                    (status_link(filters, Some(status.as_str()), badge(run_look(status)), number(status)))
                }
                @for status in RunStatus::ENDED {
                    (status_link(filters, Some(status.as_str()), badge(run_look(status)), None))
                }
            }
            @if counts.is_none() { p.hint { "The store does not say how many runs there are." } }
        }
    }
}

fn status_link(filters: &RunFilters, status: Option<&str>, shown: Markup, number: Option<u64>) -> Markup {
    let is_current = filters.status.as_deref() == status;
    html! {
        li { a href=(filters.with_status(status).path()) aria-current=[is_current.then_some("true")] {
            (shown) @if let Some(number) = number { " " strong { (count(number)) } }
        } }
    }
}

/// The form for searching. What was typed stays in it.
pub(in crate::page) fn search_form(filters: &RunFilters) -> Markup {
    let typed = |value: &Option<String>| value.clone().unwrap_or_default();
    html! {
        form.search method="get" action="/runs" role="search" aria-label="Search for runs" {
            div {
                label for="search-id" { "Id of a run or job" }
                input #search-id name="id" value=(typed(&filters.id)) placeholder="run_… or job_…" autocomplete="off"
                    spellcheck="false";
            }
            div {
                label for="search-status" { "Status" }
                select #search-status name="status" { (status_options(filters)) }
            }
            div {
                label for="search-workflow" { "Workflow" }
                input #search-workflow name="workflow" value=(typed(&filters.workflow)) autocomplete="off";
            }
            div {
                label for="search-route" { "Route" }
                input #search-route name="route" value=(typed(&filters.route)) autocomplete="off";
            }
            div {
                label for="search-mode" { "Mode" }
                select #search-mode name="mode" {
                    @for (mode, shown) in [("", "any"), ("real", "real"), ("dark", "dark: shared effects were not sent")] {
                        option value=(mode) selected[filters.mode.as_deref().unwrap_or_default() == mode] { (shown) }
                    }
                }
            }
            div {
                label for="search-since" { "Started since (UTC)" }
                input #search-since name="since" type="datetime-local" value=(typed(&filters.since));
            }
            @if let Some(job) = &filters.job {
                div { label for="search-job" { "Job" } input #search-job name="job" value=(job); }
            }
            @if let Some(parent) = &filters.parent {
                div {
                    label for="search-parent" { "Started by the run" }
                    input #search-parent name="parent" value=(parent);
                }
            }
            div.buttons {
                button type="submit" { "Search" }
                @if !filters.is_unfiltered() { " " a href="/runs" { "All runs" } }
            }
        }
    }
}

fn status_options(filters: &RunFilters) -> Markup {
    let current = filters.status.as_deref().unwrap_or_default();
    let groups = [("", "any"), (WAITS_FOR_PERSON, "waits for a person"), ("open", "not ended")];
    let all = RunStatus::OPEN.into_iter().chain(RunStatus::ENDED);
    let is_known =
        groups.iter().any(|(value, _)| *value == current) || all.clone().any(|status| status.as_str() == current);
    html! {
        @for (value, shown) in groups { option value=(value) selected[current == value] { (shown) } }
        @for status in all {
            option value=(status.as_str()) selected[current == status.as_str()] { (run_look(status).word) }
        }
        // A list of statuses that somebody wrote into the address.
        @if !is_known { option value=(current) selected { (current) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(fields: &[(&str, &str)]) -> RunFilters {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RunFilters::of(&fields)
    }

    #[test]
    fn the_query_is_passed_to_the_api_and_kept_in_links() {
        let found = filters(&[
            ("status", "open"),
            ("route", "a&b"),
            ("workflow", " "),
            ("since", "2026-12-01T12:30"),
            ("x", "1"),
        ]);
        assert_eq!(
            found.api_path(),
            "/api/v2/orchestrate/runs?status=open&route=a%26b&since=2026%2D12%2D01T12%3A30%3A00Z"
        );
        assert_eq!(
            found.page_before(Some("run_1")).path(),
            "/runs?status=open&route=a%26b&since=2026%2D12%2D01T12%3A30&before=run%5F1"
        );
        assert!(!found.is_unfiltered() && filters(&[("status", "")]).is_unfiltered());
        assert!(filters(&[("since", "yesterday")]).api_path().ends_with("since=yesterday"));
    }

    #[test]
    fn an_id_leads_to_its_run_or_to_the_runs_of_its_job() {
        let uuid = "0190b5a1e0007000800000000000000a";
        let path = |id: &str| filters(&[("id", id)]).path_of_id().map(|found| found.map_err(str::to_owned));
        assert_eq!(path(&format!("run_{uuid}")), Some(Ok(format!("/runs/run_{uuid}"))));
        assert_eq!(path("0190B5A1-E000-7000-8000-00000000000A"), Some(Ok(format!("/runs/run_{uuid}"))));
        assert_eq!(path(&format!("job_{uuid}")), Some(Ok(format!("/runs?job=job_{uuid}"))));
        assert_eq!(path("order 7"), Some(Err("order 7".to_owned())));
        assert_eq!(path(""), None);
    }

    #[test]
    fn statuses_are_links_with_counts_and_the_chosen_one_is_marked() {
        let counts = RunCounts::from([(RunStatus::Paused, 3), (RunStatus::WaitingCheckpoint, 1_200)]);
        let shown = status_links(&filters(&[("status", "paused"), ("route", "r")]), Some(&counts)).into_string();
        assert!(shown.contains("status=paused&amp;route=r\" aria-current=\"true\""), "{shown}");
        assert_eq!(shown.matches("aria-current").count(), 1);
        assert_eq!(shown.matches("1\u{202f}203").count(), 2, "those that have not ended all wait for a person");
    }

    #[test]
    fn what_was_typed_stays_in_the_form_and_is_escaped() {
        let hostile = "\"><script>alert(1)</script>";
        let shown = search_form(&filters(&[
            ("id", hostile),
            ("route", hostile),
            ("workflow", hostile),
            ("since", hostile),
            ("status", hostile),
            ("job", hostile),
        ]))
        .into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert_eq!(shown.matches("&lt;script&gt;").count(), 7, "the status is in its value and its text");
    }
}
