//! Hand-overs of a walk: a successor takes over while orders are sent, on connections that are kept and on new ones.
//! Meanwhile the files are edited, a route is flipped, or one of the two processes is killed.

use std::time::Duration;

use http::Method;
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::Walk;
use super::flips::STATES;
use crate::support::process::{Start, cli, output_text};
use crate::support::{Pointsman, WAIT_MAX, until};

/// What happens at some moment of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Nothing,
    Edit,
    Flip,
    KillOld,
    KillSuccessor,
}

const MEANWHILE: [Meanwhile; 7] = [
    Meanwhile::Nothing,
    Meanwhile::Edit,
    Meanwhile::Edit,
    Meanwhile::Flip,
    Meanwhile::KillOld,
    Meanwhile::KillSuccessor,
    Meanwhile::KillSuccessor,
];

/// How many times orders are sent during a hand-over.
const ROUNDS: usize = 12;

/// Sends SIGKILL to a process, which may have ended already.
fn kill(pid: u32) {
    let _ended = kill_process(Pid::from_raw(pid.cast_signed()).expect("a pid"), Signal::KILL);
}

impl Walk {
    pub async fn hand_over(&mut self) {
        let meanwhile = self.random.choice(MEANWHILE).expect("some");
        let moment = Duration::from_micros(self.random.u64(..1_200_000));
        if self.random.bool() {
            let delay = Duration::from_millis(self.random.u64(100..1_500));
            self.system.world.fault("charge", Fault::Delay(delay), 1);
        }
        eprintln!("a hand-over: {meanwhile:?} after {moment:.0?}");
        let before = self.states().await;
        let next = if meanwhile == Meanwhile::Edit { self.next_files() } else { None };
        let (creator, to) = (self.files.ids(false)[0], STATES[self.random.usize(..STATES.len())]);
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (self.pick_orders(), self.random.bool())).collect();
        self.successors += 1;
        let start = self.system.arguments();
        let log = start.log.with_file_name(format!("successor-{}.log", self.successors));
        let start = Start { log, ..start };
        let old = self.system.pointsman.pid();

        let walk = &*self;
        let act = async |successor| {
            tokio::time::sleep(moment).await; // the moment of the fault
            match meanwhile {
                Meanwhile::Nothing => {}
                Meanwhile::Edit => next.iter().for_each(|next| walk.example.write(&walk.system.flags, next)),
                Meanwhile::Flip => {
                    let url = format!("{}/api/v2/routes/{creator}/flip", walk.system.pointsman.admin_url());
                    let body = json!({ "to": to, "reason": "a test", "acknowledge": true });
                    let reply = Client::new(WAIT_MAX).json(Method::POST, &url, &[], &body).await;
                    eprintln!("{creator} to {to}: {:?}", reply.map(|reply| reply.status));
                }
                Meanwhile::KillOld => kill(old),
                Meanwhile::KillSuccessor => kill(successor),
            }
        };
        let send = async {
            let mut replies = Vec::new();
            for (picked, on_new_connections) in &rounds {
                let client = on_new_connections.then(|| Client::new(WAIT_MAX));
                replies.push(walk.send_by(client.as_ref(), picked).await);
                tokio::time::sleep(moment / 8).await; // so that some are sent after the event
            }
            replies
        };
        let (started, replies) = tokio::join!(Pointsman::try_succeed(&start, act), send);
        for ((picked, _), replies) in rounds.into_iter().zip(replies) {
            self.take_answers(picked, replies);
        }

        let is_kill = matches!(meanwhile, Meanwhile::KillOld | Meanwhile::KillSuccessor);
        self.system.allowed.crashes += u64::from(is_kill);
        match started {
            Ok(successor) => {
                let mut old = std::mem::replace(&mut self.system.pointsman, successor);
                match meanwhile {
                    Meanwhile::KillOld => {}
                    // The successor had printed its addresses; the old process may have handed over by then or not.
                    Meanwhile::KillSuccessor => self.go_on_with(old).await,
                    _ => {
                        let code = old.wait_for_exit().await;
                        assert_eq!(code, Some(0), "{}\n{}", old.log(), self.system.pointsman.log());
                    }
                }
            }
            Err(log) => {
                let may_be_refused = matches!(meanwhile, Meanwhile::Edit | Meanwhile::KillSuccessor);
                if !may_be_refused {
                    self.wrong.push(format!("the successor did not start:\n{log}\n{}", self.system.pointsman.log()));
                }
                eprintln!("the successor did not start");
                self.until_ready().await;
            }
        }
        if let Some(next) = next {
            self.earlier.push(std::mem::replace(&mut self.files, next));
            // Either process may have read the files meanwhile; a reload shows whether this one accepts them.
            let reload = cli(&["reload"], &[("POINTSMAN_ADMIN", &self.system.pointsman.admin_url())]).await;
            if !reload.status.success() {
                eprintln!("{}", output_text(&reload));
                self.take_back();
                let reload = cli(&["reload"], &[("POINTSMAN_ADMIN", &self.system.pointsman.admin_url())]).await;
                assert!(reload.status.success(), "files that were in force: {}", output_text(&reload));
            }
        } else if meanwhile != Meanwhile::Flip {
            self.expect_states("a hand-over", &before).await;
        }
    }

    async fn until_ready(&self) {
        until("a process to be ready", || async {
            let reply = self.system.pointsman.try_api("/readyz").await?;
            reply.status.is_success().then_some(())
        })
        .await;
    }

    /// The successor was killed: the old process goes on, or ends because it has handed over already.
    async fn go_on_with(&mut self, old: Pointsman) {
        self.system.pointsman = old;
        let goes_on = until("the old process to go on or to end", || async {
            if self.system.pointsman.is_gone() {
                return Some(false);
            }
            let reply = self.system.pointsman.try_api("/readyz").await?;
            reply.status.is_success().then_some(true)
        })
        .await;
        if !goes_on {
            self.restart(false).await;
        }
    }
}
