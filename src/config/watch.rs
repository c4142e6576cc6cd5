//! The directory of the flag files, watched.
//!
//! The question it answers: "has the set of files changed, and is the new one fit to be in force?" Always true: a
//! change is told at most once, as a whole set that was checked or as the reason why it was refused; what is in force
//! is not touched here. Directories are watched, not files, so that editors' renames and Kubernetes' symlink swaps are
//! seen; a slow look at the content catches what the kernel does not tell (network file systems, a directory that was
//! replaced, a watch that could not be set up). Bursts are waited out, within a bound. A receiver that does not take
//! changes holds back this thread and nobody else, and one that is gone ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::{Failed, Loaded, Overrides, files, load};

/// What became of changed files.
pub enum Change {
    /// A good set: to be swapped in whole.
    Loaded(Box<Loaded>),
    /// A bad one: nothing changes.
    Refused(Failed),
}

/// How quickly changes are noticed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A burst has ended when nothing happened for this long.
    pub quiet: Duration,
    /// A burst that does not end is looked at after this long.
    pub patience: Duration,
    /// The content is looked at this often, whatever the kernel tells.
    pub poll: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(80), patience: Duration::from_secs(1), poll: Duration::from_secs(5) }
    }
}

/// A watch; dropping it ends it.
pub struct Watch {
    nudge: Nudge,
}

/// Makes a watch look again; cheap to clone.
#[derive(Clone)]
pub struct Nudge {
    bell: SyncSender<()>,
    force: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Nudge {
    /// Reads the files again and tells the outcome even if they are the same (secrets may have changed).
    pub fn force(&self) {
        self.force.store(true, Ordering::Release);
        let _ = self.bell.try_send(()); // a bell that rings already is enough
    }
}

impl Watch {
    /// Watches a directory from what was `seen` last (the hash of the set in force) on.
    ///
    /// # Errors
    /// The thread cannot be started. A directory that cannot be watched is no error: it is polled.
    pub fn start(
        dir: &Path,
        over: Overrides,
        seen: [u8; 32],
        pace: Pace,
    ) -> std::io::Result<(Self, mpsc::Receiver<Change>)> {
        let (bell, rung) = sync_channel(1);
        let nudge = Nudge { bell, force: Arc::default(), stop: Arc::default() };
        let (tell, told) = mpsc::channel(1);
        let looker = Looker { dir: dir.to_owned(), over, seen, pace, nudge: nudge.clone(), tell };
        std::thread::Builder::new().name("flags-watch".into()).spawn(move || looker.run(&rung))?;
        Ok((Self { nudge }, told))
    }
    /// What makes it look again.
    pub fn nudge(&self) -> Nudge {
        self.nudge.clone()
    }
    /// Looks again whenever the process gets SIGHUP; until the runtime ends.
    ///
    /// # Errors
    /// The signal cannot be handled.
    pub fn force_on_hangup(&self) -> std::io::Result<()> {
        let mut hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        let nudge = self.nudge();
        tokio::spawn(async move {
            while hangups.recv().await.is_some() && !nudge.stop.load(Ordering::Acquire) {
                nudge.force();
            }
        });
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.nudge.stop.store(true, Ordering::Release);
        let _ = self.nudge.bell.try_send(());
    }
}

struct Looker {
    dir: PathBuf,
    over: Overrides,
    seen: [u8; 32],
    pace: Pace,
    nudge: Nudge,
    tell: mpsc::Sender<Change>,
}

impl Looker {
    fn run(mut self, rung: &Receiver<()>) {
        let bell = self.nudge.bell.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (an overflow of the kernel's queue) is a reason to look, too.
            if event.map_or(true, |event| may_change(&event.kind)) {
                let _ = bell.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "the flag files cannot be watched; they are looked at every few seconds");
                None
            }
        };
        let mut watched = BTreeMap::new();
        loop {
            if let Some(watcher) = &mut watcher {
                self.watch_directories(watcher, &mut watched);
            }
            // After the watches stand, so that nothing falls between: what changed before them is seen by this look.
            if self.nudge.stop.load(Ordering::Acquire) || self.tell.is_closed() || !self.look() {
                return;
            }
            match rung.recv_timeout(self.pace.poll) {
                Ok(()) => self.wait_out(rung),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Until nothing has happened for a moment, or patience ends.
    fn wait_out(&self, rung: &Receiver<()>) {
        let end = Instant::now() + self.pace.patience;
        while !self.nudge.stop.load(Ordering::Acquire) && Instant::now() < end {
            if rung.recv_timeout(self.pace.quiet).is_err() {
                return;
            }
        }
    }

    /// Reads the files and tells what changed. False where nobody listens.
    fn look(&mut self) -> bool {
        let forced = self.nudge.force.swap(false, Ordering::AcqRel);
        let read = files::read(&self.dir);
        if read.hash == self.seen && !forced {
            return true;
        }
        self.seen = read.hash;
        let change = match load::check(&self.dir, read, &self.over) {
            Ok(loaded) => Change::Loaded(Box::new(loaded)),
            Err(failed) => Change::Refused(failed),
        };
        self.tell.blocking_send(change).is_ok()
    }

    /// Watches the directories by what they are now: a swapped symlink or a new directory is another one.
    fn watch_directories(&self, watcher: &mut RecommendedWatcher, watched: &mut BTreeMap<PathBuf, PathBuf>) {
        for dir in [self.dir.clone(), self.dir.join("routes"), self.dir.join("workflows")] {
            let real = identity(&dir);
            if watched.get(&dir) == real.as_ref() {
                continue;
            }
            if watched.remove(&dir).is_some() {
                let _ = watcher.unwatch(&dir); // gone with the directory, mostly
            }
            if let Some(real) = real {
                match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        watched.insert(dir, real);
                    }
                    Err(error) => tracing::warn!(dir = %dir.display(), %error, "cannot be watched; it is polled"),
                }
            }
        }
    }
}

/// What tells one directory from another under the same name.
fn identity(dir: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(dir).ok()?;
    Some(std::fs::canonicalize(dir).ok()?.join(format!("{}:{}", meta.dev(), meta.ino())))
}

/// Whether an event can mean other content: reading a file, as we do ourselves, cannot.
fn may_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
