//! What the page of a run shows, as its query says, and the links to other views of the same run.

use crate::page::client::segment;
use crate::page::runs::flowchart::Zoom;

/// The query of a run's page.
#[derive(Clone, Debug)]
pub(in crate::page) struct RunLinks {
    /// The step beside the chart.
    pub step: Option<String>,
    /// The item of its list.
    pub item: Option<u64>,
    /// The size of the chart.
    pub zoom: Zoom,
    /// The events after this one are shown.
    pub events_after: Option<u64>,
}

impl Default for RunLinks {
    fn default() -> Self {
        Self { step: None, item: None, zoom: Zoom::Percent(100), events_after: None }
    }
}

impl RunLinks {
    /// Reads a query. What it does not know, or cannot read, is left out.
    pub(in crate::page) fn of(query: &[(String, String)]) -> Self {
        let field = |name: &str| query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        Self {
            step: field("step").filter(|step| !step.is_empty()).map(str::to_owned),
            item: field("item").and_then(|item| item.parse().ok()),
            zoom: Zoom::named(field("zoom")),
            events_after: field("events_after").and_then(|after| after.parse().ok()),
        }
    }

    /// The same page with this step beside the chart.
    pub(in crate::page) fn to_step(&self, step: &str) -> String {
        let linked = Self { step: Some(step.to_owned()), item: None, ..self.clone() };
        format!("{}#step", linked.query())
    }

    /// The same page with an item of the chosen step.
    pub(in crate::page) fn to_item(&self, step: &str, item: u64) -> String {
        let linked = Self { step: Some(step.to_owned()), item: Some(item), ..self.clone() };
        format!("{}#step", linked.query())
    }

    /// The same page with the chart in another size.
    pub(in crate::page) fn zoomed(&self, zoom: Zoom) -> String {
        format!("{}#chart", Self { zoom, ..self.clone() }.query())
    }

    /// The same page with other events.
    pub(in crate::page) fn events_after(&self, after: u64) -> String {
        format!("{}#events", Self { events_after: Some(after), ..self.clone() }.query())
    }

    fn query(&self) -> String {
        let zoom = (self.zoom != Zoom::Percent(100)).then(|| self.zoom.name());
        let fields = [
            ("step", self.step.as_deref().map(segment)),
            ("item", self.item.map(|item| item.to_string())),
            ("zoom", zoom),
            ("events_after", self.events_after.map(|after| after.to_string())),
        ];
        let fields: Vec<String> =
            fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect();
        format!("?{}", fields.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_changes_one_part_of_the_view_and_keeps_the_others() {
        let query = [("step", "a b&c"), ("zoom", "fit"), ("events_after", "x"), ("other", "1"), ("item", "4")];
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let links = RunLinks::of(&query);
        assert_eq!(links.zoomed(Zoom::Percent(50)), "?step=a%20b%26c&item=4&zoom=50#chart");
        assert_eq!(links.to_step("pay"), "?step=pay&zoom=fit#step");
        assert_eq!(links.to_item("pay", 2), "?step=pay&item=2&zoom=fit#step");
        assert_eq!(RunLinks::default().events_after(7), "?events_after=7#events");
    }
}
