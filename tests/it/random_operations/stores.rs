//! What happens to the store of a walk: a full disk, backups that are restored, and copies that other tools made.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::Walk;
use super::files::Files;
use super::flips::States;
use crate::support::process::{cli, output_text};
use crate::support::until;

/// A copy of a store, and what the walk knew when the copy was begun.
pub struct Copy {
    path: PathBuf,
    /// Of each order: how often it was sent, and whether it was answered.
    orders: Vec<(u32, bool)>,
    files: Files,
}

/// The files that belong to a store.
const ENDS: [&str; 6] = ["", "-wal", "-shm", ".keys", ".evidence", ".lock"];

fn with_end(store: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", store.display()))
}

impl Walk {
    fn new_path(&mut self) -> PathBuf {
        self.copies += 1;
        self.system.store().with_file_name(format!("copy-{}.db", self.copies))
    }

    fn copy_to(&self, path: PathBuf) -> Copy {
        let orders = self.orders.iter().map(|order| (order.tries, order.answer.is_some())).collect();
        Copy { path, orders, files: self.files.clone() }
    }

    /// Makes a backup while orders are sent.
    pub async fn back_up(&mut self) {
        let path = self.new_path();
        let copy = self.copy_to(path);
        if self.random.bool() {
            self.inject_fault();
        }
        let picked = self.pick_orders();
        let source = format!("sqlite:{}", self.system.store().display());
        let arguments = ["store", "backup", copy.path.to_str().expect("a path"), "--store", &source];
        let (done, replies) = tokio::join!(cli(&arguments, &[]), self.send(&picked));
        self.take_answers(picked, replies);
        assert!(done.status.success(), "{}", output_text(&done));
        eprintln!("a backup: {}", copy.path.display());
        self.backup = Some(copy);
    }

    /// Starts on a copy of the backup. Orders of the engine that it may not have count as lost; their clients do not
    /// retry them.
    pub async fn restore(&mut self) {
        let Some(backup) = self.backup.take() else { return };
        eprintln!("the backup is restored");
        let before = self.states().await;
        self.system.kill().await;
        let (old, path) = (self.system.store(), self.new_path());
        std::fs::copy(&backup.path, &path).expect("copied");
        if self.random.bool() {
            for end in ENDS {
                let _ = std::fs::remove_file(with_end(&old, end)); // may not exist
            }
        }
        self.start_on(path, &backup, before).await;
        self.backup = Some(backup);
    }

    /// Stops the process, copies its store, and starts it again for more orders. Then kills it, and starts it on the
    /// older copy; the newer files stay beside it.
    pub async fn move_to_older(&mut self) {
        self.stop().await;
        let path = self.new_path();
        let older = self.copy_to(path);
        std::fs::copy(self.system.store(), &older.path).expect("copied");
        self.restart(false).await;
        if self.random.bool() {
            self.move_family().await;
        }
        self.send_orders().await;
        let before = self.states().await;
        self.send_and_kill().await;
        eprintln!("an older copy takes the place of the store");
        let path = older.path.clone();
        self.start_on(path, &older, before).await;
    }

    async fn start_on(&mut self, path: PathBuf, copy: &Copy, before: States) {
        self.system.allowed.purged = true;
        self.system.allowed.lost_replies += 4; // what an open run did after the copy was made may be sent again
        for n in 0..self.orders.len() {
            let tries = self.orders[n].tries;
            let has_it = copy.orders.get(n).is_some_and(|(then, answered)| *answered || *then == tries);
            let by_engine = self.orders[n].is_from_engine() || self.effects_of(n, true) > 0;
            self.orders[n].is_lost |= !has_it && by_engine;
            if let Some(answer) = self.orders[n].answer.as_ref().filter(|_| self.orders[n].is_lost) {
                self.system.forget_order(answer);
            }
        }
        self.system.use_store(path);
        if self.system.start_again().await.is_err() {
            // The newer files may have no follower for instances in the copy, and are refused then.
            eprintln!("the files are those of the copy");
            self.files = copy.files.clone();
            self.earlier.clear();
            self.example.write(&self.system.flags, &self.files);
            self.restart(false).await;
        }
        // The flips since the copy was made are lost. A person compares the states, and lowers what is in `only` again.
        for (route, states) in self.states().await {
            if states[0] == "only" && before.get(&route).is_none_or(|before| before[0] != "only") {
                self.flip_route(&route, "off", None).await;
            }
        }
    }

    /// Sends orders while the process cannot write to files beyond their first KiB, as on a full disk. Then it may be
    /// killed.
    pub async fn fill_disk(&mut self) {
        eprintln!("a full disk");
        let pid = i32::try_from(self.system.pointsman.pid()).ok().and_then(Pid::from_raw).expect("a process");
        let limit = |current| prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).expect("a limit");
        limit(Some(1_024));
        self.send_orders().await;
        if self.random.bool() {
            let to = self.random.usize(..4);
            self.flip(false, to, None).await;
        }
        self.send_orders().await;
        if self.random.u8(..3) == 0 {
            self.send_and_kill().await;
            self.restart(false).await;
        }
        if self.system.pointsman.pid() == pid.as_raw_nonzero().get().unsigned_abs() {
            limit(None);
        }
        until("the store to take writes", || async {
            let ready = self.system.pointsman.try_api("/readyz").await.is_some_and(|reply| reply.status.is_success());
            let status = self.system.pointsman.get("/api/v2/status").await;
            let all_recorded = status["freeze_unrecorded"] == false && status["flips_unrecorded"] == 0;
            (ready && status["engine_healthy"] == true && all_recorded).then_some(())
        })
        .await;
    }
}
