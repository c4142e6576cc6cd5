//! Counters of routes that exist, with the value 0, before their first event.
//!
//! A counter that appears with its first event has no earlier value, so that `increase()` and `rate()` miss this event
//! and an alert on them stays silent. Always true: the series are those of the routes in the files, at most
//! [`SERIES_MAX`] for each; a series with many possible label values, such as the reasons of refusals, is left out.

use std::sync::Arc;

use metrics::counter;

use crate::flag::{GuardCondition, Instance, Route};

/// The most series of one route.
const SERIES_MAX: usize = 9;

/// Makes the counters of these routes exist. Counters that exist already keep their values.
pub(super) fn publish(routes: &[Arc<Route>]) {
    for route in routes {
        let Some(workflow) = &route.workflow else { continue };
        let name = || route.id.to_string();
        let mut counters = vec![
            counter!("pointsman_fallbacks_total", "route" => name()),
            counter!("pointsman_retry_keys_unnoted_total", "route" => name()),
            counter!("pointsman_retry_keys_held_total", "route" => name()),
        ];
        let watched = route
            .guard
            .iter()
            .flat_map(|guard| GuardCondition::ALL.into_iter().filter(|condition| guard.watches(*condition)));
        counters.extend(watched.map(
            |condition| counter!("pointsman_guard_actions_total", "route" => name(), "condition" => condition.as_str()),
        ));
        if route.guard.is_some() {
            counters.push(counter!("pointsman_candidate_guard_actions_total", "route" => name()));
        }
        if let Some(Instance::Creates { .. }) = &route.instance {
            counters.push(counter!("pointsman_pin_collisions_total", "route" => name()));
            let workflow = workflow.to_string();
            counters.push(counter!("pointsman_instances_without_id_total", "route" => name(), "workflow" => workflow));
        }
        debug_assert!(counters.len() <= SERIES_MAX, "the documentation names this bound");
        counters.iter().for_each(|counter| counter.increment(0));
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::flag::{RouteMatch, Service};

    #[test]
    fn the_counters_that_alerts_are_written_on_exist_from_the_start() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let shop = Arc::new(Service::at("shop", [Uri::from_static("http://127.0.0.1:9000")]));
        let route = |id: &str, workflow: Option<&str>, creates: bool| {
            let matches = RouteMatch { method: Method::POST, path: "/a".into(), host: None };
            let route = Route::without_workflow(id.into(), matches, Arc::clone(&shop));
            let id = serde_json_path::JsonPath::parse("$.id").unwrap().into();
            let instance = creates.then_some(Instance::Creates { id });
            Arc::new(Route { workflow: workflow.map(Into::into), instance, ..route })
        };
        let routes = [route("plain", None, true), route("a", Some("w"), false), route("c", Some("w"), true)];
        let series = |name: &str| {
            let text = handle.render();
            let lines = text.lines().filter(|line| line.starts_with(name)).map(str::to_owned);
            lines.collect::<Vec<_>>()
        };
        metrics::with_local_recorder(&recorder, || {
            publish(&routes);
            for name in ["fallbacks", "retry_keys_unnoted", "retry_keys_held"] {
                let name = format!("pointsman_{name}_total");
                let mut lines = series(&name);
                lines.sort_unstable();
                assert_eq!(lines, ["a", "c"].map(|route| format!("{name}{{route=\"{route}\"}} 0")));
            }
            // Only a route that creates instances has these.
            let collisions = series("pointsman_pin_collisions_total");
            assert_eq!(collisions, [r#"pointsman_pin_collisions_total{route="c"} 0"#]);
            let without_id = series("pointsman_instances_without_id_total");
            assert_eq!(without_id, [r#"pointsman_instances_without_id_total{route="c",workflow="w"} 0"#]);
            counter!("pointsman_fallbacks_total", "route" => "a").increment(3);
            publish(&routes);
            let mut fallbacks = series("pointsman_fallbacks_total");
            fallbacks.sort_unstable();
            let [a, c] = [r#"pointsman_fallbacks_total{route="a"} 3"#, r#"pointsman_fallbacks_total{route="c"} 0"#];
            assert_eq!(fallbacks, [a, c], "a counter that exists keeps its value");
        });
    }
}
