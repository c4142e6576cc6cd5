//! All that a run's machine remembers between two inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::exchange::{ChildSpec, Delivery, End, Output, RestCause, SpawnPolicy, Ticket};
use super::ids::Ids;
use super::log::{Log, Writes};
use super::looks::Looks;
use crate::names::{RunId, Seq, StepId};
use crate::store::Claim;
use crate::workflow::{Part, Plan, Run, StepIndex, World};

/// Names a call of the run.
pub(super) type CallName = (StepId, Option<u32>, Part);

/// What a machine is made of.
pub(in crate::engine) struct MachineParts {
    pub run: Run,
    pub plan: Arc<Plan>,
    pub world: Arc<World>,
    /// The place up to which the run is in the store.
    pub stored: Seq,
    /// `None` of a rehearsal: nothing is stored.
    pub writes: Option<Writes>,
    /// What the first append takes.
    pub claim: Option<Claim>,
    /// Who waits for the run's answer.
    pub caller: Option<CallerTerms>,
    /// Whether somebody waits for the run's first append.
    pub has_starter: bool,
    /// Identifiers and jitter are drawn from it.
    pub seed: u64,
    pub now: Timestamp,
}

/// What was promised to a caller.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct CallerTerms {
    pub may_fall_back: bool,
    /// A little before the caller's deadline: time to write down what is answered then.
    pub until: Timestamp,
}

/// The run as it stood when it was decided what those who wait are told, and the place that has to be in the store
/// before: what it has come to since may not be there.
pub(super) struct Fixed {
    pub seq: Seq,
    pub run: Arc<Run>,
}

/// A step that waits in a lock's queue, behind others as far as is known.
pub(super) struct InQueue {
    pub step: StepIndex,
    pub name: String,
    /// The place of the event with which it joined: it is looked for once that is in the store.
    pub queued: Seq,
    pub due: bool,
    pub looks: Looks,
}

/// A run that this one began.
pub(super) struct OpenChild {
    /// It is looked for once this place is in the store.
    pub seq: Seq,
    pub spec: ChildSpec,
    pub due: bool,
    pub looks: Looks,
}

/// A run's driver: see the module's head.
pub(in crate::engine) struct Machine {
    pub(super) run: Run,
    pub(super) plan: Arc<Plan>,
    pub(super) world: Arc<World>,
    pub(super) log: Log,
    pub(super) ids: Ids,
    /// The time of the last input.
    pub(super) now: Timestamp,
    /// By how much a rehearsal's time is ahead: durations elapse at once.
    pub(super) ahead: SignedDuration,
    pub(super) out: Vec<Output>,
    pub(super) frozen: bool,
    pub(super) draining: bool,
    pub(super) caller: Option<CallerTerms>,
    pub(super) caller_gone: bool,
    pub(super) has_starter: bool,
    pub(super) step_places: HashMap<StepId, StepIndex>,
    /// Calls that were sent and whose replies have not come.
    pub(super) calls: usize,
    /// Attempts that leave once this place is in the store.
    pub(super) gated: Vec<(Seq, CallName)>,
    /// Attempts that another process may have sent already.
    pub(super) again: HashSet<CallName>,
    /// Looks and messages that are under way.
    pub(super) looks: usize,
    /// Where it waits for locks.
    pub(super) locks: BTreeMap<(StepId, Option<u32>), InQueue>,
    pub(super) children: BTreeMap<RunId, OpenChild>,
    pub(super) spawn: SpawnPolicy,
    /// A child, or a run below one, waits for somebody.
    pub(super) waits_below: bool,
    /// What was ordered of each child last, and what became of that once it is known.
    pub(super) told: HashMap<RunId, (&'static str, Option<Delivery>)>,
    /// Orders of the store that were taken up here.
    pub(super) taken_up: BTreeSet<Uuid>,
    pub(super) store_orders: Looks,
    /// An order in the store was left, because another process may have taken the run.
    pub(super) left_orders: bool,
    /// Whoever ordered something is answered once this place is in the store.
    pub(super) askers: Vec<(Seq, Ticket)>,
    /// A step is held by the freeze.
    pub(super) held: bool,
    /// What would begin is not begun, because the process ends soon.
    pub(super) withheld: bool,
    /// The mailbox is being closed, or is closed: over this.
    pub(super) closing: Option<RestCause>,
    pub(super) mailbox_closed: bool,
    /// The mailbox was not closed, because something had come: not asked again before that is here.
    pub(super) expects_message: bool,
    /// Up to here somebody waits for the store.
    pub(super) need: Seq,
    /// What those who wait are told.
    pub(super) fixed: Option<Fixed>,
    /// They were told that.
    pub(super) announced: bool,
    pub(super) abandoned: Option<&'static str>,
    /// The caller's time is over: what it is told once it is in the store.
    pub(super) late: Option<Fixed>,
    pub(super) wake: Option<Timestamp>,
    /// The timer that was asked for last.
    pub(super) timer: Option<Timestamp>,
    pub(super) born_told: bool,
    pub(super) key_kept: bool,
    pub(super) end: Option<End>,
}

impl Machine {
    pub fn new(parts: MachineParts) -> Self {
        let MachineParts { run, plan, world, stored, writes, claim, caller, has_starter, seed, now } = parts;
        let step_places = plan.steps.iter().enumerate().map(|(place, step)| (step.id.clone(), StepIndex(place)));
        Self {
            step_places: step_places.collect(),
            log: Log::new(writes, claim, stored),
            ids: Ids::new(seed),
            run,
            plan,
            world,
            now,
            ahead: SignedDuration::ZERO,
            out: Vec::new(),
            frozen: false,
            draining: false,
            caller,
            caller_gone: false,
            has_starter,
            calls: 0,
            gated: Vec::new(),
            again: HashSet::new(),
            looks: 0,
            locks: BTreeMap::new(),
            children: BTreeMap::new(),
            spawn: SpawnPolicy::Spawn,
            waits_below: false,
            told: HashMap::new(),
            taken_up: BTreeSet::new(),
            store_orders: Looks::default(),
            left_orders: false,
            askers: Vec::new(),
            held: false,
            withheld: false,
            closing: None,
            mailbox_closed: false,
            expects_message: false,
            need: Seq(0),
            fixed: None,
            announced: false,
            abandoned: None,
            late: None,
            wake: None,
            timer: None,
            born_told: false,
            key_kept: false,
            end: None,
        }
    }

    /// The run as far as it has come, stored or not.
    pub fn run(&self) -> &Run {
        &self.run
    }
    /// The run, when the driver has ended.
    pub fn into_run(self) -> Run {
        self.run
    }
    /// What it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
    /// Other files are in force.
    pub fn set_world(&mut self, world: Arc<World>) {
        self.world = world;
    }
    /// The place up to which the run is in the store.
    pub fn stored(&self) -> Seq {
        self.log.stored()
    }
    /// The events up to this place are to be in the store soon.
    pub(super) fn wants_stored(&mut self, seq: Seq) {
        self.need = self.need.max(seq);
    }
}
