//! A change, the name of its event, and which clients it concerns.

use bytes::Bytes;

use crate::admin::types::{ChangeData, RunChange, StreamReset, WaitingChange};
use crate::names::{JobId, RunId};
use crate::workflow::{RunStatus, RunSummary};

/// A change, as it is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub data: ChangeData,
    /// For `run`: the run and the one that started it.
    runs: Option<(RunId, Option<RunId>)>,
}

/// Whether a run waits for a person.
pub(super) fn waits_for_person(status: RunStatus) -> bool {
    matches!(status, RunStatus::WaitingCheckpoint | RunStatus::Paused)
}

impl Change {
    /// A change of something else than a run.
    pub fn new(data: ChangeData) -> Self {
        Self { data, runs: None }
    }

    pub fn of_run(run: &RunSummary) -> Self {
        let data = RunChange {
            run_id: run.run_id.to_string(),
            job_id: run.job.unwrap_or(JobId(run.run_id.0)).to_string(),
            parent: run.parent.map(|parent| parent.to_string()),
            workflow: run.workflow.clone(),
            route: run.route.clone(),
            mode: run.mode,
            status: run.status,
            waits: waits_for_person(run.status),
            seq: run.seq.0,
            updated: run.updated,
        };
        Self { data: ChangeData::Run(data), runs: Some((run.run_id, run.parent)) }
    }

    /// A run begins to wait for a person, or does not wait any more.
    pub fn of_waiting(run: &RunSummary) -> Self {
        let (run_id, workflow) = (run.run_id.to_string(), run.workflow.clone());
        Self::new(ChangeData::Waiting(WaitingChange { run_id, workflow, waits: waits_for_person(run.status) }))
    }

    /// The name of its event.
    pub fn name(&self) -> &'static str {
        match &self.data {
            ChangeData::Run(_) => "run",
            ChangeData::Runs(_) => "runs",
            ChangeData::Waiting(_) => "waiting",
            ChangeData::Route(_) => "route",
            ChangeData::Evidence(_) => "evidence",
            ChangeData::Freeze(_) => "freeze",
            ChangeData::Files(_) => "files",
            ChangeData::Store(_) => "store",
            ChangeData::Reset(_) => "reset",
        }
    }

    /// The server-sent event.
    pub fn text(&self, id: &str) -> Bytes {
        // A struct of texts and numbers always becomes JSON; JSON has no line breaks.
        let data = serde_json::to_string(&self.data).unwrap_or_default();
        Bytes::from(format!("id: {id}\nevent: {}\ndata: {data}\n\n", self.name()))
    }
}

/// Which changes a client gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Interest {
    /// Of runs only these, and those that they started; `None`: of all runs.
    pub runs: Option<Vec<RunId>>,
    /// Only events with these names; `None`: all.
    pub names: Option<Vec<String>>,
}

impl Interest {
    /// Whether the client gets this change.
    pub fn includes(&self, change: &Change) -> bool {
        match (&change.data, &self.runs) {
            // Both concern every client.
            (ChangeData::Reset(StreamReset { .. }) | ChangeData::Store(_), _) => return true,
            (ChangeData::Run(_), Some(wanted)) => {
                let is_wanted = |(run, parent): &(RunId, Option<RunId>)| {
                    wanted.contains(run) || parent.is_some_and(|parent| wanted.contains(&parent))
                };
                if !change.runs.as_ref().is_some_and(is_wanted) {
                    return false;
                }
            }
            _ => {}
        }
        let name = if change.name() == "runs" { "run" } else { change.name() };
        self.names.as_ref().is_none_or(|names| names.iter().any(|wanted| wanted == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{FreezeChange, MoreRuns, StoreChange};
    use crate::flag::Freeze;
    use crate::store::tests::{run_id, summary};

    fn run(n: u64, parent: Option<u64>) -> Change {
        Change::of_run(&RunSummary { parent: parent.map(run_id), ..summary(run_id(n), 4) })
    }

    #[test]
    fn a_client_gets_its_runs_and_those_that_they_started() {
        let interest = Interest { runs: Some(vec![run_id(1)]), names: None };
        assert!(interest.includes(&run(1, None)) && interest.includes(&run(2, Some(1))));
        assert!(!interest.includes(&run(2, None)) && !interest.includes(&run(2, Some(3))));
        // Its runs may be among those that are not named.
        assert!(interest.includes(&Change::new(ChangeData::Runs(MoreRuns { named: 9 }))));
        assert!(interest.includes(&Change::new(ChangeData::Freeze(FreezeChange { freeze: Freeze::No }))));
        assert!(Interest::default().includes(&Change::new(ChangeData::Runs(MoreRuns { named: 9 }))));
    }

    #[test]
    fn a_client_gets_only_the_names_that_it_wants_and_what_concerns_the_stream() {
        let interest = Interest { runs: None, names: Some(vec!["run".into()]) };
        assert!(interest.includes(&run(1, None)));
        assert!(interest.includes(&Change::new(ChangeData::Runs(MoreRuns { named: 9 }))));
        assert!(!interest.includes(&Change::new(ChangeData::Freeze(FreezeChange { freeze: Freeze::No }))));
        assert!(interest.includes(&Change::new(ChangeData::Store(StoreChange { answers: false }))));
    }

    #[test]
    fn an_event_is_one_block() {
        let text = run(1, None).text("a-7");
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.starts_with("id: a-7\nevent: run\ndata: {\"run_id\":\"run_"), "{text}");
        assert!(text.ends_with("}\n\n") && text.lines().count() == 4, "{text}");
    }
}
