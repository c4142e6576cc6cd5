//! Moves many instances of a family, a few at a time.
//!
//! Always true: one bulk move per family at a time. It ends when its process ends; asked for again, it moves what is
//! still legacy's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;

use super::Adoptions;
use super::progress::Bulk;
use crate::clock;
use crate::flag::{AdoptRule, Family, InstanceKey};
use crate::names::RouteId;
use crate::store::StoreError;

/// How many instances are moved at the same time.
const CONCURRENT_MOVES: usize = 4;
/// How long the move of one instance in bulk waits until legacy has answered the instance's requests.
const REQUESTS_END_WITHIN: Duration = Duration::from_secs(30);
/// How many instances are read at a time.
const PAGE: usize = 500;

/// Which instances are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceSelection {
    /// All that legacy is known to have.
    All,
    /// Those with these ids.
    Ids(Vec<String>),
}

/// Why no bulk was begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkRefusal {
    /// The family has no `adopt:`.
    #[error("`{0}` has no `instance.adopt`: nothing was moved; declare the workflow that adopts an instance")]
    NotDeclared(RouteId),
    /// The route creates no instances.
    #[error("`{0}` creates no instances: name the route that does")]
    NotCreator(RouteId),
    /// No instance of the family may be moved now.
    #[error("nothing was moved: {0}")]
    NotNow(String),
    /// A bulk of the family is under way.
    #[error("instances of `{0}` are being moved already (since {1:.0}): `pointsman adopt {0}` shows how far it is")]
    UnderWay(RouteId, Timestamp),
}

impl Adoptions {
    /// Begins to move instances of the family that a route creates. Returns the bulk, which goes on by itself.
    ///
    /// # Errors
    /// Nothing was begun.
    pub fn start_bulk(
        &self,
        route: &RouteId,
        selection: InstanceSelection,
        by: String,
    ) -> Result<Arc<Bulk>, BulkRefusal> {
        let flags = self.flags.load_full();
        let flag = flags.route(route).filter(|flag| flag.route.id == *flag.family.id());
        let flag = flag.ok_or_else(|| BulkRefusal::NotCreator(route.clone()))?;
        let rule = flag.route.lifetime.adopt.clone().ok_or_else(|| BulkRefusal::NotDeclared(route.clone()))?;
        let family = flag.family.clone();
        // `why_no_move` reads only the family of the key.
        let any = InstanceKey { family: family.clone(), id: "".into() };
        if let Some(why) = self.why_no_move(&any) {
            return Err(BulkRefusal::NotNow(why));
        }
        let bulk = Arc::new(Bulk::new(clock::now(), by));
        {
            let mut state = self.state();
            let mut before = family.ids().filter_map(|id| state.bulks.get(id));
            if let Some(before) = before.find(|before| before.is_running()) {
                return Err(BulkRefusal::UnderWay(route.clone(), before.since));
            }
            state.bulks.insert(family.id().clone(), bulk.clone());
        }
        let Some(this) = self.arc() else { return Err(BulkRefusal::NotNow("this process ends".to_owned())) };
        let begun = bulk.clone();
        self.runtime.spawn(async move {
            let done = this.run_bulk(&family, &rule, selection, &begun).await;
            if let Err(error) = done {
                begun.change(|progress| progress.ended_early = Some(format!("the store does not answer: {error}")));
            }
            begun.end();
        });
        Ok(bulk)
    }

    /// The newest bulk of a family in this process.
    pub fn bulk(&self, family: &Family) -> Option<Arc<Bulk>> {
        let state = self.state();
        family.ids().filter_map(|id| state.bulks.get(id)).max_by_key(|bulk| bulk.since).cloned()
    }

    async fn run_bulk(
        self: &Arc<Self>,
        family: &Family,
        rule: &Arc<AdoptRule>,
        selection: InstanceSelection,
        bulk: &Arc<Bulk>,
    ) -> Result<(), StoreError> {
        let ids = match selection {
            InstanceSelection::Ids(ids) => {
                self.move_all(family, rule, ids, bulk).await;
                self.note_draining(bulk);
                return Ok(());
            }
            InstanceSelection::All => family.ids().cloned().collect::<Vec<_>>(),
        };
        // Writes to the store what requests have shown so far, so that the pages below have it.
        self.affinity.instances().refresh(Some(family)).await?;
        for stored_under in ids {
            let mut after = None;
            loop {
                let page = self.store.legacy_instances(stored_under.clone(), after, PAGE).await?;
                after = page.last().map(|last| last.id.clone());
                let is_last = page.len() < PAGE;
                let ids = page.iter().map(|instance| instance.id.to_string()).collect();
                self.move_all(family, rule, ids, bulk).await;
                if is_last || self.engine.is_draining() {
                    break;
                }
            }
        }
        self.note_draining(bulk);
        Ok(())
    }

    fn note_draining(&self, bulk: &Bulk) {
        if self.engine.is_draining() {
            bulk.change(|progress| progress.ended_early = Some("this process is shutting down".to_owned()));
        }
    }

    async fn move_all(self: &Arc<Self>, family: &Family, rule: &Arc<AdoptRule>, ids: Vec<String>, bulk: &Arc<Bulk>) {
        bulk.change(|progress| progress.found += ids.len() as u64);
        let moves = ids.into_iter().map(|id| {
            let key = InstanceKey { family: family.clone(), id: id.as_str().into() };
            let (this, rule, by, bulk) = (self.clone(), rule.clone(), bulk.by.clone(), bulk.clone());
            async move {
                // The files may have changed since the bulk began: the newest rule counts.
                let flags = this.flags.load_full();
                let of_family = flags.routes.iter().filter(|flag| flag.family == key.family);
                let rule = of_family.filter_map(|flag| flag.adopt.clone()).next().unwrap_or(rule);
                let moved = this.move_one(key, rule, by, REQUESTS_END_WITHIN).await;
                bulk.note(&id, moved);
            }
        });
        stream::iter(moves).buffer_unordered(CONCURRENT_MOVES).collect::<()>().await;
    }
}
