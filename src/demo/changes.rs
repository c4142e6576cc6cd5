//! What the demo shows of a workflow that somebody changes: it is rehearsed offline before it is deployed, and after
//! that it is a candidate, which reaches nobody until its evidence is good.
//!
//! Always true: the change is the workflow as it was first written, with the wrong charge, so that both have to find
//! it. The captures are rehearsed by the program's own command, in a process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use tokio::process::Command;

use super::files;
use super::ladder_demo::{CREATOR, LadderDemo, WAIT_MAX};
use crate::admin::types::CandidateRow;

/// How many captures are rehearsed at least.
const CAPTURES_WANTED: usize = 10;
/// How many lines of a rehearsal are shown.
const LINES_SHOWN: usize = 16;
/// The share that is asked for the candidate, in percent.
const PERCENT: f64 = 10.0;

impl LadderDemo<'_> {
    /// Rehearses the changed workflow offline with what was captured in `shadow` and `dark`; then the one in force.
    ///
    /// # Errors
    /// The product does not answer, or a file cannot be written.
    pub(super) async fn rehearse_off_line(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "offline",
            "Somebody leaves the discount out of the charge again. The change is tried before it is deployed.",
        );
        let captures = self.captures().await?;
        let changed_dir = self.flags.with_file_name("changed");
        files::copy_with_first_version(self.flags, &changed_dir)?;
        let file = self.flags.with_file_name("orders.ndjson");
        let lines: Vec<String> = captures.iter().map(|capture| format!("{capture}\n")).collect();
        std::fs::write(&file, lines.concat())?;
        self.console.say(&format!("$ pointsman captures export {CREATOR} > orders.ndjson"));
        self.console.say("$ pointsman rehearse --flags changed --from orders.ndjson");
        let (passed, text) = self.rehearse(&changed_dir, &file).await?;
        text.lines().take(LINES_SHOWN).for_each(|line| self.console.say(line));
        if passed || !text.contains("effects.charge.body.amount") {
            self.report_broken("the offline rehearsal did not find the wrong charge");
        }
        let (passed, in_force) = self.rehearse(self.flags, &file).await?;
        match passed {
            true => self.console.promise_held(&format!(
                "exit code 1 for the change, 0 for the workflow in force, without a network: {} captures",
                captures.len()
            )),
            false => self.report_broken(&format!("the workflow in force differs offline:\n{in_force}")),
        }
        Ok(())
    }

    async fn captures(&mut self) -> anyhow::Result<Vec<Value>> {
        let begun = Instant::now();
        loop {
            let captures = self.control.captures(CREATOR).await?;
            if captures.len() >= CAPTURES_WANTED || begun.elapsed() > WAIT_MAX {
                return Ok(captures);
            }
            self.console.progress(&format!("{} captures so far", captures.len()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `pointsman rehearse`; returns whether it ended with exit code 0, and what it printed.
    async fn rehearse(&self, flags: &Path, captures: &Path) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("rehearse").arg("--flags").arg(flags).arg("--from").arg(captures).kill_on_drop(true);
        let done = tokio::time::timeout(WAIT_MAX, command.output()).await;
        let done = done.context("the rehearsal did not end")?.context("the rehearsal did not start")?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        anyhow::ensure!(matches!(done.status.code(), Some(0 | 1)), "the rehearsal failed: {text}");
        Ok((done.status.success(), text))
    }

    /// Deploys the changed workflow to a route in `only`: it becomes a candidate, whose gate refuses. Then takes it
    /// back.
    ///
    /// # Errors
    /// The product does not answer, or the workflow cannot be written.
    pub(super) async fn refuse_candidate(&mut self) -> anyhow::Result<()> {
        self.console.chapter(
            "candidate",
            "The change is deployed all the same. It reaches nobody: copies of requests rehearse it, against the plan in force.",
        );
        files::put_first_version(self.flags)?;
        let found = self.wait_for_candidate(|candidate| candidate.is_some_and(|found| found.mismatched > 0)).await?;
        let Some(found) = found else {
            self.report_broken("the changed workflow did not become a candidate");
            return Ok(());
        };
        if found.mismatched == 0 {
            self.report_broken("no pair of the candidate with the wrong charge differs");
        }
        self.console.say(&format!("{} of {} pairs differ from the plan in force", found.mismatched, found.pairs));
        self.console.say(&format!("$ pointsman flip {CREATOR} --candidate live --percent {PERCENT}"));
        match self.control.flip_candidate(CREATOR, PERCENT).await? {
            Err(refusal) if !refusal.reasons.is_empty() => {
                refusal.reasons.iter().for_each(|why| self.console.say(&format!("- {why}")));
                self.console.promise_held("the candidate with the wrong charge gets no share, and no caller saw it");
            }
            _ => self.report_broken("the gate of the candidate is open although its charge is wrong"),
        }
        files::correct(self.flags)?;
        match self.wait_for_candidate(|candidate| candidate.is_none()).await? {
            None => self.console.promise_held("the change is taken back, and the plan in force was never another one"),
            Some(_) => self.report_broken("the candidate is still there although its change was taken back"),
        }
        Ok(())
    }

    /// Waits until the route's candidate is as wanted, within a bound; returns what it is then.
    async fn wait_for_candidate(
        &mut self,
        wanted: impl Fn(Option<&CandidateRow>) -> bool,
    ) -> anyhow::Result<Option<CandidateRow>> {
        let detail = self.show_until(CREATOR, Duration::ZERO, |route| wanted(route.row.candidate.as_ref())).await?;
        Ok(detail.row.candidate)
    }
}
