//! What expressions of a run can read, and which of these values may be stored.
//!
//! Always true: there are three scopes, and only one of them holds secrets. The *plain* scope has neither secrets nor
//! credentials of callers; conditions, bodies, values and answers are evaluated in it. The *masked* scope has stars in
//! their place; URLs and headers are evaluated in it when a call is recorded. The *revealed* scope has the secrets;
//! only the engine makes one, when it sends a call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{BytesMark, LegacyReplies, Run, StepPart};
use crate::expression::{ReadPath, Scope};
use crate::names::{ServiceName, StepId, WorkflowName};

/// The text that replaces a secret wherever it would be stored or shown.
pub use crate::secret::STARS;

/// What decisions about a run depend on apart from its plan and its events: services, secrets' names, limits, the time.
#[derive(Clone)]
pub struct DecisionInputs {
    /// Base URLs by service.
    pub services: Arc<Value>,
    /// The names of secrets, each with stars as its value.
    pub masked_secrets: Arc<Value>,
    /// Short keyed hashes of the secrets' values, by name; empty where nothing is sent.
    pub secret_hashes: Arc<BTreeMap<String, String>>,
    /// The workflows that a `run` step may begin; `None` means any.
    pub workflows: Option<Arc<BTreeSet<WorkflowName>>>,
    /// The secret from which idempotency keys are derived.
    pub key_secret: [u8; 32],
    /// How many items one `for_each` may have.
    pub items_max: usize,
    /// How many calls of one run may be under way at the same time.
    pub run_calls_max: usize,
    /// How deeply lists and maps may be nested in a step's output.
    pub output_depth_max: usize,
    /// How long one attempt may take where its step declares no `timeout`.
    pub step_timeout: Duration,
    /// How many signals of one run may be stored until a step takes them.
    pub signals_max: usize,
    /// When the process started; `None` where that does not matter.
    pub started: Option<Timestamp>,
    /// The value of `now` in expressions: the time of the decision.
    pub now: Option<Timestamp>,
    /// Whether a freeze holds private and shared calls. Only what a refused command says depends on it: what is due is
    /// decided by [`super::Conditions`].
    pub effects_are_frozen: bool,
    /// What `rehearse: legacy` takes its outputs from; `None` if the run is not compared with legacy, or no longer.
    pub legacy_replies: Option<Arc<dyn LegacyReplies>>,
}

/// No setting allows deeper values than this: a deeper one could be written into an event, but not be read back.
pub const VALUE_DEPTH_MAX: usize = 100;

/// The length of a secret's hash: enough to notice another value, and too little to find a long one by trying.
const SECRET_HASH_CHARS: usize = 8;

/// How long one attempt may take, where no limit is set.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many signals may be stored, where no limit is set.
const SIGNALS_MAX: usize = 100;

/// Whether a JSON text was refused because it is nested more deeply than the JSON parser allows. The parser's bound is
/// greater than [`VALUE_DEPTH_MAX`]; the error has no kind of its own, so its message is compared.
pub fn is_nested_beyond(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit exceeded")
}

/// An upper bound of the number of values in a JSON text: one more than the commas and opening brackets outside of
/// strings. Cheap, because nothing is parsed.
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

/// Whether lists and maps are nested more deeply than `depth`.
pub fn deeper_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| deeper_than(item, depth - 1)),
        Value::Object(members) => depth == 0 || members.values().any(|member| deeper_than(member, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl DecisionInputs {
    /// Inputs with these services and names of secrets.
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
            secret_hashes: Arc::default(),
            workflows: None,
            key_secret,
            items_max,
            run_calls_max: run_calls_max.max(1),
            output_depth_max: VALUE_DEPTH_MAX,
            step_timeout: STEP_TIMEOUT,
            signals_max: SIGNALS_MAX,
            started: None,
            now: None,
            effects_are_frozen: false,
            legacy_replies: None,
        }
    }
    /// These inputs with the values of the secrets, of which they keep hashes.
    pub fn with_secrets<'a>(mut self, values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let hash = |name: &str, value: &str| {
            let mut hasher = blake3::Hasher::new_keyed(&self.key_secret);
            hasher.update(b"secret\0").update(name.as_bytes()).update(&[0]).update(value.as_bytes());
            hasher.finalize().to_hex()[..SECRET_HASH_CHARS].to_owned()
        };
        let hashes = values.into_iter().map(|(name, value)| (name.to_owned(), hash(name, value))).collect();
        self.secret_hashes = Arc::new(hashes);
        self
    }
    /// The hashes of these secrets, as far as the files have them.
    pub(super) fn hashes_of_secrets<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
        names.filter_map(|name| Some((name.to_owned(), self.secret_hashes.get(name)?.clone()))).collect()
    }
    /// These inputs for a run whose rehearsed steps may take their outputs from the replies that legacy got.
    pub fn with_legacy_replies(mut self, legacy_replies: Option<Arc<dyn LegacyReplies>>) -> Self {
        self.legacy_replies = legacy_replies;
        self
    }
    /// These inputs while a freeze holds private and shared calls, or while none does.
    pub fn with_freeze(mut self, effects_are_frozen: bool) -> Self {
        self.effects_are_frozen = effects_are_frozen;
        self
    }
    /// These inputs with another bound on nesting.
    pub fn with_depth(mut self, output_depth_max: usize) -> Self {
        self.output_depth_max = output_depth_max.min(VALUE_DEPTH_MAX);
        self
    }
    /// These inputs with another time-out of attempts.
    pub fn with_timeout(mut self, step_timeout: Duration) -> Self {
        self.step_timeout = step_timeout;
        self
    }
    /// These inputs with another bound on signals.
    pub fn with_signals(mut self, signals_max: usize) -> Self {
        self.signals_max = signals_max;
        self
    }
    /// These inputs in a process that started at this time.
    pub fn with_start(mut self, started: Timestamp) -> Self {
        self.started = Some(started);
        self
    }
    /// These inputs, where only these workflows exist.
    pub fn with_workflows(mut self, workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        self.workflows = Some(Arc::new(workflows.into_iter().collect()));
        self
    }
    /// These inputs at the time of a decision.
    pub fn at(&self, now: Timestamp) -> Self {
        Self { now: Some(now), ..self.clone() }
    }
    /// The base URL of a service.
    pub fn base(&self, service: &ServiceName) -> Option<&str> {
        self.services.get(service.as_str())?.as_str()
    }
    /// How bytes are marked among the values of this run. In a run that began before marks existed, unmarked bytes are
    /// recognised too.
    pub(super) fn bytes_mark(&self, run: &Run) -> BytesMark {
        BytesMark::new(&self.key_secret).accepting_unmarked(!run.started.bytes_marked)
    }
    /// The scope of everything but URLs and headers: without secrets and credentials.
    pub fn plain(&self, run: &Run) -> Scope {
        let started = &run.started;
        let mut scope = Scope::new();
        scope.set("request", started.request.clone());
        self.common(run, &mut scope);
        scope
    }
    /// The scope of `respond`: the plain scope, with why the run fails (`failed`: `step`, `status`, `error`) and what
    /// is wrong with the request's body (`input_error`), each null where there is nothing to say.
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
    /// The scope of URLs and headers when a call is recorded: with stars in place of secrets and credentials.
    pub fn masked(&self, run: &Run) -> Scope {
        let stars: BTreeMap<_, _> =
            run.started.credentials.iter().map(|name| (name.clone(), STARS.to_owned())).collect();
        let mut scope = Scope::new();
        scope.set("request", with_credentials(&run.started.request, &stars));
        scope.set("secrets", self.masked_secrets.clone());
        self.common(run, &mut scope);
        scope
    }
    /// The scope of URLs and headers when a call is sent: with secrets and credentials.
    pub fn revealed(&self, run: &Run, secrets: Arc<Value>, credentials: &BTreeMap<String, String>) -> Scope {
        let mut scope = Scope::new();
        scope.set("request", with_credentials(&run.started.request, credentials));
        scope.set("secrets", secrets);
        self.common(run, &mut scope);
        scope
    }
    /// The key of the pseudo-random numbers that expressions of a run get. All runs of one job get the same numbers, so
    /// that a rerun goes on with the ids that earlier steps were given; a child run has a key of its own.
    fn random_key(&self, run: &Run) -> impl Fn() -> [u8; 32] + use<> {
        let started = &run.started;
        let owner = match (&started.parent, started.job) {
            (None, Some(job)) => job.0,
            (Some(_), _) | (None, None) => started.run.0,
        };
        let key_secret = self.key_secret;
        move || *blake3::keyed_hash(&key_secret, format!("draws\n{owner}").as_bytes()).as_bytes()
    }
    fn common(&self, run: &Run, scope: &mut Scope) {
        let started = &run.started;
        let (id, begun, mode) = (started.run.0, started.started, started.mode.as_str());
        let injected = started.injected.as_ref();
        let shown_begun = injected.and_then(|injected| injected.started).unwrap_or(begun);
        scope.set_lazy(
            "run",
            move || serde_json::json!({ "id": id.simple().to_string(), "started": shown_begun.to_string(), "mode": mode }),
        );
        scope.set_random_key(self.random_key(run));
        if started.bytes_opaque {
            let key_secret = self.key_secret;
            scope
                .set_opaque(move |value| BytesMark::may_be_bytes(value) && BytesMark::new(&key_secret).is_bytes(value));
        }
        // The rehearsal's clock, which waits advance, goes on from legacy's time; in whole seconds, so that what the
        // rehearsal itself takes does not make its time another one than legacy's.
        let from_legacy = injected.and_then(|injected| {
            let passed = self.now?.duration_since(begun).as_secs();
            injected.now?.checked_add(SignedDuration::from_secs(passed)).ok()
        });
        if let Some(now) = from_legacy.or(self.now) {
            scope.set_lazy("now", move || Value::String(now.to_string()));
        }
        if let Some(injected) = injected {
            scope.set_injected(injected.draws.clone());
        }
        scope.set("services", self.services.clone());
        scope.set("steps", run.outputs.clone());
        scope.set_unknown_steps(run.steps_of_unknown_output());
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

/// Headers of a request that are credentials of its caller. They are sealed in events; only URLs and headers can read
/// them.
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

/// The scope with `item` and `index`, where there is an item.
pub(super) fn item_scope(scope: &Scope, item: Option<(u32, Arc<Value>)>) -> Scope {
    let mut scope = scope.clone();
    if let Some((index, value)) = item {
        scope.set("item", value);
        scope.set("index", Arc::new(Value::from(index)));
    }
    scope
}

/// The scope of one of a step's calls: `item` and `index`; for a probe also the idempotency key of the attempt that it
/// asks about (`key`); for an undo also the result to be undone (`output`, `status`).
pub fn call_scope(scope: &Scope, run: &Run, step: &StepId, item: Option<u32>, part: StepPart) -> Scope {
    let mut scope = item_scope(scope, item.and_then(|index| Some((index, run.item(step, index)?))));
    match part {
        StepPart::Do => {}
        StepPart::Probe => {
            let key = run.call_state(step, item, StepPart::Do).and_then(|call| call.key.clone());
            scope.set("key", Arc::new(key.map_or(Value::Null, Value::from)));
        }
        StepPart::Undo => {
            if let Some(done) = run.done_call(step, item) {
                scope.set("output", done.output.shared().clone());
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
    fn the_count_is_an_upper_bound_of_the_values_in_a_text() {
        for (text, counted) in [("1", 1), ("[1,2,3]", 4), (r#"{"a,[":"b\",[","c":[]}"#, 4), ("[[],{}]", 5)] {
            assert_eq!(values_in(text.as_bytes()), counted, "{text}");
        }
    }

    #[test]
    fn json_that_is_nested_too_deeply_is_told_from_invalid_json() {
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap_err();
        assert!(is_nested_beyond(&read("[".repeat(1_000))));
        assert!(!is_nested_beyond(&read("[1, recursion limit exceeded]".into())));
    }
}
