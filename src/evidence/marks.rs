//! Marks the routes that have differences or failures which the store does not have yet.
//!
//! The question it answers: "if this process ended now, would the next process miss differences that were counted?"
//! Always true: before a difference or a failure of a route is counted, the file names that route (a mark). The mark is
//! cleared only after evidence was stored that contains everything that was counted while the file named the route. So
//! a process that finds a mark at its start knows that the store does not have all evidence of that route.
//!
//! A mark is a write of 64 bytes that is not synced. It is made only for the first difference since the evidence was
//! stored. Comparisons write marks on their own threads; a mark for an error of the answering arm is written on the
//! thread that answers the caller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::mark_file::{MarkFile, MarkFileError};
use crate::names::RouteId;
use crate::slot_file::{FILES_MAX, SlotRoute, WAIT_FOR_PREDECESSOR, wait_while_locked};

/// Where a process keeps its marks.
#[derive(Clone, Debug)]
pub enum MarksPlace {
    /// Nowhere: for a store in memory, which ends with the process.
    Nowhere,
    /// This file, for a store that belongs to one process.
    File(PathBuf),
    /// A directory, which several processes may share, and the start of the names of this store's files there.
    Dir(PathBuf, String),
}

/// See the module.
#[derive(Default)]
pub struct Marks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The first one is this process's own; the others are those of processes that have ended.
    files: Vec<MarkFile>,
    marked: BTreeMap<SlotRoute, Mark>,
    /// Whether the last mark could not be written.
    failing: bool,
}

/// A mark of one route (or of every route).
#[derive(Default)]
struct Mark {
    /// Where the mark is written: the index of the file in `files`, and the index of the slot.
    slots: Vec<(usize, u64)>,
    /// How many differences were marked since the mark was written.
    difference_count: u64,
    /// How many of them are not counted yet.
    uncounted: u64,
}

/// A difference whose route is marked and that is being counted. Drop it once the difference is counted.
pub(super) struct UncountedDifference<'a> {
    marks: &'a Marks,
    route: Option<SlotRoute>,
}

/// Marks whose differences are all counted, each with its count of differences at that moment.
pub(super) struct ClearableMarks(Vec<(SlotRoute, u64)>);

impl Marks {
    /// Opens the file of this process, and the files of processes that have ended.
    ///
    /// # Errors
    /// The file cannot be opened or created, or another process has locked it.
    pub async fn open(place: &MarksPlace) -> Result<Self, MarkFileError> {
        let marks = Self::default();
        match place {
            MarksPlace::Nowhere => {}
            MarksPlace::File(path) => {
                let opened = Self::open_when_unlocked(path).await?;
                marks.state().add_file(opened);
            }
            MarksPlace::Dir(dir, name) => {
                let path = |n: usize| dir.join(format!("{name}-{n}.evidence"));
                for n in 0..FILES_MAX {
                    let has_own = !marks.state().files.is_empty();
                    match MarkFile::open(&path(n), !has_own) {
                        Ok(opened) => marks.state().add_file(opened),
                        Err(MarkFileError::Locked(_)) => {}
                        Err(MarkFileError::Io { source, .. })
                            if has_own && source.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                if marks.state().files.is_empty() {
                    return Err(MarkFileError::Locked(path(FILES_MAX - 1)));
                }
            }
        }
        Ok(marks)
    }

    async fn open_when_unlocked(path: &Path) -> Result<(MarkFile, Vec<(SlotRoute, u64)>), MarkFileError> {
        let is_locked = |error: &MarkFileError| matches!(error, MarkFileError::Locked(_));
        wait_while_locked(Instant::now() + WAIT_FOR_PREDECESSOR, || MarkFile::open(path, true), is_locked).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: at worst there is a superfluous mark.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a mark names this route, or every route.
    pub(super) fn is_marked(&self, route: &RouteId) -> bool {
        let state = self.state();
        [SlotRoute::of(route), SlotRoute::Any].iter().any(|marked| state.marked.contains_key(marked))
    }

    /// Marks a route: when this returns, the mark is written. The mark stays at least until the difference is counted
    /// and evidence was stored after that. Where the file cannot be written, the difference is counted without a mark.
    pub(super) fn mark(&self, route: &RouteId) -> UncountedDifference<'_> {
        UncountedDifference { marks: self, route: self.state().mark(SlotRoute::of(route)) }
    }

    /// The marks that may be cleared once evidence that was copied after this call is stored.
    pub(super) fn clearable(&self) -> ClearableMarks {
        let state = self.state();
        let clearable = state.marked.iter().filter(|(_, mark)| mark.uncounted == 0);
        ClearableMarks(clearable.map(|(route, mark)| (*route, mark.difference_count)).collect())
    }

    /// Clears these marks, save those with further differences since.
    pub(super) fn clear(&self, ClearableMarks(clearable): ClearableMarks) {
        let mut state = self.state();
        for (route, difference_count) in clearable {
            state.clear(route, difference_count);
        }
    }
}

impl State {
    fn add_file(&mut self, (file, marks): (MarkFile, Vec<(SlotRoute, u64)>)) {
        for (route, slot) in marks {
            self.marked.entry(route).or_default().slots.push((self.files.len(), slot));
        }
        self.files.push(file);
    }

    /// Marks the route and counts one more uncounted difference. Returns what is marked: the route, or every route.
    /// `None` if the mark cannot be written.
    fn mark(&mut self, route: SlotRoute) -> Option<SlotRoute> {
        let mut marked = route;
        if !self.marked.contains_key(&route) {
            let file = self.files.first_mut()?;
            match file.write(route) {
                Ok((written, slot)) => {
                    marked = written;
                    let slots = &mut self.marked.entry(written).or_default().slots;
                    if !slots.contains(&(0, slot)) {
                        slots.push((0, slot));
                    }
                    self.failing = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(
                            %error,
                            "the file of evidence marks cannot be written: if the process is killed before evidence is \
                             stored, a gate that differences have shut may open"
                        );
                    }
                    return None;
                }
            }
        }
        let mark = self.marked.entry(marked).or_default();
        mark.difference_count += 1;
        mark.uncounted += 1;
        Some(marked)
    }

    fn clear(&mut self, route: SlotRoute, difference_count: u64) {
        let Some(mark) = self.marked.get_mut(&route).filter(|mark| mark.difference_count == difference_count) else {
            return;
        };
        let files = &mut self.files;
        // A mark that cannot be cleared stays, and is cleared after the next flush. If the process ends before that,
        // the route's evidence is restarted although nothing was lost.
        mark.slots.retain(|(file, slot)| files.get_mut(*file).is_some_and(|file| file.clear(*slot).is_err()));
        if mark.slots.is_empty() {
            self.marked.remove(&route);
        }
    }
}

impl Drop for UncountedDifference<'_> {
    fn drop(&mut self) {
        let Some(route) = self.route else { return };
        if let Some(mark) = self.marks.state().marked.get_mut(&route) {
            mark.uncounted = mark.uncounted.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: usize) -> RouteId {
        RouteId::from(format!("route.{n}").as_str())
    }

    async fn reopened(marks: Marks, path: &Path) -> Marks {
        drop(marks);
        Marks::open(&MarksPlace::File(path.to_owned())).await.unwrap()
    }

    #[tokio::test]
    async fn a_mark_stays_until_what_was_counted_under_it_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let marks = Marks::open(&MarksPlace::File(path.clone())).await.unwrap();
        drop(marks.mark(&route(1)));
        let uncounted = marks.mark(&route(2));
        let clearable = marks.clearable();
        drop(uncounted);
        marks.clear(clearable);
        assert!(!marks.is_marked(&route(1)));
        assert!(marks.is_marked(&route(2)), "it was not counted when the evidence was copied");

        let clearable = marks.clearable();
        drop(marks.mark(&route(2)));
        marks.clear(clearable);
        assert!(marks.is_marked(&route(2)), "another difference came since");
        assert!(matches!(Marks::open(&MarksPlace::File(path.clone())).await, Err(MarkFileError::Locked(_))));

        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(2)) && !marks.is_marked(&route(1)));
        marks.clear(marks.clearable());
        assert!(!reopened(marks, &path).await.is_marked(&route(2)));
    }

    #[tokio::test]
    async fn every_route_is_marked_if_no_slot_is_left_or_a_mark_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let marks = Marks::open(&MarksPlace::File(path.clone())).await.unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        for n in 0..126 {
            drop(marks.mark(&route(n)));
        }
        assert!(!marks.is_marked(&route(999)));
        drop(marks.mark(&route(126)));
        drop(marks.mark(&route(127)));
        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(999)), "no slot was left for the 127th route");
        marks.clear(marks.clearable());
        drop(marks.mark(&route(3)));
        let marks = reopened(marks, &path).await;
        assert!(marks.is_marked(&route(3)) && !marks.is_marked(&route(999)), "slots are free again");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "it never grows");

        drop(marks);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[64 + 9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let marks = Marks::open(&MarksPlace::File(path)).await.unwrap();
        assert!(marks.is_marked(&route(999)));
    }

    #[tokio::test]
    async fn a_process_takes_over_the_marks_of_processes_that_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let place = MarksPlace::Dir(dir.path().to_owned(), "store".into());
        let (first, second) = (Marks::open(&place).await.unwrap(), Marks::open(&place).await.unwrap());
        drop(second.mark(&route(1)));
        assert!(!first.is_marked(&route(1)));
        drop(second);
        drop(first);
        let next = Marks::open(&place).await.unwrap();
        assert!(next.is_marked(&route(1)));
        next.clear(next.clearable());
        drop(next);
        assert!(!Marks::open(&place).await.unwrap().is_marked(&route(1)));
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_marked() {
        let marks = Marks::open(&MarksPlace::Nowhere).await.unwrap();
        drop(marks.mark(&route(1)));
        assert!(!marks.is_marked(&route(1)));
    }
}
