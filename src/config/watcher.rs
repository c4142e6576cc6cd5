//! Watches the directory of the flag files.
//!
//! The question it answers: "has the set of files changed, and is the new one valid?" Always true: a change is reported
//! at most once, as a whole checked set or as the reason why it was refused; the set in force is not changed here.
//! Directories are watched, not files, so that editors' renames and Kubernetes' symlink swaps are seen; polling the
//! content catches what the kernel does not report (network file systems, a directory that was replaced, a watch that
//! could not be set up). The watcher waits until a burst of changes has ended, within a bound. A receiver that does not
//! take changes blocks only the watcher's thread; dropping the receiver ends the thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::referenced_files::ReferencedFile;
use super::render::CheckFailed;
use super::setup::{Loaded, Overrides};
use super::{files, load};

/// A change of the files.
pub enum FilesChange {
    /// A valid set, to be put in force as a whole.
    Loaded(Box<Loaded>),
    /// An invalid set: the set in force stays.
    Refused(CheckFailed),
}

/// One reading of the files, because they had changed or because it was asked for.
pub struct Reading {
    /// What was read.
    pub change: FilesChange,
    /// The number of the last call of [`ReloadTrigger::force`] before the files were read. This reading answers that
    /// call and all earlier ones.
    pub asked: u64,
}

/// How soon changes are noticed.
#[derive(Clone, Copy, Debug)]
pub struct WatchTiming {
    /// A burst of changes has ended when nothing happened for this long.
    pub quiet: Duration,
    /// If a burst does not end, the files are read after this long.
    pub burst_max: Duration,
    /// The content is read this often, even without an event from the kernel.
    pub poll: Duration,
}

impl Default for WatchTiming {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(80), burst_max: Duration::from_secs(1), poll: Duration::from_secs(5) }
    }
}

/// Watches the files until it is dropped.
pub struct FlagFileWatcher {
    trigger: ReloadTrigger,
}

/// Makes a watcher read the files now; cheap to clone.
#[derive(Clone)]
pub struct ReloadTrigger {
    wake: SyncSender<()>,
    /// How many readings were asked for.
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl ReloadTrigger {
    /// Makes the watcher read the files again and report the result even if they are the same (secrets may have
    /// changed). Returns the number of this call, for comparison with [`Reading::asked`].
    pub fn force(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let _ = self.wake.try_send(()); // if the channel is full, the thread wakes anyway
        number
    }
}

impl FlagFileWatcher {
    /// Watches a directory for files whose hash differs from `seen_hash` (that of the set in force), and the files that
    /// were read with them.
    ///
    /// # Errors
    /// The thread cannot be started. A directory that cannot be watched is polled instead.
    pub fn start(
        dir: &Path,
        overrides: Overrides,
        seen_hash: [u8; 32],
        referenced_files: Vec<ReferencedFile>,
        timing: WatchTiming,
    ) -> std::io::Result<(Self, mpsc::Receiver<Reading>)> {
        let (wake, woken) = sync_channel(1);
        let trigger = ReloadTrigger { wake, asked: Arc::default(), stop: Arc::default() };
        let (report, readings) = mpsc::channel(1);
        let thread = WatcherThread {
            dir: dir.to_owned(),
            overrides,
            seen_hash,
            answered: 0,
            referenced_files,
            timing,
            trigger: trigger.clone(),
            report,
        };
        std::thread::Builder::new().name("flags-watch".into()).spawn(move || thread.run(&woken))?;
        Ok((Self { trigger }, readings))
    }
    /// A handle that makes the watcher read the files at once.
    pub fn trigger(&self) -> ReloadTrigger {
        self.trigger.clone()
    }
}

impl Drop for FlagFileWatcher {
    fn drop(&mut self) {
        self.trigger.stop.store(true, Ordering::Release);
        let _ = self.trigger.wake.try_send(());
    }
}

struct WatcherThread {
    dir: PathBuf,
    overrides: Overrides,
    seen_hash: [u8; 32],
    /// The `asked` of the last reading.
    answered: u64,
    /// The certificates and keys that the last check looked for.
    referenced_files: Vec<ReferencedFile>,
    timing: WatchTiming,
    trigger: ReloadTrigger,
    report: mpsc::Sender<Reading>,
}

impl WatcherThread {
    fn run(mut self, woken: &Receiver<()>) {
        let wake = self.trigger.wake.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (such as an overflow of the kernel's queue) may hide a change.
            if event.map_or(true, |event| may_change(&event.kind)) {
                let _ = wake.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "the flag files cannot be watched; they are polled every few seconds");
                None
            }
        };
        let mut watched = BTreeMap::new();
        loop {
            if let Some(watcher) = &mut watcher {
                self.watch_directories(watcher, &mut watched);
            }
            // The files are read after the watches are set up, so that no change in between is missed.
            if self.trigger.stop.load(Ordering::Acquire) || self.report.is_closed() || !self.check_for_change() {
                return;
            }
            match woken.recv_timeout(self.timing.poll) {
                Ok(()) => self.wait_until_quiet(woken),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits until nothing has happened for `quiet`, at most for `burst_max`.
    fn wait_until_quiet(&self, woken: &Receiver<()>) {
        let end = Instant::now() + self.timing.burst_max;
        while !self.trigger.stop.load(Ordering::Acquire) && Instant::now() < end {
            if woken.recv_timeout(self.timing.quiet).is_err() {
                return;
            }
        }
    }

    /// Reads the files and reports a change. Returns `false` if the receiver was dropped.
    fn check_for_change(&mut self) -> bool {
        let asked = self.trigger.asked.load(Ordering::Acquire);
        let read = files::read(&self.dir);
        let is_unchanged =
            read.hash == self.seen_hash && self.referenced_files.iter().all(ReferencedFile::is_unchanged);
        if is_unchanged && asked == self.answered {
            return true;
        }
        (self.seen_hash, self.answered) = (read.hash, asked);
        let change = match load::check(&self.dir, read, &self.overrides) {
            Ok(loaded) => {
                self.referenced_files.clone_from(&loaded.referenced_files);
                FilesChange::Loaded(Box::new(loaded))
            }
            Err(failed) => {
                self.referenced_files.clone_from(&failed.referenced_files);
                FilesChange::Refused(failed)
            }
        };
        self.report.blocking_send(Reading { change, asked }).is_ok()
    }

    /// Watches the directories to which the paths lead now. Called before each reading, since a symlink may be swapped
    /// or a directory replaced.
    fn watch_directories(&self, watcher: &mut RecommendedWatcher, watched: &mut BTreeMap<PathBuf, PathBuf>) {
        let mut dirs = vec![self.dir.clone(), self.dir.join("routes"), self.dir.join("workflows")];
        dirs.extend(self.referenced_files.iter().filter_map(|file| file.path().parent()).map(Path::to_owned));
        dirs.sort();
        dirs.dedup();
        // Watched directories of certificates that no file names any more.
        let gone: Vec<_> = watched.keys().filter(|dir| !dirs.contains(dir)).cloned().collect();
        for dir in gone {
            watched.remove(&dir);
            let _ = watcher.unwatch(&dir); // fails where the directory was removed
        }
        for dir in dirs {
            let real = identity(&dir);
            if watched.get(&dir) == real.as_ref() {
                continue;
            }
            if watched.remove(&dir).is_some() {
                let _ = watcher.unwatch(&dir); // fails where the directory was removed, which ended the watch
            }
            if let Some(real) = real {
                match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        watched.insert(dir, real);
                    }
                    Err(error) => {
                        tracing::warn!(dir = %dir.display(), %error, "the directory cannot be watched; it is polled")
                    }
                }
            }
        }
    }
}

/// The real path, device and inode of a directory: differs for another directory with the same name.
fn identity(dir: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(dir).ok()?;
    Some(std::fs::canonicalize(dir).ok()?.join(format!("{}:{}", meta.dev(), meta.ino())))
}

/// Whether an event can mean changed content. Reads cannot; our own reading causes such events.
fn may_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
