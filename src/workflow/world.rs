//! What expressions of a run see, and what of it may be written down.
//!
//! Always true: three scopes, and only one of them holds secrets. The *plain* one has neither secrets nor credentials
//! of callers: conditions, bodies, values and answers see it. The *masked* one has stars in their place: URLs and
//! headers see it when a call is recorded. The *revealed* one is made by the engine at sending.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Part, Run};
use crate::expression::{ReadPath, Scope};
use crate::names::{ServiceName, StepId, WorkflowName};

/// What stands in the place of a secret.
pub use crate::secret::STARS;

/// What a run needs to know of the world outside it.
#[derive(Clone)]
pub struct World {
    /// Base URLs by service.
    pub services: Arc<Value>,
    /// The names of secrets, each with stars.
    pub masked_secrets: Arc<Value>,
    /// The workflows that a `run` step may begin; `None` is any.
    pub workflows: Option<Arc<BTreeSet<WorkflowName>>>,
    /// Keys idempotency keys.
    pub key_secret: [u8; 32],
    /// Items of one `for_each`.
    pub items_max: usize,
    /// Calls under way at the same time for one run.
    pub run_calls_max: usize,
    /// Lists and maps within each other in what a step gives.
    pub output_depth_max: usize,
    /// One attempt of a step that does not say how long it may take.
    pub step_timeout: Duration,
    /// Signals of one run that came and were not taken.
    pub signals_max: usize,
    /// What `now` gives: the time of the decision.
    pub now: Option<Timestamp>,
}

/// No setting allows deeper values than this: what is deeper could be written into an event and not be read again.
pub const VALUE_DEPTH_MAX: usize = 100;

/// One attempt's time, where no limit says otherwise.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Signals that wait to be taken, where no limit says otherwise.
const SIGNALS_MAX: usize = 100;

/// Whether a text was not read because its lists and maps go deeper than the reader of JSON takes: a bound of its own,
/// beyond [`VALUE_DEPTH_MAX`], which it tells in words alone.
pub fn is_nested_beyond(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit exceeded")
}

/// How many values a JSON text has at most: commas and opening brackets outside of strings, and one. Cheap, and
/// before anything of it is read.
pub fn values_in(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// Whether lists and maps within each other go deeper than a bound.
pub fn deeper_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| deeper_than(item, depth - 1)),
        Value::Object(members) => depth == 0 || members.values().any(|member| deeper_than(member, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl World {
    /// The world of these services and names of secrets.
    pub fn new<'a>(
        services: impl IntoIterator<Item = (&'a ServiceName, String)>,
        secrets: impl IntoIterator<Item = &'a str>,
        key_secret: [u8; 32],
        items_max: usize,
        run_calls_max: usize,
    ) -> Self {
        let services: Map<_, _> =
            services.into_iter().map(|(name, base)| (name.as_str().to_owned(), Value::String(base))).collect();
        let secrets: Map<_, _> =
            secrets.into_iter().map(|name| (name.to_owned(), Value::String(STARS.into()))).collect();
        Self {
            services: Arc::new(Value::Object(services)),
            masked_secrets: Arc::new(Value::Object(secrets)),
            workflows: None,
            key_secret,
            items_max,
            run_calls_max: run_calls_max.max(1),
            output_depth_max: VALUE_DEPTH_MAX,
            step_timeout: STEP_TIMEOUT,
            signals_max: SIGNALS_MAX,
            now: None,
        }
    }
    /// The same with another bound on depth.
    pub fn with_depth(mut self, output_depth_max: usize) -> Self {
        self.output_depth_max = output_depth_max.min(VALUE_DEPTH_MAX);
        self
    }
    /// The same with another time for one attempt.
    pub fn with_timeout(mut self, step_timeout: Duration) -> Self {
        self.step_timeout = step_timeout;
        self
    }
    /// The same with another bound on signals.
    pub fn with_signals(mut self, signals_max: usize) -> Self {
        self.signals_max = signals_max;
        self
    }
    /// The same where only these workflows are there.
    pub fn with_workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.workflows = Some(Arc::new(workflows.into_iter().collect()));
        self
    }
    /// The same at the time of a decision.
    pub fn at(&self, now: Timestamp) -> Self {
        Self { now: Some(now), ..self.clone() }
    }
    /// The base URL of a service.
    pub fn base(&self, service: &ServiceName) -> Option<&str> {
        self.services.get(service.as_str())?.as_str()
    }
    /// What everything but URLs and headers sees.
    pub fn plain(&self, run: &Run) -> Scope {
        let started = &run.started;
        let mut scope = Scope::new();
        scope.set("request", started.request.clone());
        self.common(run, &mut scope);
        scope
    }
    /// What `respond` sees: what [`World::plain`] gives, why the run fails (`failed`: `step`, `status`, `error`) and
    /// what is wrong with the request's body (`input_error`), each null where nothing is.
    pub fn answering(&self, run: &Run, input_error: Option<&str>) -> Scope {
        let mut scope = self.plain(run);
        let failed = run.failure().map_or(Value::Null, |failure| {
            let step = failure.step.as_ref().map(|step| step.as_str());
            serde_json::json!({ "step": step, "status": failure.status, "error": failure.message })
        });
        scope.set("failed", Arc::new(failed));
        scope.set("input_error", Arc::new(input_error.map_or(Value::Null, Value::from)));
        scope
    }
    /// What URLs and headers see when a call is recorded.
    pub fn masked(&self, run: &Run) -> Scope {
        let stars: BTreeMap<_, _> =
            run.started.credentials.iter().map(|name| (name.clone(), STARS.to_owned())).collect();
        let mut scope = Scope::new();
        scope.set("request", with_credentials(&run.started.request, &stars));
        scope.set("secrets", self.masked_secrets.clone());
        self.common(run, &mut scope);
        scope
    }
    /// What URLs and headers see at sending.
    pub fn revealed(&self, run: &Run, secrets: Arc<Value>, credentials: &BTreeMap<String, String>) -> Scope {
        let mut scope = Scope::new();
        scope.set("request", with_credentials(&run.started.request, credentials));
        scope.set("secrets", secrets);
        self.common(run, &mut scope);
        scope
    }
    /// The key under which a run draws. All runs of one job draw the same, so that a rerun goes on with the ids that
    /// the steps before it were given; a run that another one began draws for itself.
    fn draws(&self, run: &Run) -> impl Fn() -> [u8; 32] + use<> {
        let started = &run.started;
        let of = match (&started.parent, started.job) {
            (None, Some(job)) => job.0,
            (Some(_), _) | (None, None) => started.run.0,
        };
        let key_secret = self.key_secret;
        move || *blake3::keyed_hash(&key_secret, format!("draws\n{of}").as_bytes()).as_bytes()
    }
    fn common(&self, run: &Run, scope: &mut Scope) {
        let started = &run.started;
        let (id, begun, mode) = (started.run.0, started.started, started.mode.as_str());
        scope.set_lazy(
            "run",
            move || serde_json::json!({ "id": id.simple().to_string(), "started": begun.to_string(), "mode": mode }),
        );
        scope.set_random_key(self.draws(run));
        if let Some(now) = self.now {
            scope.set_lazy("now", move || Value::String(now.to_string()));
        }
        scope.set("services", self.services.clone());
        scope.set("steps", run.outputs.clone());
        if let Some(legacy) = &started.legacy {
            scope.set("legacy", legacy.clone());
        }
        if let Some(instance) = &started.instance {
            scope.set("instance", instance.clone());
        }
    }
}

fn with_credentials(request: &Arc<Value>, credentials: &BTreeMap<String, String>) -> Arc<Value> {
    if credentials.is_empty() {
        return request.clone();
    }
    let mut request = (**request).clone();
    if let Value::Object(parts) = &mut request {
        let headers = parts.entry("headers").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(headers) = headers {
            for (name, value) in credentials {
                headers.insert(name.clone(), Value::String(value.clone()));
            }
        }
    }
    Arc::new(request)
}

/// Headers of a request that are credentials of its caller: sealed in the events, seen only by URLs and headers.
pub const CREDENTIALS: [&str; 8] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "api-key",
    "x-api-key",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
];

/// Whether these paths lead to a secret or to credentials of the caller.
pub fn reads_hidden(reads: &[ReadPath]) -> bool {
    reads.iter().any(|path| match (path.root(), path.part(0), path.part(1)) {
        ("secrets", _, _) => true,
        ("request", None, _) | ("request", Some("headers"), None) => true,
        ("request", Some("headers"), Some(name)) => CREDENTIALS.iter().any(|known| known.eq_ignore_ascii_case(name)),
        _ => false,
    })
}

/// The item's scope.
pub(super) fn item_scope(scope: &Scope, item: Option<(u32, Arc<Value>)>) -> Scope {
    let mut scope = scope.clone();
    if let Some((index, value)) = item {
        scope.set("item", value);
        scope.set("index", Arc::new(Value::from(index)));
    }
    scope
}

/// What one of a step's calls sees, from what the run knows: the item; a probe the key of the attempt that it asks
/// about (`key`); an undo what was done (`output`, `status`).
pub fn call_scope(scope: &Scope, run: &Run, step: &StepId, item: Option<u32>, part: Part) -> Scope {
    let mut scope = item_scope(scope, item.and_then(|index| Some((index, run.item(step, index)?))));
    match part {
        Part::Do => {}
        Part::Probe => {
            let key = run.call_state(step, item, Part::Do).and_then(|call| call.key.clone());
            scope.set("key", Arc::new(key.map_or(Value::Null, Value::from)));
        }
        Part::Undo => {
            if let Some(done) = run.done_call(step, item) {
                scope.set("output", done.output.clone());
                scope.set("status", Arc::new(done.status.map_or(Value::Null, Value::from)));
            }
        }
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_text_are_never_more_than_counted() {
        for (text, counted) in [("1", 1), ("[1,2,3]", 4), (r#"{"a,[":"b\",[","c":[]}"#, 4), ("[[],{}]", 5)] {
            assert_eq!(values_in(text.as_bytes()), counted, "{text}");
        }
    }

    #[test]
    fn what_the_reader_of_json_does_not_take_is_told_from_what_is_no_json() {
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap_err();
        assert!(is_nested_beyond(&read("[".repeat(1_000))));
        assert!(!is_nested_beyond(&read("[1, recursion limit exceeded]".into())));
    }
}
