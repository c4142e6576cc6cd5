//! Moves, one after the other: judged, recorded, then in force.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::board::{Board, freeze_of, freeze_word};
use super::judge::{Wish, judge};
use super::{Ask, By, Declared, FlipError, Flipped, Move, RouteStatus, export, files, horizon, status};
use crate::clock;
use crate::evidence::Evidence;
use crate::flag::{Arm, FlagSet, Freeze, State};
use crate::names::RouteId;
use crate::problem::nearest;
use crate::store::{DeclaredState, FlipRecord, PinCount, SharedStore, StoreError};

pub(super) struct Mover {
    store: SharedStore,
    evidence: Arc<Evidence>,
    flags: Arc<ArcSwap<FlagSet>>,
    /// Held for a whole move, so that each is judged by what the one before it left.
    turn: tokio::sync::Mutex<()>,
    /// What is in force. Locked only for looks and for the swap, never while the store is asked.
    board: Mutex<Board>,
}

impl Mover {
    pub async fn open(declared: Declared, store: SharedStore, evidence: Arc<Evidence>) -> Result<Self, StoreError> {
        let secret = store.secret().await?;
        let mut flips = BTreeMap::new();
        let mut freeze = Freeze::No;
        for flip in store.last_flips().await? {
            match flip.route.clone() {
                Some(route) => drop(flips.insert(route, flip)),
                None => freeze = freeze_of(&flip),
            }
        }
        let remembered = store.declared().await?.into_iter().map(|state| (state.route.clone(), state)).collect();
        let mut board = Board {
            declared: Declared { routes: Vec::new(), ..declared.clone() },
            places: BTreeMap::new(),
            flips,
            remembered,
            freeze,
            healthy: true,
            generation: 0,
            secret,
        };
        let moves = files::adopt(&mut board, declared, &evidence);
        let flags = Arc::new(ArcSwap::from_pointee(board.flag_set()));
        let mover =
            Self { store, evidence, flags, turn: tokio::sync::Mutex::default(), board: Mutex::new(board.clone()) };
        mover.adopted(board, moves).await?;
        Ok(mover)
    }

    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        &self.flags
    }

    pub fn status(&self) -> Vec<RouteStatus> {
        let board = self.board();
        let places = board.declared.routes.iter().filter_map(|route| board.places.get(&route.id));
        places.map(|place| status::of(&board, &self.evidence, place)).collect()
    }

    pub async fn reload(&self, declared: Declared) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let mut board = self.board().clone();
        let moves = files::adopt(&mut board, declared, &self.evidence);
        self.adopted(board, moves).await
    }

    /// Records what new files moved and what they declare, then puts the board in force.
    async fn adopted(&self, mut board: Board, moves: Vec<Move>) -> Result<(), StoreError> {
        let mut flips = Vec::new();
        for step in moves {
            let route = step.route.clone();
            if matches!(step.from, State::Live | State::Only) && step.to < State::Live {
                // The files have nobody to read it to; it must not keep the way down shut either.
                for sentence in self.look(&board, &route).await.unwrap_or_default() {
                    tracing::warn!(%route, from = %step.from, to = %step.to, "{sentence}");
                }
            }
            flips.push(self.written(step, By::File.as_str().to_owned()));
        }
        let flips = self.record(flips, Some(board.remembered.values().cloned().collect())).await?;
        for flip in &flips {
            if let Some(route) = &flip.route {
                board.flipped(route, flip.clone());
            }
        }
        let mut now = self.board();
        // Health may have changed in the meantime; all else only changes in its turn.
        board.set_health(now.healthy);
        *now = board;
        self.put_in_force(&mut now);
        drop(now);
        flips.iter().for_each(|flip| told(flip, By::File));
        Ok(())
    }

    pub async fn flip(&self, route: &RouteId, ask: Ask) -> Result<Flipped, FlipError> {
        let _turn = self.turn.lock().await;
        let Ask { to, percent, reason, force, acknowledge, by } = ask;
        let board = self.board().clone();
        let place = board.places.get(route).ok_or_else(|| unknown(&board, route))?;
        let from = place.stands();
        let shares = match percent {
            Some(_) if matches!(to, State::Off | State::Only) => {
                return Err(FlipError::Refused(format!("`{to}` has no share: it holds for everybody")));
            }
            Some(percent) => place.standing.shares.with(to, percent),
            None => place.standing.shares,
        };
        let leaves = matches!(from, State::Live | State::Only) && to < from;
        if place.is_at(to, shares) && !(force && place.standing.unproven) {
            return Ok(self.unchanged(&board, route, by));
        }
        let wish = Wish { to, shares, force, reason };
        let passed = judge(&board, &self.evidence, place, &wish)?;
        let horizon = if leaves { self.look(&board, route).await? } else { Vec::new() };
        if from == State::Only && to < from && !acknowledge {
            let why = "in `only` legacy was not called at all; going down wants an acknowledgement";
            let known = if horizon.is_empty() { String::new() } else { format!(": {}", horizon.join("; ")) };
            return Err(FlipError::Refused(format!("`{route}` is `only`: {why}{known}")));
        }

        // A flip ends a wish of the file that the gate refused: the store remembers the file as it is from now on.
        let mut remembered = board.remembered.clone();
        remembered.insert(route.clone(), place.declared());
        let forced = passed.forced || (force && place.standing.unproven);
        let step = Move { route: route.clone(), from, to, shares, reason: wish.reason, forced };
        let flip = self.record_one(self.written(step, by), Some(remembered.values().cloned().collect())).await?;
        let mut now = self.board();
        now.remembered = remembered;
        now.flipped(route, flip.clone());
        self.put_in_force(&mut now);
        let effective = effective(&now, route);
        drop(now);
        told(&flip, By::Api);
        Ok(Flipped { flip, changed: true, effective, horizon })
    }

    pub async fn freeze(&self, freeze: Freeze, reason: Option<String>, by: String) -> Result<FlipRecord, StoreError> {
        let _turn = self.turn.lock().await;
        let from = self.board().freeze;
        let flip = FlipRecord {
            number: 0,
            route: None,
            from: freeze_word(from).to_owned(),
            to: freeze_word(freeze).to_owned(),
            shares: None,
            by,
            at: clock::now(),
            reason,
            forced: false,
            evidence: serde_json::Value::Null,
        };
        let flip = self.record_one(flip, None).await?;
        let mut now = self.board();
        now.freeze = freeze;
        self.put_in_force(&mut now);
        drop(now);
        told(&flip, By::Api);
        Ok(flip)
    }

    pub fn set_health(&self, healthy: bool) {
        let mut now = self.board();
        if now.healthy == healthy {
            return;
        }
        now.set_health(healthy);
        self.put_in_force(&mut now);
        drop(now);
        if healthy {
            tracing::info!("the engine is healthy again: routes stand where they were asked to");
        } else {
            tracing::warn!(
                "the engine is not healthy: no new instances, routes below `only` stand at `shadow` at most"
            );
        }
    }

    pub async fn horizon(&self, route: &RouteId) -> Result<Vec<String>, FlipError> {
        let board = self.board().clone();
        if !board.places.contains_key(route) {
            return Err(unknown(&board, route));
        }
        Ok(self.look(&board, route).await?)
    }

    /// How many instances each arm owns, by family.
    pub async fn pin_counts(&self) -> Result<Vec<PinCount>, StoreError> {
        self.store.pin_counts().await
    }

    /// The horizon of a route: what the engine owns is asked of the store.
    async fn look(&self, board: &Board, route: &RouteId) -> Result<Vec<String>, StoreError> {
        let Some(place) = board.places.get(route) else { return Ok(Vec::new()) };
        let Some(family) = horizon::family(&place.route) else { return Ok(Vec::new()) };
        let counts = self.store.pin_counts().await?;
        let owned = counts.iter().filter(|(id, arm, _)| id == family && *arm == Arm::Engine).map(|(_, _, n)| n).sum();
        Ok(horizon::sentences(board, place, owned))
    }

    fn written(&self, step: Move, by: String) -> FlipRecord {
        let Move { route, from, to, shares, reason, forced } = step;
        let evidence = serde_json::to_value(self.evidence.of(&route)).unwrap_or_default();
        FlipRecord {
            number: 0,
            route: Some(route),
            from: from.as_str().to_owned(),
            to: to.as_str().to_owned(),
            shares: Some(shares),
            by,
            at: clock::now(),
            reason,
            forced,
            evidence,
        }
    }

    async fn record_one(
        &self,
        flip: FlipRecord,
        declared: Option<Vec<DeclaredState>>,
    ) -> Result<FlipRecord, StoreError> {
        let mut recorded = self.record(vec![flip], declared).await?;
        recorded.pop().ok_or_else(|| StoreError("the store gave the flip no number".into()))
    }

    /// Records flips, and what the files declare, in one transaction. Where the store's answer is lost, it is read back
    /// before it counts as failed.
    async fn record(
        &self,
        mut flips: Vec<FlipRecord>,
        declared: Option<Vec<DeclaredState>>,
    ) -> Result<Vec<FlipRecord>, StoreError> {
        let numbers = match self.store.put_flips(flips.clone(), declared.clone()).await {
            Ok(numbers) => numbers,
            Err(error) => self.read_back(&flips, declared).await.ok().flatten().ok_or(error)?,
        };
        for (flip, number) in flips.iter_mut().zip(numbers) {
            flip.number = number;
        }
        Ok(flips)
    }

    /// The numbers of flips that were recorded though the store did not say so; `None` where they were not.
    async fn read_back(
        &self,
        flips: &[FlipRecord],
        declared: Option<Vec<DeclaredState>>,
    ) -> Result<Option<Vec<u64>>, StoreError> {
        let stored = self.store.flips(None, flips.len()).await?;
        let is_it = |(kept, flip): (&FlipRecord, &FlipRecord)| {
            kept.route == flip.route && kept.at == flip.at && kept.by == flip.by && kept.to == flip.to
        };
        let all = stored.len() == flips.len() && stored.iter().rev().zip(flips).all(is_it);
        if flips.is_empty() {
            let mut declared = declared.unwrap_or_default();
            declared.sort_by(|a, b| a.route.cmp(&b.route));
            return Ok((self.store.declared().await? == declared).then(Vec::new));
        }
        Ok(all.then(|| stored.iter().rev().map(|flip| flip.number).collect()))
    }

    fn unchanged(&self, board: &Board, route: &RouteId, by: String) -> Flipped {
        let place = board.places.get(route);
        let state = place.map_or(State::Off, |place| place.stands());
        let shares = place.map(|place| place.standing.shares);
        let reason = Some(format!("`{route}` is `{state}` already"));
        let flip = FlipRecord {
            number: 0,
            route: Some(route.clone()),
            from: state.as_str().to_owned(),
            to: state.as_str().to_owned(),
            shares,
            by,
            at: clock::now(),
            reason,
            forced: false,
            evidence: serde_json::Value::Null,
        };
        Flipped { flip, changed: false, effective: effective(board, route), horizon: Vec::new() }
    }

    /// Swaps the set for what the board comes to.
    fn put_in_force(&self, board: &mut Board) {
        board.generation += 1;
        let set = Arc::new(board.flag_set());
        let before = self.flags.swap(Arc::clone(&set));
        let gone = before.routes.iter().map(|flag| &flag.route.id).filter(|id| set.route(id).is_none());
        export::states(&set, &gone.cloned().collect::<Vec<_>>());
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // What a panicking holder left is a whole board: fields are set only after all that can fail.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(board: &Board, route: &RouteId) -> FlipError {
    let near = nearest(route.as_str(), board.places.keys().map(RouteId::as_str));
    FlipError::UnknownRoute(route.clone(), near.map(str::to_owned))
}

fn effective(board: &Board, route: &RouteId) -> crate::flag::Effective {
    let off = crate::flag::Effective { state: State::Off, why: crate::flag::Why::Requested };
    board.places.get(route).map_or(off, |place| place.standing.effective(board.freeze))
}

fn told(flip: &FlipRecord, by: By) {
    export::flipped(flip, by);
    let FlipRecord { number, route, from, to, shares: _, by, at: _, reason, forced, evidence: _ } = flip;
    let route = route.as_ref().map_or("(kill switch)", RouteId::as_str);
    tracing::info!(number, route, %from, %to, %by, reason = reason.as_deref(), forced, "flipped");
}
