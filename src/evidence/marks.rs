//! Marks the routes whose differences or failures are not all in the store yet.
//!
//! The question it answers: "if this process ended now, would the next process miss differences that were counted?"
//! Before a difference or a failure of a route is counted, the file names that route (a mark), unless it cannot be
//! written (below). Always true: the mark is cleared only after evidence was stored that contains everything that was
//! counted while the file named the route. So a process that finds a mark at its start has to assume that the store
//! lacks evidence of that route.
//!
//! A mark is a write of 64 bytes that is not synced. It is made only for the first difference since the evidence was
//! stored. The thread that compared, or that answers the caller with an error, waits until the mark is written, at most
//! [`MARK_WAIT_MAX`]; while a write takes longer than that (the disk hangs), differences are counted without a mark.

use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::mark_file::{MarkFile, MarkFileError};
use super::mark_writer::{MARK_WAIT_MAX, MarkWriter};
use super::marks_state::{ClearableMarks, MarksState};
use crate::names::RouteId;
use crate::slot_file::{FILES_MAX, SlotRoute, WAIT_FOR_PREDECESSOR, wait_while_locked};

/// How long a flush waits at most until marks are cleared.
const CLEAR_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a process keeps its marks.
#[derive(Clone, Debug)]
pub enum MarksLocation {
    /// Nowhere: for a store in memory, which ends with the process.
    Nowhere,
    /// This file, for a store that belongs to one process.
    File(PathBuf),
    /// A directory, which several processes may share, and the start of the names of this store's files there.
    Dir(PathBuf, String),
}

/// The marks of one process; see the module.
#[derive(Default)]
pub struct IncompleteEvidenceMarks {
    state: Arc<Mutex<MarksState>>,
    /// `None` if no marks are kept.
    writer: Option<MarkWriter>,
}

/// A difference whose route is marked and that is being counted. Drop it once the difference is counted.
pub(super) struct UncountedDifference<'a> {
    marks: &'a IncompleteEvidenceMarks,
    route: Option<SlotRoute>,
}

impl IncompleteEvidenceMarks {
    /// Opens the file of this process, and the files of processes that have ended.
    ///
    /// # Errors
    /// The file cannot be opened or created, or another process has locked it.
    pub async fn open(location: &MarksLocation) -> Result<Self, MarkFileError> {
        let mut opened = Vec::new();
        match location {
            MarksLocation::Nowhere => {}
            MarksLocation::File(path) => opened.push(Self::open_when_unlocked(path).await?),
            MarksLocation::Dir(dir, name) => {
                let path = |n: usize| dir.join(format!("{name}-{n}.evidence"));
                for n in 0..FILES_MAX {
                    let has_own = !opened.is_empty();
                    match MarkFile::open(&path(n), !has_own) {
                        Ok(file) => opened.push(file),
                        Err(MarkFileError::Locked(_)) => {}
                        Err(MarkFileError::Io { source, .. })
                            if has_own && source.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                if opened.is_empty() {
                    return Err(MarkFileError::Locked(path(FILES_MAX - 1)));
                }
            }
        }
        let mut state = MarksState::default();
        let mut files = Vec::new();
        for (file, marks) in opened {
            for (route, slot) in marks {
                state.add(route, vec![(files.len(), slot)]);
            }
            files.push(file);
        }
        let state = Arc::new(Mutex::new(state));
        let writer = if files.is_empty() { None } else { MarkWriter::start(files, state.clone()) };
        Ok(Self { state, writer })
    }

    async fn open_when_unlocked(path: &Path) -> Result<(MarkFile, Vec<(SlotRoute, u64)>), MarkFileError> {
        let is_locked = |error: &MarkFileError| matches!(error, MarkFileError::Locked(_));
        wait_while_locked(Instant::now() + WAIT_FOR_PREDECESSOR, || MarkFile::open(path, true), is_locked).await
    }

    fn state(&self) -> MutexGuard<'_, MarksState> {
        // A poisoned lock is usable: at worst there is a superfluous mark.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a mark names this route, or every route.
    pub(super) fn is_marked(&self, route: &RouteId) -> bool {
        let state = self.state();
        [SlotRoute::of(route), SlotRoute::Any].iter().any(|marked| state.is_marked(*marked))
    }

    /// Marks a route. When this returns, the mark is written; it stays at least until the difference is counted and the
    /// evidence with this difference is stored. If the file cannot be written, or the disk hangs, this returns without
    /// a mark.
    pub(super) fn mark(&self, route: &RouteId) -> UncountedDifference<'_> {
        UncountedDifference { marks: self, route: self.begin_difference(SlotRoute::of(route)) }
    }

    /// Marks the route unless it is marked, and adds to its mark a difference that is not counted in the evidence yet.
    /// Returns what is marked: the route, or every route; `None` if there is no mark.
    fn begin_difference(&self, route: SlotRoute) -> Option<SlotRoute> {
        let writer = self.writer.as_ref()?;
        let mut marked = route;
        loop {
            let reply = {
                let mut state = self.state();
                if state.begin_difference(marked) {
                    return Some(marked);
                }
                if state.is_stalled {
                    // This mark is written after the write that hangs; nobody waits for it.
                    if state.ask_once(route) {
                        drop(writer.mark(&mut state, route));
                    }
                    return None;
                }
                writer.mark(&mut state, route)
            };
            match reply.recv_timeout(MARK_WAIT_MAX) {
                // The next pass counts the difference, or requests a mark again if this mark was cleared meanwhile.
                Ok(written) => marked = written?,
                Err(RecvTimeoutError::Timeout) => {
                    let mut state = self.state();
                    if state.outstanding > 0 {
                        state.is_stalled = true;
                        state.log_failure("a write takes too long, the disk may hang");
                        return None;
                    }
                    // All writes have ended meanwhile: the next pass finds the mark, or requests it again.
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Returns the marks that may be cleared once evidence that is copied after this call has been stored.
    pub(super) fn clearable(&self) -> ClearableMarks {
        self.state().clearable()
    }

    /// Clears these marks, except those with further differences since then.
    pub(super) async fn clear(&self, clearable: ClearableMarks) {
        let Some(writer) = &self.writer else { return };
        let cleared = {
            let mut state = self.state();
            let slots = match state.is_stalled {
                true => return,
                false => state.remove(clearable),
            };
            if slots.is_empty() {
                return;
            }
            writer.clear(&mut state, slots)
        };
        let _in_time = timeout(CLEAR_WAIT_MAX, cleared).await;
    }

    /// Unlocks the files; nothing is marked afterwards.
    pub(super) async fn release(&self) {
        let Some(writer) = &self.writer else { return };
        let released = writer.release(&mut self.state());
        let _in_time = timeout(CLEAR_WAIT_MAX, released).await;
    }
}

impl Drop for UncountedDifference<'_> {
    fn drop(&mut self) {
        let Some(route) = self.route else { return };
        self.marks.state().end_difference(route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: usize) -> RouteId {
        RouteId::from(format!("route.{n}").as_str())
    }

    async fn reopened(marks: IncompleteEvidenceMarks, path: &Path) -> IncompleteEvidenceMarks {
        drop(marks);
        IncompleteEvidenceMarks::open(&MarksLocation::File(path.to_owned())).await.unwrap()
    }

    #[tokio::test]
    async fn a_mark_stays_until_the_differences_that_it_covers_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let marks = IncompleteEvidenceMarks::open(&MarksLocation::File(path.clone())).await.unwrap();
        drop(marks.mark(&route(1)));
        let uncounted = marks.mark(&route(2));
        let clearable = marks.clearable();
        drop(uncounted);
        marks.clear(clearable).await;
        assert!(!marks.is_marked(&route(1)));
        assert!(marks.is_marked(&route(2)), "the difference was not counted when the evidence was copied");

        let clearable = marks.clearable();
        drop(marks.mark(&route(2)));
        marks.clear(clearable).await;
        assert!(marks.is_marked(&route(2)), "another difference was marked since then");
        assert!(matches!(
            IncompleteEvidenceMarks::open(&MarksLocation::File(path.clone())).await,
            Err(MarkFileError::Locked(_))
        ));

        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(2)) && !marks.is_marked(&route(1)));
        marks.clear(marks.clearable()).await;
        assert!(!reopened(marks, &path).await.is_marked(&route(2)));
    }

    #[tokio::test]
    async fn every_route_is_marked_if_no_slot_is_left_or_a_mark_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let marks = IncompleteEvidenceMarks::open(&MarksLocation::File(path.clone())).await.unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        for n in 0..126 {
            drop(marks.mark(&route(n)));
        }
        assert!(!marks.is_marked(&route(999)));
        drop(marks.mark(&route(126)));
        drop(marks.mark(&route(127)));
        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(999)), "no slot was left for the 127th route");
        marks.clear(marks.clearable()).await;
        drop(marks.mark(&route(3)));
        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(3)) && !marks.is_marked(&route(999)), "slots are free again");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "the file never grows");

        drop(marks);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[64 + 9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let marks = IncompleteEvidenceMarks::open(&MarksLocation::File(path)).await.unwrap();
        assert!(marks.is_marked(&route(999)));
    }

    #[tokio::test]
    async fn a_process_takes_over_the_marks_of_processes_that_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let location = MarksLocation::Dir(dir.path().to_owned(), "store".into());
        let (first, second) = (
            IncompleteEvidenceMarks::open(&location).await.unwrap(),
            IncompleteEvidenceMarks::open(&location).await.unwrap(),
        );
        drop(second.mark(&route(1)));
        assert!(!first.is_marked(&route(1)));
        drop(second);
        drop(first);
        let next = IncompleteEvidenceMarks::open(&location).await.unwrap();
        assert!(next.is_marked(&route(1)));
        next.clear(next.clearable()).await;
        drop(next);
        assert!(!IncompleteEvidenceMarks::open(&location).await.unwrap().is_marked(&route(1)));
    }

    /// A difference that comes while a write hangs is counted without a mark, and its route is marked afterwards.
    #[tokio::test]
    async fn a_write_that_hangs_delays_nobody_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let marks = IncompleteEvidenceMarks::open(&MarksLocation::File(path.clone())).await.unwrap();
        let write_hangs = marks.writer.as_ref().unwrap().hold();
        drop(marks.mark(&route(1)));
        drop(marks.mark(&route(2)));
        drop(marks.mark(&route(2)));
        assert!(!marks.is_marked(&route(1)) && !marks.is_marked(&route(2)));
        drop(write_hangs);
        drop(marks.mark(&route(3)));
        let marks = reopened(marks, &path).await;
        assert!((1..3).all(|n| marks.is_marked(&route(n))));
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_marked() {
        let marks = IncompleteEvidenceMarks::open(&MarksLocation::Nowhere).await.unwrap();
        drop(marks.mark(&route(1)));
        assert!(!marks.is_marked(&route(1)));
    }
}
