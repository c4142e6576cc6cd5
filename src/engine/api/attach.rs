//! Answers a request whose retry key another run has: with that run's answer, or with the answer of the run that
//! supersedes it.
//!
//! Always true: nothing is begun here. The result of a run that this process executes is awaited; every other run is
//! read from the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::follow;
use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::machine::replies;
use crate::engine::machine::{Announcement, new_pins};
use crate::engine::scheduler::load;
use crate::engine::scheduler::registry::AnnouncementReceiver;
use crate::engine::scheduler::successors;
use crate::exchange::{ArmAnswer, ArmReply};
use crate::names::RunId;
use crate::workflow::{Plan, Run, RunStatus, fold};

/// How much of the caller's time is reserved for reading the run from the store, in case its result is not announced.
pub(super) const STORE_READ_TIME: Duration = Duration::from_millis(50);

/// How much of [`STORE_READ_TIME`] is reserved for the reply: the search for a descendant that waits ends this long
/// before the deadline.
const REPLY_TIME: Duration = Duration::from_millis(10);

/// The reply if only the id of the run is known. It says that a shared step may have been done.
pub(super) fn unknown_outcome(run: RunId, why: &str) -> ArmReply {
    let report = crate::exchange::RunReport { run: Some(run), ..Default::default() };
    ArmReply::Refused(replies::unknown_of(Some(run), why, Some(true)), report)
}

/// Waits for the answer of another run that has the same retry key; at the deadline, returns what is known of that run.
/// `None` where that run has ended without events.
pub(super) async fn attach(
    core: &Core,
    snapshot: &FilesSnapshot,
    id: RunId,
    announced: Option<AnnouncementReceiver>,
    may_fall_back: bool,
    deadline: Instant,
) -> Option<ArmReply> {
    let mut reply = reply_of(core, snapshot, id, announced, may_fall_back, deadline).await?;
    if let ArmReply::Answer(ArmAnswer { report, .. }) | ArmReply::Refused(_, report) = &mut reply {
        report.of_earlier_try = true;
    }
    Some(reply)
}

async fn reply_of(
    core: &Core,
    snapshot: &FilesSnapshot,
    id: RunId,
    announced: Option<AnnouncementReceiver>,
    may_fall_back: bool,
    deadline: Instant,
) -> Option<ArmReply> {
    let until = deadline.checked_sub(STORE_READ_TIME).unwrap_or(deadline);
    let announcement = match announced {
        None => None,
        // Cloning releases the receiver's lock on the announcement at once.
        Some(mut announced) => match timeout_at(until, announced.wait_for(Option::is_some)).await {
            Ok(Ok(announcement)) => announcement.clone(),
            Ok(Err(_)) | Err(_) => None,
        },
    };
    match announcement {
        Some(Announcement::Reply(reply)) => return Some(replies::shared_reply(*reply, may_fall_back)),
        Some(Announcement::Run(run)) => {
            let plan = timeout_at(deadline, plan_of(core, snapshot, &run)).await.ok().flatten();
            let inputs = (&*snapshot.decision_inputs, core.process.clock.now());
            if let Some(reply) = replies::of_run(&run, plan.as_deref(), inputs, may_fall_back) {
                return Some(reply);
            }
        }
        None => {}
    }
    match timeout_at(deadline, stored_reply(core, snapshot, id, may_fall_back, deadline)).await {
        Ok(reply) => reply,
        Err(_) => Some(unknown_outcome(id, "the store does not answer")),
    }
}

/// The reply to a request that another run took and gave back to legacy; `None` where that run did not give it back.
pub(super) async fn given_back(
    core: &Core,
    snapshot: &FilesSnapshot,
    id: RunId,
    may_fall_back: bool,
    deadline: Instant,
) -> Option<ArmReply> {
    let run = match timeout_at(deadline, stored_run(core, id)).await {
        Ok(Ok(run)) => run.filter(|run| run.status() == RunStatus::Abandoned)?,
        Ok(Err(reply)) => return Some(*reply),
        Err(_) => return Some(unknown_outcome(id, "the store does not answer")),
    };
    replies::of_run(&run, None, (&snapshot.decision_inputs, core.process.clock.now()), may_fall_back)
}

/// The reply of a stored run that has a retry key, or of the newest run of its job if a rerun supersedes the run before
/// its caller was told of a success. `None` where the store has neither run. The pin of the instance in the reply is
/// made known in this process first, because the caller may follow the instance up at once.
async fn stored_reply(
    core: &Core,
    snapshot: &FilesSnapshot,
    id: RunId,
    may_fall_back: bool,
    deadline: Instant,
) -> Option<ArmReply> {
    let run = match stored_run(core, id).await {
        Ok(run) => run,
        Err(reply) => return Some(*reply),
    };
    let may_have_successor =
        |run: &Run| run.is_final() && !run.answer().is_some_and(|answer| (200..300).contains(&answer.status));
    let newest = match run.as_ref().is_none_or(may_have_successor) {
        true => successors::newest_after(core, id, run.as_ref().and_then(|run| run.started().job)).await,
        false => Ok(None),
    };
    let successor = match newest {
        Ok(Some(newest)) => match stored_run(core, newest).await {
            Ok(successor) => successor,
            Err(reply) => return Some(*reply),
        },
        Ok(None) => None,
        Err(_) => return Some(unknown_outcome(id, "the store does not answer")),
    };
    for pin in run.iter().chain(&successor).filter_map(Run::pinned).flat_map(new_pins) {
        if core.ports.affinity.record_stored_pin(pin.key).await.is_err() {
            return Some(unknown_outcome(id, "the store does not answer"));
        }
    }
    let shown = successor.as_ref().or(run.as_ref())?;
    let plan = plan_of(core, snapshot, shown).await;
    let pending = match (&run, &successor) {
        (Some(run), Some(successor)) => replies::pending_of_predecessor(run, successor, plan.as_deref()),
        _ => None,
    };
    let (plan, inputs) = (plan.as_deref(), &*snapshot.decision_inputs);
    let now = core.process.clock.now();
    let reply = pending.or_else(|| replies::of_run(shown, plan, (inputs, now), may_fall_back));
    if reply.is_some() {
        return reply;
    }
    // If the search does not end in time, the caller is told only that the run goes on.
    let until = deadline.checked_sub(REPLY_TIME).unwrap_or(deadline);
    let search = follow::descendant_waits(core, shown.id(), &shown.started().plan, until);
    let still_open = match timeout_at(until, search).await {
        Ok(true) => replies::descendant_waits,
        Ok(false) | Err(_) => replies::still_running,
    };
    Some(still_open(shown, plan, (inputs, core.process.clock.now())))
}

/// The plan that a run keeps, whether or not the files in force still have it; `None` where it cannot be read.
async fn plan_of(core: &Core, snapshot: &FilesSnapshot, run: &Run) -> Option<Arc<Plan>> {
    load::plan_of(core, snapshot, &run.started().plan).await.ok()
}

/// A run as it is stored; `None` where it has no events.
async fn stored_run(core: &Core, id: RunId) -> Result<Option<Run>, Box<ArmReply>> {
    let events = core.events(id).await.map_err(|error| Box::new(unknown_outcome(id, &error.to_string())))?;
    if events.is_empty() {
        return Ok(None);
    }
    let mut run = fold(events.iter().map(|stored| &stored.event))
        .map_err(|_| Box::new(unknown_outcome(id, "the run's events cannot be read")))?;
    let collected = load::collect_sensitive(core, &mut run, &events).await;
    collected.map_err(|error| Box::new(unknown_outcome(id, &error.to_string())))?;
    Ok(Some(run))
}
