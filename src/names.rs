//! A type for each kind of identifier, so that they cannot be confused.
//!
//! A value of one of these types need not name something that exists: the API also makes them from a client's input,
//! and then looks them up. Cheap to clone (`Arc<str>` or plain numbers).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name, and checks nothing.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name! {
    /// The id of a route, from the flag files. A closed set: safe as a metric label.
    RouteId
}
name! {
    /// A named HTTP base. A closed set: safe as a metric label.
    ServiceName
}
name! {
    /// The name of a workflow. A closed set: safe as a metric label.
    WorkflowName
}
name! {
    /// The name of a step within one plan.
    StepId
}
/// The suffix of the name under which the intent of a step's `undo` is recorded. No step has a `.` in its own name.
pub const OF_UNDO: &str = ".undo";

/// The name of a child run's step as its parent run names it: `ship/label` for the step `label` of the run that the
/// parent's step `ship` begins. No step has a `/` in its own name.
pub fn step_below(run_by: &StepId, step: &str) -> StepId {
    StepId::new(format!("{run_by}/{step}"))
}

name! {
    /// `plan_…`: the hash of a plan's content.
    PlanId
}
name! {
    /// `chk_…`: a place where a run waits for a person; made from the run, the step and the item.
    CheckpointId
}

/// The durable request for a result: `job_…`. Its first run has the same UUID; a rerun is another run of the same job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{}", self.0.simple())
    }
}

impl std::str::FromStr for JobId {
    type Err = uuid::Error;
    /// Reads `job_…`, or the bare UUID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.strip_prefix("job_").unwrap_or(text)).map(JobId)
    }
}

/// The id of a process that executes runs; new at every start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker_{}", self.0.simple())
    }
}

/// The fencing token under which a process owns a run. The next owner gets a higher token, and appends with a lower one
/// are refused, so that correctness never depends on a clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The token of the process that created the run.
    pub const FIRST: Fence = Fence(1);
    /// The token of the next owner.
    pub fn next(self) -> Fence {
        Fence(self.0 + 1)
    }
}

/// The id of a run: one concrete execution of a plan. A UUIDv7, so that ids sort by time, which keeps the store's
/// inserts fast.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run_{}", self.0.simple())
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;
    /// Reads `run_…`, or the bare UUID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.strip_prefix("run_").unwrap_or(text)).map(RunId)
    }
}

/// The sequence number of an event in its run. The first is 1, and there are no gaps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The first event of a run.
    pub const FIRST: Seq = Seq(1);
    /// The next sequence number.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A plan with the plans of all workflows that it runs, directly or through others: what one version of a route's
/// workflow consists of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanSet {
    /// The workflow at the top.
    pub workflow: WorkflowName,
    /// The plan of each of these workflows. One that the files did not have is left out.
    pub plans: BTreeMap<WorkflowName, PlanId>,
}

impl PlanSet {
    /// The plan at the top.
    pub fn plan(&self) -> Option<&PlanId> {
        self.plans.get(&self.workflow)
    }
    /// A short name that changes with each of the plans: the id of the plan at the top, and where it runs other
    /// workflows, a hash over all of them.
    pub fn label(&self) -> String {
        let top = self.plan().map_or("-", PlanId::as_str);
        if self.plans.len() < 2 {
            return top.to_owned();
        }
        let mut hasher = blake3::Hasher::new();
        for (name, plan) in &self.plans {
            hasher.update(name.as_str().as_bytes()).update(b"\0").update(plan.as_str().as_bytes()).update(b"\0");
        }
        format!("{top}+{}", &hasher.finalize().to_hex()[..8])
    }
}
