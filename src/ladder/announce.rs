//! A move that lets the engine answer a route's requests is announced to the other processes on the same store before
//! it is recorded.
//!
//! Always true: while one process has such a move in force and another one does not, each of them claims the retry key
//! of a request in the store before an arm performs the request. Legacy gets the request only if the store has the key
//! as legacy's; the engine gets it only if the store does not. So where two tries of one request reach two processes,
//! only one arm performs the request.

use std::sync::Arc;
use std::time::Duration;

use super::mover::Mover;
use super::other_processes::OtherProcesses;
use super::positions::{Positions, RoutePosition};
use super::types::MoveRequest;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::{StandingAnnouncement, StoreError};

/// How often a move is announced at most if the lease of this process ends each time.
const ANNOUNCEMENTS_MAX: u32 = 3;

/// Why a move cannot be announced.
const LEASES_END: &str = "each time the others had acknowledged it, the lease of this process was over, and with it their \
                          acknowledgement (try again once the store answers in time)";

/// An announcement to the other processes. It ends when this value is dropped. `None` if nothing had to be announced.
pub(super) struct Announcement(Option<BegunAnnouncement>);

struct BegunAnnouncement {
    others: Arc<dyn OtherProcesses>,
    number: u64,
    routes: Vec<Vec<RouteId>>,
    /// The value of [`OtherProcesses::leases_ended`] before the announcement.
    leases_ended: u64,
    /// What [`OtherProcesses::standing`] returned in the lease in which all other processes acknowledged the
    /// announcement; `None` if they have not.
    acknowledged: Option<StandingAnnouncement>,
}

impl Announcement {
    /// Announces the routes again if the lease of this process may have expired since the announcement, because the
    /// other processes forget what a process without a lease has announced. Then waits until they have acknowledged
    /// the new announcement. To be called once the move is recorded, and before it is in force.
    pub async fn confirm(&mut self) {
        let Some(announcing) = &self.0 else { return };
        let leases_ended = announcing.others.leases_ended();
        if leases_ended == announcing.leases_ended {
            return;
        }
        tracing::warn!("the lease of this process was over while a move was recorded: it is announced again");
        let again = Announcement::begin(Arc::clone(&announcing.others), announcing.routes.clone());
        if let Err(why) =
            announcing.others.wait_until_acknowledged(again.0.as_ref().map_or(0, |again| again.number)).await
        {
            tracing::error!(why, "the move is recorded, and is put in force nevertheless");
        }
        *self = again;
    }

    /// The announcement as the store must still have it when the move is recorded: as long as it is there, the other
    /// processes claim the keys of the announced routes. If the lease in which they acknowledged it has expired, they
    /// have forgotten it; an announcement of the next lease does not replace their acknowledgement.
    ///
    /// # Errors
    /// The other processes may have forgotten the announcement.
    pub fn standing(&self) -> Result<Option<StandingAnnouncement>, StoreError> {
        match &self.0 {
            Some(BegunAnnouncement { acknowledged: Some(acknowledged), .. }) => Ok(Some(*acknowledged)),
            Some(announcing) => announcing.others.standing(announcing.number).map_err(StoreError),
            None => Ok(None),
        }
    }

    /// Notes that all other processes have acknowledged the announcement. Returns whether this process has had one
    /// lease from the announcement until now; if not, they may have forgotten it since.
    fn note_acknowledged(&mut self) -> bool {
        let Some(announcing) = &mut self.0 else { return true };
        let standing = announcing.others.standing(announcing.number).ok().flatten();
        // Read after `standing`: if the number is unchanged, the lease that `standing` names has not expired.
        let is_of_one_lease = announcing.others.leases_ended() == announcing.leases_ended;
        announcing.acknowledged = standing.filter(|_| is_of_one_lease);
        is_of_one_lease
    }

    async fn check_lost_keys(&self) -> Result<(), String> {
        match &self.0 {
            Some(announcing) => announcing.others.check_lost_keys().await,
            None => Ok(()),
        }
    }

    async fn announce_and_wait(others: &Arc<dyn OtherProcesses>, routes: Vec<Vec<RouteId>>) -> AnnounceOutcome {
        // Dropping `announced` ends the announcement, also if this future is dropped while it waits.
        let announced = Self::begin(Arc::clone(others), routes);
        match others.wait_until_acknowledged(announced.0.as_ref().map_or(0, |announcing| announcing.number)).await {
            Ok(()) => Ok(announced),
            Err(why) => Err((why, announced)),
        }
    }

    fn begin(others: Arc<dyn OtherProcesses>, routes: Vec<Vec<RouteId>>) -> Self {
        let leases_ended = others.leases_ended();
        let number = others.announce(routes.clone());
        Self(Some(BegunAnnouncement { others, number, routes, leases_ended, acknowledged: None }))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(announcing) = &self.0 {
            announcing.others.end_announcement(announcing.number);
        }
    }
}

/// An announcement, as `Ok` if all other processes have acknowledged it. In the error, the text says which of them have
/// not; the announcement stands nevertheless until it is dropped.
pub(super) type AnnounceOutcome = Result<Announcement, (String, Announcement)>;

impl RoutePosition {
    /// Whether retry keys of the route are claimed in the store, because the engine answers the route or one of its
    /// cohorts, or may do so without another flip. Guard, health and holds do not count: another process may have a
    /// healthy engine, or know all keys.
    pub(super) fn claims_keys(&self) -> bool {
        self.highest() >= State::Live || self.route.cohorts.iter().any(|cohort| cohort.state >= State::Live)
    }

    /// Whether `force` in the files puts the route, or each of its cohorts, where the engine answers.
    fn is_raised_by_force(&self) -> bool {
        let mut in_live = self.route.cohorts.iter().filter(|cohort| cohort.state >= State::Live);
        self.route.force.is_some() || (self.highest() < State::Live && in_live.all(|cohort| cohort.force.is_some()))
    }
}

impl Mover {
    /// How long a flip to this state may wait for other processes.
    pub(super) fn announce_within(&self, to: State) -> Duration {
        let waits = self.others.as_deref().filter(|_| to >= State::Live && self.store.is_shared());
        waits.map_or(Duration::ZERO, OtherProcesses::announce_within)
    }

    /// Announces a flip to a state in which the engine answers. Called before the lock of moves is taken, so that
    /// neither a flip down nor moves of other processes wait for a process that does not acknowledge the announcement.
    /// `None` if the flip need not be announced, or would be refused.
    pub(super) async fn announce_before(&self, route: &RouteId, request: &MoveRequest) -> Option<AnnounceOutcome> {
        let positions = self.in_force().inputs().positions;
        let position = positions.routes.get(route).filter(|at| must_be_announced(at, request.to))?;
        self.check_guard(position, request).ok()?;
        self.judge(&positions, position, request).ok()?;
        Some(self.announce_flip(position, request.to).await)
    }

    /// Announces a flip of this route to this state, if it lets the engine answer the route for the first time.
    ///
    /// # Errors
    /// See [`OtherProcesses::wait_until_acknowledged`] and [`OtherProcesses::check_lost_keys`]. The announcement stands
    /// nevertheless, until the second part of the error is dropped.
    pub(super) async fn announce_flip(&self, position: &RoutePosition, to: State) -> AnnounceOutcome {
        let announced =
            self.announce(if must_be_announced(position, to) { vec![ids(position)] } else { Vec::new() }).await?;
        // Checked after the acknowledgements: a process that did not acknowledge has lost its lease by now, and its
        // keys may be lost with it.
        match announced.check_lost_keys().await {
            Ok(()) => Ok(announced),
            Err(why) => Err((why, announced)),
        }
    }

    /// Announces the routes that the engine is to answer by new files. `force` in the files accepts lost keys.
    ///
    /// # Errors
    /// As [`Mover::announce_flip`].
    pub(super) async fn announce_files(&self, before: &Positions, after: &Positions) -> AnnounceOutcome {
        let claimed = |id: &RouteId| before.routes.get(id).is_some_and(RoutePosition::claims_keys);
        let is_new = |at: &&RoutePosition| at.claims_keys() && !claimed(&at.route.id);
        let new = || after.routes.values().filter(is_new);
        let announced = self.announce(new().map(ids).collect()).await?;
        // The engine does not answer a route whose cohorts in `live` are all kept below it: lost keys are checked again
        // before one of them goes up.
        let is_held = |at: &RoutePosition| at.highest() < State::Live && !at.takes_instances();
        if new().all(|at| at.is_raised_by_force() || is_held(at)) {
            return Ok(announced);
        }
        match announced.check_lost_keys().await {
            Ok(()) => Ok(announced),
            Err(why) => Err((why, announced)),
        }
    }

    async fn announce(&self, routes: Vec<Vec<RouteId>>) -> AnnounceOutcome {
        let Some(others) = self.others.as_ref().filter(|_| !routes.is_empty()) else { return Ok(Announcement(None)) };
        let mut tries = 1;
        loop {
            let mut announced = Announcement::announce_and_wait(others, routes.clone()).await?;
            match announced.note_acknowledged() {
                true => return Ok(announced),
                false if tries < ANNOUNCEMENTS_MAX => tries += 1,
                false => return Err((LEASES_END.to_owned(), announced)),
            }
        }
    }
}

/// Whether a flip to this state lets the engine answer the route for the first time.
fn must_be_announced(position: &RoutePosition, to: State) -> bool {
    to >= State::Live && !position.claims_keys()
}

fn ids(position: &RoutePosition) -> Vec<RouteId> {
    position.route.ids().cloned().collect()
}
