//! What is known of the instance that a request follows up: from the run that created it.
//!
//! Always true: nothing here begins a run or changes the store.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::compare::InstanceIds;
use crate::engine::context::Core;
use crate::engine::ports::{decode, sealed_values};
use crate::engine::scheduler::load;
use crate::exchange::{ArmRequest, KnownInstance};
use crate::expression::{ReadPath, id_text};
use crate::flag::InstanceId;
use crate::names::{JobId, RunId};
use crate::secret::STARS;
use crate::store::{RunBodies, RunFilter, StoreError};
use crate::workflow::{Mode, Plan, RunStatus, SensitivePath, Taint, deeper_than, fold};

/// What is known about the instance that a request follows up.
#[derive(Default)]
pub(super) struct InstanceFacts {
    /// The result of the run that created it: `id`, `input`, `output`, `status`; `None` where nothing reads it.
    pub(super) value: Option<Arc<Value>>,
    /// The sensitive parts of the value.
    pub(super) sensitive_paths: Vec<SensitivePath>,
    /// The ids of the instance and of its twin, where legacy owns the instance.
    pub(super) ids: Option<InstanceIds>,
}

/// The value of `instance` in expressions, from the run that created it: `id`, `input`, `output`, `status`, and
/// `legacy_id` where legacy owns the instance and the run made its twin.
pub(super) async fn load_instance(
    core: &Core,
    plan: &Plan,
    request: &ArmRequest,
    deadline: Instant,
) -> Result<InstanceFacts, &'static str> {
    let Some(instance) = &request.instance else { return Ok(InstanceFacts::default()) };
    if !plan.reads.iter().any(|path| path.root() == "instance") {
        // Nothing in the workflow needs the twin's id, but a comparison does.
        let ids = async {
            let of_twin = instance.run.filter(|_| request.mode != Mode::Real && request.instance_ids.is_some())?;
            let creator = timeout_at(deadline, creator_run(core, of_twin)).await.ok()?.ok()??;
            twin_ids(instance, id_of_twin(request, &creator.bodies))
        };
        return Ok(InstanceFacts { ids: ids.await, ..InstanceFacts::default() });
    }
    let run = instance.run.ok_or("It is not known which run created the instance")?;
    let no_answer = "The store does not say what is known of the instance";
    let creator = timeout_at(deadline, creator_run(core, run)).await.map_err(|_| no_answer)?;
    let CreatorRun { bodies, mode, status, sensitive_paths, job: _ } =
        creator.map_err(|_| no_answer)?.ok_or("Nothing is known of the instance")?;
    if request.mode == Mode::Real && mode != Mode::Real {
        // Its shared steps were rehearsed, so its results are not those of the instance.
        return Err("Legacy created the instance; the engine has only a dark run of it");
    }
    let shallow = |output: &Value| !deeper_than(output, decode::depth_max(&core.files.limits));
    let bodies = RunBodies { output: bodies.output.filter(shallow), ..bodies };
    let known_as = Value::from(&*instance.key.id);
    let (id, legacy_id) = match mode {
        Mode::Real => (known_as, Value::Null),
        Mode::Dark | Mode::Rehearse => (id_of_twin(request, &bodies), known_as),
    };
    let reads_id = |path: &ReadPath| path.root() == "instance" && path.part(0).is_none_or(|part| part == "id");
    if id.is_null() && plan.reads.iter().any(reads_id) {
        return Err("The twin's answer has no id of the instance");
    }
    let ids = if request.mode == Mode::Real { None } else { twin_ids(instance, id.clone()) };
    let value = json!({
        "id": id,
        "legacy_id": legacy_id,
        "input": bodies.input,
        "output": bodies.output,
        "status": status.as_str(),
    });
    Ok(InstanceFacts { value: Some(Arc::new(value)), sensitive_paths, ids })
}

impl InstanceFacts {
    /// What a capture keeps of them; `None` where nothing is known of an instance.
    pub(super) fn known(&self) -> Option<KnownInstance> {
        let Some(value) = &self.value else {
            let ids = self.ids.as_ref()?;
            let value = Arc::new(json!({ "id": ids.engine, "legacy_id": ids.legacy }));
            return Some(KnownInstance { value, redacted: None });
        };
        let redacted = (!self.sensitive_paths.is_empty()).then(|| {
            let mut around = json!({ "instance": **value });
            for path in &self.sensitive_paths {
                path.visit_within_mut(&mut around, &mut |part| *part = STARS.into());
            }
            around["instance"].take()
        });
        Some(KnownInstance { value: Arc::clone(value), redacted })
    }
}

/// What is known of an instance according to a capture.
///
/// # Errors
/// The plan reads a part of it that the capture has not, because the workflow that was captured did not read it.
pub(super) fn recorded_instance(plan: &Plan, known: &Value) -> Result<InstanceFacts, &'static str> {
    let mut reads = plan.reads.iter().filter(|path| path.root() == "instance").peekable();
    let reads_any = reads.peek().is_some();
    let has = |path: &ReadPath| match path.part(0) {
        Some(part) => known.get(part).is_some(),
        // Reads all of it. A capture that kept only the two ids has no `status`.
        None => known.get("status").is_some(),
    };
    if !reads.all(has) {
        return Err("The capture does not have what the workflow reads of the instance");
    }
    let text = |name: &str| known.get(name).and_then(Value::as_str).map(str::to_owned);
    let ids = text("id").zip(text("legacy_id")).map(|(engine, legacy)| InstanceIds { legacy, engine });
    Ok(InstanceFacts { value: reads_any.then(|| Arc::new(known.clone())), sensitive_paths: Vec::new(), ids })
}

/// Legacy's id of an instance, and the one that the engine gave to its twin.
fn twin_ids(instance: &InstanceId, engine: Value) -> Option<InstanceIds> {
    let Value::String(engine) = engine else { return None };
    Some(InstanceIds { legacy: (*instance.key.id).to_owned(), engine })
}

/// The value of `instance` where nothing is known of the instance.
pub(super) fn unknown_instance(plan: &Plan, request: &ArmRequest) -> InstanceFacts {
    let instance = request.instance.as_ref().filter(|_| plan.reads.iter().any(|path| path.root() == "instance"));
    let value = instance.map(|instance| {
        let (id, status) = (&*instance.key.id, "unknown");
        Arc::new(json!({ "id": id, "legacy_id": null, "input": null, "output": null, "status": status }))
    });
    InstanceFacts { value, ..InstanceFacts::default() }
}

/// The id that the engine gave to an instance's twin, as text like one from a path; null where its answer has none.
fn id_of_twin(request: &ArmRequest, bodies: &RunBodies) -> Value {
    let found = request.instance_ids.as_ref().zip(bodies.output.as_ref());
    let found = found.and_then(|(source, output)| source.find(&bodies.headers, output));
    found.as_ref().and_then(id_text).map_or(Value::Null, Value::String)
}

/// What is known of the run that created an instance.
struct CreatorRun {
    bodies: RunBodies,
    mode: Mode,
    status: RunStatus,
    sensitive_paths: Vec<SensitivePath>,
    job: Option<JobId>,
}

/// How many runs of a job are read for the newest output of an instance, besides the run that pinned it.
const RUNS_WITH_OUTPUT_MAX: usize = 20;

/// The newest run of the job that created an instance: a rerun supersedes the run that pinned the instance. While the
/// newest run has no output, the newest output of the earlier runs is used.
async fn creator_run(core: &Core, run: RunId) -> Result<Option<CreatorRun>, StoreError> {
    let Some(creator) = read_creator_run(core, run).await? else { return Ok(None) };
    if !creator.status.is_final() {
        return Ok(Some(creator));
    }
    let job = Some(creator.job.unwrap_or(JobId(run.0)));
    let filter = RunFilter { job, limit: RUNS_WITH_OUTPUT_MAX, ..RunFilter::default() };
    let runs = core.ports.store.runs(filter).await?;
    let Some(newest) = runs.first().filter(|newest| newest.run_id != run) else { return Ok(Some(creator)) };
    let Some(mut newest) = read_creator_run(core, newest.run_id).await? else { return Ok(None) };
    let mut older = runs.iter().skip(1).map(|summary| summary.run_id).filter(|id| *id != run);
    while newest.bodies.output.is_none() {
        match older.next() {
            Some(id) => {
                if let Some(read) = read_creator_run(core, id).await? {
                    newest.take_output_of(read);
                }
            }
            None => {
                newest.take_output_of(creator);
                break;
            }
        }
    }
    Ok(Some(newest))
}

impl CreatorRun {
    /// Takes the output of an earlier run. Parts that are sensitive in either run count as sensitive.
    fn take_output_of(&mut self, earlier: Self) {
        self.bodies.output = earlier.bodies.output;
        self.bodies.headers = earlier.bodies.headers;
        self.sensitive_paths.extend(earlier.sensitive_paths);
    }
}

/// Reads a run that created an instance: from its events, or from its summary if its events were purged.
async fn read_creator_run(core: &Core, run: RunId) -> Result<Option<CreatorRun>, StoreError> {
    let (input, output) = (SensitivePath::of(["instance", "input"]), SensitivePath::of(["instance", "output"]));
    let events = core.events(run).await?;
    if let Ok(mut creator) = fold(events.iter().map(|stored| &stored.event)) {
        let mut sensitive_paths = Vec::new();
        let bodies = RunBodies::of_run(&creator);
        if creator.holds_sensitive() {
            let plan = load::collect_sensitive(core, &mut creator, &events).await?;
            let taint = plan.and_then(|plan| Taint::of(&plan, &creator));
            // Without the run's plan it is not known which parts are sensitive, so all count as sensitive.
            let body = taint.map_or_else(|| vec![SensitivePath::whole()], |taint| taint.request_body());
            sensitive_paths.extend(body.iter().map(|path| input.then(path)));
            let answer = creator.answer().map(|answer| answer.sensitive_body()).unwrap_or_default();
            sensitive_paths.extend(answer.iter().map(|path| output.then(path)));
            // An answer that an earlier version recorded does not say where it quotes sensitive values of the run.
            for (value, at) in [(&bodies.input, &input), (&bodies.output, &output)] {
                let quotes = value.as_ref().map(|value| creator.quotes_in(value, at, &sensitive_paths));
                sensitive_paths.extend(quotes.unwrap_or_default());
            }
        }
        return Ok(Some(CreatorRun {
            bodies,
            mode: creator.started().mode,
            status: creator.status(),
            sensitive_paths,
            job: creator.started().job,
        }));
    }
    if !events.is_empty() {
        return Ok(None);
    }
    let (bodies, summary) = (core.ports.store.purged_run_bodies(run).await?, core.ports.store.run(run).await?);
    let Some((mut bodies, summary)) = bodies.zip(summary) else { return Ok(None) };
    let mut sensitive_paths = Vec::new();
    for (value, path) in [(&mut bodies.input, input), (&mut bodies.output, output)] {
        if value.as_mut().is_some_and(|value| sealed_values::open_value(&core.ports.sealer, run, value)) {
            sensitive_paths.push(path);
        }
    }
    for (_, value) in &mut bodies.headers {
        let mut opened = Value::String(std::mem::take(value));
        sealed_values::open_value(&core.ports.sealer, run, &mut opened);
        if let Value::String(text) = opened {
            *value = text;
        }
    }
    Ok(Some(CreatorRun { bodies, mode: summary.mode, status: summary.status, sensitive_paths, job: summary.job }))
}
