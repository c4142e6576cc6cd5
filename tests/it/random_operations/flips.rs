//! Flips, edits and restarts of a walk, and what must hold of the routes' states.
//!
//! A person always forces a gate that lacks evidence. A gate that is shut because clients may retry requests that
//! legacy served is forced only while no client retries one.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::files::Files;
use super::{Disaster, Walk};
use crate::support::until;

pub const STATES: [&str; 5] = ["off", "shadow", "dark", "live", "only"];

/// By route: the requested state, the shares, and the state in force (null while the engine's health determines it).
pub type States = BTreeMap<String, [Value; 3]>;

impl Walk {
    async fn requested(&self, route: &str) -> usize {
        let row = self.system.pointsman.get(&format!("/api/v2/routes/{route}")).await;
        STATES.iter().position(|state| row["row"]["requested"] == **state).unwrap_or(0)
    }

    /// Moves a family to a state, a rung at a time on the way up; stops at a gate that must not be forced.
    pub async fn flip(&self, is_second: bool, to: usize, percent: Option<u64>) {
        let [creator, reader, canceller] = self.files.ids(is_second);
        for (rung, state) in STATES.iter().enumerate().take(to + 1) {
            for route in [reader, canceller, creator] {
                let share = percent.filter(|_| route == creator && rung == to);
                if self.requested(route).await < rung && !self.flip_route(route, state, share).await {
                    return;
                }
            }
        }
        if self.requested(creator).await > to || percent.is_some() {
            self.flip_route(creator, STATES[to], percent).await;
        }
    }

    /// From now on no client retries an order that the engine did not answer, so a person may force any gate: moves a
    /// family to `live`.
    pub async fn force_live(&mut self) {
        eprintln!("no client retries what the engine did not answer");
        for order in &mut self.orders {
            order.is_retired |= !order.is_from_engine();
        }
        self.no_client_retries = true;
        let is_second = self.random.u8(..4) == 0;
        self.flip(is_second, 3, Some(100)).await;
        self.no_client_retries = false;
    }

    /// Moves a route to a state; forces a gate that only lacks evidence. Returns whether it was moved.
    pub async fn flip_route(&self, route: &str, to: &str, percent: Option<u64>) -> bool {
        let path = format!("/api/v2/routes/{route}/flip");
        let flip = async |force: bool| {
            let mut body = json!({ "to": to, "reason": "a test", "force": force, "acknowledge": true });
            if let Some(percent) = percent {
                body["percent"] = percent.into();
            }
            self.system.pointsman.api(Method::POST, &path, body).await
        };
        let mut reply = flip(false).await;
        let why = String::from_utf8_lossy(&reply.body).into_owned();
        let names_retries = ["retr", "copy", "record"].iter().any(|word| why.contains(word));
        let may_force = !names_retries || self.no_client_retries;
        if reply.status == StatusCode::CONFLICT && why.contains("gate-shut") && may_force {
            reply = flip(true).await;
        }
        eprintln!("{route} to {to} {percent:?}: {}", reply.status);
        reply.status.is_success()
    }

    /// Picks the next version of the files: an edit, or the version before. `None` if their text does not change.
    pub fn next_files(&mut self) -> Option<Files> {
        let next = match self.earlier.last() {
            Some(earlier) if self.random.u8(..4) == 0 => earlier.clone(),
            _ => self.files.changed(*self.random.choice(&self.edits).expect("some"), &mut self.random),
        };
        self.example.differs(&next, &self.files).then_some(next).inspect(|next| eprintln!("the files: {next:?}"))
    }

    /// Writes the next version of the files; returns whether there is a change.
    fn write_files(&mut self) -> bool {
        let Some(next) = self.next_files() else { return false };
        self.earlier.push(std::mem::replace(&mut self.files, next));
        self.example.write(&self.system.flags, &self.files);
        true
    }

    /// Changes the files while requests are under way. If the process refuses them, checks that nothing changed, and
    /// writes the earlier files again.
    pub async fn edit(&mut self) {
        let (loaded, before) = (self.loaded().await, self.states().await);
        if !self.write_files() {
            return;
        }
        let picked = self.pick_orders();
        let read = until("the files to be read", || async {
            let now = self.loaded().await;
            (now != loaded).then_some(now)
        });
        let (read, replies) = tokio::join!(read, self.send(&picked));
        self.take_answers(picked, replies);
        if read.1 == loaded.1 {
            return;
        }
        let status = self.system.pointsman.get("/api/v2/status").await;
        eprintln!("refused: {}", status["flags"]["last_error"]);
        self.expect_states("a refused reload", &before).await;
        self.take_back();
        until("the files to be as before", || async {
            self.system.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null().then_some(())
        })
        .await;
        self.expect_states("a refused reload that was taken back", &before).await;
        if self.random.bool() {
            self.stop().await;
            self.restart(false).await;
            self.expect_states("a refused reload and a restart", &before).await;
        }
    }

    /// How many changes of the files were put in force, and how many were refused.
    async fn loaded(&self) -> (usize, u64) {
        let refused = self.system.pointsman.metrics().await.sum("pointsman_flags_reload_failures_total", &[]);
        (self.system.pointsman.log().matches("a new set of flag files is in force").count(), refused as u64)
    }

    /// Writes the version of the files before the last edit again.
    pub fn take_back(&mut self) {
        self.files = self.earlier.pop().expect("there was an edit");
        eprintln!("the files are refused and taken back");
        self.example.write(&self.system.flags, &self.files);
    }

    pub async fn stop(&mut self) {
        eprintln!("SIGTERM");
        assert_eq!(self.system.pointsman.stop().await, Some(0), "{}", self.system.pointsman.log());
    }

    /// Starts the process again, with changed files if `edits` is set. If it refuses them, it has to start with the
    /// earlier files.
    pub async fn restart(&mut self, edits: bool) {
        if edits && self.write_files() {
            if self.system.start_again().await.is_ok() {
                return;
            }
            self.take_back();
        }
        if let Err(log) = self.system.start_again().await {
            panic!("the process does not start on files that were in force before:\n{log}");
        }
    }

    /// The states of all routes now.
    pub async fn states(&self) -> States {
        let rows = self.system.pointsman.get("/api/v2/routes").await;
        let rows = rows.as_array().expect("a list");
        let of = |row: &Value| {
            let effective = &row["effective"];
            let state = if effective["why"] == "health" { Value::Null } else { effective["state"].clone() };
            [row["requested"].clone(), row["shares"].clone(), state]
        };
        rows.iter().map(|row| (row["id"].as_str().expect("an id").to_owned(), of(row))).collect()
    }

    /// Requires that the states are the same as before.
    pub async fn expect_states(&mut self, after: &str, before: &States) {
        let now = self.states().await;
        // A route in `live` is held from the next start on if keys could not be noted on a full disk.
        let may_change = matches!(self.disaster, Disaster::FullDisk);
        let is_same = |[requested, shares, state]: &[Value; 3], was: &[Value; 3]| {
            let is_stable = !may_change && !state.is_null() && !was[2].is_null();
            (requested, shares) == (&was[0], &was[1]) && (!is_stable || *state == was[2])
        };
        if now.len() != before.len() {
            self.wrong.push(format!("after {after} there are the routes {now:?}, and before {before:?}"));
        }
        for (route, states) in &now {
            let Some(was) = before.get(route).filter(|was| !is_same(states, was)) else { continue };
            self.wrong.push(format!("after {after} {route} is {states:?}, and before {was:?}"));
        }
    }

    /// Requires that a state in force which is not the requested one has a reason, and that the requested state of each
    /// route is that of its last flip.
    pub async fn check_states(&mut self) {
        let rows = self.system.pointsman.get("/api/v2/routes").await;
        for row in rows.as_array().expect("a list") {
            let id = row["id"].as_str().expect("an id");
            let (requested, effective) = (&row["requested"], &row["effective"]);
            let shown = self.system.pointsman.get(&format!("/api/v2/routes/{id}")).await;
            if *requested != effective["state"] {
                let is_gate = effective["why"] == "gate";
                let has_text = shown["refused"].as_array().is_some_and(|why| !why.is_empty());
                if effective["why"] == "requested" || (is_gate && !has_text) {
                    self.wrong.push(format!("{id} is {effective}, and {requested} was requested: {shown}"));
                }
            }
            let flip = &shown["flip"];
            if !flip.is_null() && flip["to"] != *requested {
                self.wrong.push(format!("{id}: {requested} is requested, and the last flip is {flip}"));
            }
            let listed = self.system.pointsman.get(&format!("/api/v2/flips?route={id}&limit=1")).await;
            if !flip.is_null() && listed[0] != *flip {
                self.wrong.push(format!("{id}: the last flip is {flip}, listed is {listed}"));
            }
        }
    }

    pub async fn freeze(&self, body: Value) {
        self.system.pointsman.api(Method::POST, "/api/v2/freeze", body).await;
    }
}
