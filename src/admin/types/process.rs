//! The state of the process.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::routes::RouteRow;
use super::run_requests::RunCounts;
use crate::flag::Freeze;

/// The state of the process and of all routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of the process, and when it started.
    pub build: Build,
    /// The addresses on which the proxy listens, with commas between them.
    pub listen: String,
    /// The listener for calls that legacy makes. Left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressStatus>,
    /// The kill switch.
    pub freeze: Freeze,
    /// Whether the freeze in force is not in the store yet, so that a restart would end it.
    #[serde(default)]
    pub freeze_unrecorded: bool,
    /// How many flips down are in force that the store has not recorded yet: if the process ends before they are
    /// recorded, these routes return to the states in the store.
    #[serde(default)]
    pub flips_unrecorded: usize,
    /// The files in force.
    pub flags: Flags,
    /// Whether the engine and its store take new runs.
    pub engine_healthy: bool,
    /// What is wrong with the store, such as a full disk or a database that does not answer. Left out if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_trouble: Option<String>,
    /// Why not all runs that the last process left have been resumed. Left out if all have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_trouble: Option<String>,
    /// How the machine's clock differs from the process's time. Left out if they differ by at most a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trouble: Option<String>,
    /// The names of services that have no address, so that requests for them get 502. Left out if all have one.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "legacy_trouble")]
    // the field's name in earlier versions
    pub services_trouble: Option<String>,
    /// Why retry keys of requests that legacy served may be unknown, such as a missing file. Left out if all are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_keys_trouble: Option<String>,
    /// Of how many instances it is not known which arm has them, by route, until a person says so. Left out if there
    /// are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption_trouble: Option<String>,
    /// Which followers are in `only` while legacy creates instances: requests about these get 503. Left out if there
    /// are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances_trouble: Option<String>,
    /// Which processes that share the store have other flag files than this one, so that the gates to `dark` and above
    /// are shut. Left out if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_trouble: Option<String>,
    /// The process that this one took over from, or that it hands over to. Left out if there is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<String>,
    /// Whether the process is stopping: what is in progress finishes within its bounds, then the process ends.
    #[serde(default)]
    pub stopping: bool,
    /// The number of runs that are executed at this moment, including rehearsals and runs that are not kept; waiting
    /// runs do not count.
    pub runs_in_flight: u64,
    /// The number of durable runs that have not ended, by status; `null` if the store does not answer.
    #[serde(default)]
    pub runs: Option<RunCounts>,
    /// The oldest of the runs that this process cannot resume.
    #[serde(default)]
    pub stuck: Vec<StuckRun>,
    /// How many more runs cannot be resumed, beyond those in `stuck`.
    #[serde(default)]
    pub stuck_more: u64,
    /// The load of the shadow executor.
    pub shadow: ShadowLoad,
    /// Every route, in file order.
    pub routes: Vec<RouteRow>,
}

/// A run that this process cannot resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StuckRun {
    /// The run.
    pub run_id: String,
    /// The reason.
    pub why: String,
}

/// The version of the process, and when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// The version.
    pub version: String,
    /// When the process started.
    pub started: Timestamp,
}

/// The set of files in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flags {
    /// Counts how often the flag set was replaced, by files or by flips.
    pub generation: u64,
    /// Seconds since the files in force were loaded.
    pub age_s: f64,
    /// Why the newest version of the files was refused: the whole text, with file, line and column. `null` if that
    /// version is in force.
    pub last_error: Option<String>,
    /// The warnings of `check` about the files in force.
    pub warnings: Vec<String>,
    /// The settings of the files in force that differ from those with which the process was started, and take effect
    /// only after a restart, such as `listen`.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// The load of the shadow executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShadowLoad {
    /// The number of copies of requests that wait.
    pub queue_depth: u64,
    /// The number of copies that are being executed.
    pub in_flight: u64,
}

/// The listener for calls that legacy makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressStatus {
    /// The listener's address.
    pub listen: String,
    /// The number of calls since the start of the process that were passed on or that could not be passed on.
    pub calls: u64,
}
