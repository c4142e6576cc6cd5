//! The results of checking each kind of file, as later checks use them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::setup::Settings;
use super::unparsed_lines::shown_line;
use crate::compare::Rules;
use crate::flag::{Guard, Promote, Route, Service};
use crate::limits::Limits;
use crate::names::{RouteId, ServiceName, WorkflowName};
use crate::problem::Site;
use crate::secret::RedactRules;
use crate::workflow::Plan;

/// Services by name; `None` if the service's own check failed.
pub(crate) type Services = BTreeMap<ServiceName, Option<Arc<Service>>>;

/// Workflows by name, with their files; `None` if the workflow's own check failed.
pub(crate) type Workflows = BTreeMap<WorkflowName, (Site, Option<Arc<Plan>>)>;

/// A route and its position.
pub(crate) type PlacedRoute = (Site, Arc<Route>);

/// The checked `pointsman.yaml`.
#[derive(Default)]
pub(crate) struct MainFile {
    pub settings: Option<Settings>,
    pub services: Services,
    pub default_legacy: Option<ServiceName>,
    pub limits: Limits,
    /// Names of secrets, including those that could not be read.
    pub secrets: BTreeSet<String>,
    /// Whether `store_key` is given.
    pub store_key: bool,
    /// What the gates require of the evidence of a route that does not say otherwise.
    pub promote: Promote,
    /// What is redacted in all routes.
    pub redact: RedactRules,
    /// The guard of routes with a workflow that do not say otherwise.
    pub guard: Option<Guard>,
}

impl MainFile {
    /// What is known of a file that cannot be parsed as YAML. Each word before a colon counts as the name of a service
    /// and of a secret, so that no use of such a name in other files is reported too. A word that may itself be a
    /// secret is left out, because findings list names.
    pub(super) fn of_unparsed(text: &str) -> Self {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let text = if text.len() <= SEARCHED_BYTES_MAX { text } else { "" };
        let lines = text.split_inclusive('\n').scan(0, |at, line| {
            let begin = std::mem::replace(at, *at + line.len());
            Some(shown_line(&text[..begin], line))
        });
        let text = lines.collect::<String>();
        let words = text.match_indices(':').filter_map(|(at, _)| {
            let before = text[..at].trim_end_matches([' ', '"', '\'']);
            let start = before
                .rfind(|c| !is_part(c))
                .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
            Some(&before[start..]).filter(|word| !word.is_empty())
        });
        let words: BTreeSet<&str> = words.collect();
        Self {
            services: words.iter().map(|word| (ServiceName::from(*word), None)).collect(),
            secrets: words.into_iter().map(str::to_owned).collect(),
            store_key: true,
            ..Self::default()
        }
    }
}

/// In a larger file that cannot be parsed, no names are searched for.
const SEARCHED_BYTES_MAX: usize = 32 << 10;

/// All routes of all files, with the comparison rules of each.
pub(crate) struct Routes {
    pub routes: Vec<PlacedRoute>,
    pub rules: BTreeMap<RouteId, Arc<Rules>>,
}
