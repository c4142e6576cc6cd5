//! What all clients of the event stream share: the ring of changes, and the one task that reads what has changed.
//!
//! Always true: there is at most one such task; it runs only while somebody listens, and at most one look longer. What
//! it knows is kept while nobody listens, so that the next look finds all changes since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::change::Change;
use super::ring::{Numbered, Ring};
use super::sources::Sources;
use crate::admin::parts::AdminParts;
use crate::admin::types::ResetReason;
use crate::names::RunId;

/// How often the sources are read while somebody listens.
const READ_EVERY: Duration = Duration::from_millis(100);
/// The same in a store that several processes share: each look is a request to its server.
const READ_SHARED_EVERY: Duration = Duration::from_millis(200);
/// How often they are read while the store does not answer.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Where looks take long, the pause after one is this many times as long, but at most [`PAUSE_MAX`].
const PAUSE_PER_LOOK: u32 = 19;
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How far the changes were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The number of the newest change.
    pub newest: u64,
    /// Whether the sources were read once: only what changes after that is told.
    pub has_begun: bool,
    /// Whether the store did not answer the last look.
    pub store_is_silent: bool,
}

/// See the module.
pub(in crate::admin) struct ChangeFeed {
    shared: Mutex<Shared>,
    progress: watch::Sender<Progress>,
}

struct Shared {
    ring: Ring,
    /// The number of clients.
    listeners: usize,
    /// The runs whose changes somebody wants one by one, with the number of such clients.
    watched: HashMap<RunId, usize>,
    is_reading: bool,
    /// What is known of the sources, while no task reads them.
    sources: Option<Sources>,
}

impl ChangeFeed {
    pub fn new() -> Self {
        let (ring, watched) = (Ring::new(), HashMap::new());
        let shared = Shared { ring, listeners: 0, watched, is_reading: false, sources: None };
        Self { shared: Mutex::new(shared), progress: watch::Sender::new(Progress::default()) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The id of the change with this number.
    pub(super) fn id(&self, number: u64) -> String {
        self.shared().ring.id(number)
    }

    /// See [`Ring::number_of`].
    pub(super) fn number_of(&self, id: &str) -> Result<u64, ResetReason> {
        self.shared().ring.number_of(id)
    }

    /// See [`Ring::after`].
    pub(super) fn after(&self, number: u64, limit: usize) -> Option<Vec<Arc<Numbered>>> {
        self.shared().ring.after(number, limit)
    }

    /// Adds changes and tells the clients of them.
    pub(super) fn publish(&self, changes: Vec<Change>, store_is_silent: bool) {
        let newest = {
            let mut shared = self.shared();
            changes.into_iter().for_each(|change| shared.ring.push(change));
            shared.ring.newest()
        };
        let now = Progress { newest, has_begun: true, store_is_silent };
        self.progress.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// The runs whose changes somebody wants one by one.
    fn watched(&self) -> Vec<RunId> {
        self.shared().watched.keys().copied().collect()
    }

    /// Gives back what the task knows if nobody listens any more; then the task ends.
    fn ends_reading(&self, sources: &mut Option<Sources>, is_stopping: bool) -> bool {
        let mut shared = self.shared();
        let ends = shared.listeners == 0 || is_stopping;
        if ends {
            shared.is_reading = false;
            shared.sources = sources.take();
        }
        ends
    }
}

/// A client that listens; dropping it ends that.
pub(super) struct Listener {
    feed: Arc<ChangeFeed>,
    parts: AdminParts,
    runs: Vec<RunId>,
}

impl Listener {
    /// Listens from now on; these runs' changes are all told one by one.
    pub fn new(feed: &Arc<ChangeFeed>, parts: &AdminParts, runs: Vec<RunId>) -> Self {
        {
            let mut shared = feed.shared();
            shared.listeners += 1;
            for run in &runs {
                *shared.watched.entry(*run).or_default() += 1;
            }
        }
        let listener = Self { feed: feed.clone(), parts: parts.clone(), runs };
        listener.ensure_reading();
        listener
    }

    /// Begins the task that reads, unless there is one. Also called later, in case that task has failed.
    pub fn ensure_reading(&self) {
        let mut shared = self.feed.shared();
        if !std::mem::replace(&mut shared.is_reading, true) {
            let sources = shared.sources.take().unwrap_or_default();
            tokio::spawn(read(self.feed.clone(), self.parts.clone(), sources));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = self.feed.shared();
        shared.listeners -= 1;
        for run in &self.runs {
            if let Some(count) = shared.watched.get_mut(run) {
                *count -= 1;
                if *count == 0 {
                    shared.watched.remove(run);
                }
            }
        }
    }
}

/// Marks the task as ended if it panics: the next one begins anew, and tells clients to do so too.
struct Reading {
    feed: Arc<ChangeFeed>,
    /// Whether it is marked already; the next task may have begun since.
    has_ended: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.has_ended {
            self.feed.shared().is_reading = false;
        }
    }
}

/// Reads the sources and tells what has changed, until nobody listens.
async fn read(feed: Arc<ChangeFeed>, parts: AdminParts, sources: Sources) {
    let mut kept = Some(sources);
    let mut reading = Reading { feed: feed.clone(), has_ended: false };
    while let Some(sources) = &mut kept {
        let began = Instant::now();
        let has_begun = feed.progress.borrow().has_begun;
        let changes = sources.look(&parts, &feed.watched(), has_begun).await;
        let is_silent = sources.store_is_silent();
        feed.publish(changes, is_silent);
        let every = match parts.store.is_shared() {
            true => READ_SHARED_EVERY,
            false => READ_EVERY,
        };
        let pause = match is_silent {
            true => RETRY_EVERY,
            false => began.elapsed().saturating_mul(PAUSE_PER_LOOK).clamp(every, PAUSE_MAX),
        };
        let is_stopping = tokio::select! {
            () = parts.stopping.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if feed.ends_reading(&mut kept, is_stopping) {
            reading.has_ended = true;
            return;
        }
    }
}
