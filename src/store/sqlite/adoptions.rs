//! Instances that move, or have moved, from legacy to the engine. `adoption_writes` has the statements of the writes.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read::{read_error, sql_limit, time};
use super::readers::Readers;
use super::stored_state::run_id;
use crate::flag::PinKey;
use crate::names::{RouteId, WorkflowName};
use crate::store::adoptions::claimed;
use crate::store::{Adoption, AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, NewAdoption, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

impl AdoptionStore for SqliteStore {
    fn claim_adoption(&self, new: NewAdoption) -> BoxFuture<'_, Result<AdoptionClaim>> {
        async move {
            let (key, run) = (new.key.clone(), new.run);
            self.write(RecordWrite::ClaimAdoption(Box::new(new))).await?;
            Ok(claimed(run, adoption(&self.readers, key).await?))
        }
        .boxed()
    }

    fn record_adoption_outcome(&self, outcome: AdoptionOutcome) -> BoxFuture<'_, Result<bool>> {
        async move {
            let (key, run, state) = (outcome.key.clone(), outcome.run, outcome.state);
            self.write(RecordWrite::AdoptionOutcome(Box::new(outcome))).await?;
            let stored = adoption(&self.readers, key).await?;
            Ok(stored.is_some_and(|adoption| adoption.run == run && adoption.state == state))
        }
        .boxed()
    }

    fn adoption(&self, key: PinKey) -> BoxFuture<'_, Result<Option<Adoption>>> {
        adoption(&self.readers, key).boxed()
    }

    fn adoptions(
        &self,
        family: Option<RouteId>,
        states: Vec<AdoptionState>,
        after: Option<PinKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Adoption>>> {
        adoptions(&self.readers, family, states, after, limit).boxed()
    }

    fn adoption_counts(&self) -> BoxFuture<'_, Result<Vec<(RouteId, AdoptionState, u64)>>> {
        counts(&self.readers).boxed()
    }
}

const COLUMNS: &str = "SELECT family, id, spelled, run_id, workflow, state, reason, by, claimed, at FROM adoptions ";

fn shown(row: &SqliteRow) -> Result<Adoption> {
    let text = |column: usize| row.try_get::<String, _>(column).map_err(read_error);
    let at = |column: usize| time(row.try_get(column).map_err(read_error)?);
    let run = run_id(row.try_get(3).map_err(read_error)?);
    Ok(Adoption {
        key: PinKey { family: RouteId::new(text(0)?), id: text(1)?.into() },
        id: text(2)?.into(),
        run: run.ok_or_else(|| StoreError("a stored adoption has no run".into()))?,
        workflow: WorkflowName::new(text(4)?),
        state: AdoptionState::parse(&text(5)?)?,
        reason: row.try_get(6).map_err(read_error)?,
        by: text(7)?,
        claimed: at(8)?,
        at: at(9)?,
    })
}

async fn adoption(readers: &Readers, key: PinKey) -> Result<Option<Adoption>> {
    let text = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE family = ? AND id = ?"));
    let query = sqlx::query(text).bind(key.family.as_str()).bind(&*key.id);
    query.fetch_optional(readers.pool()?).await.map_err(read_error)?.as_ref().map(shown).transpose()
}

/// In the order of family and id.
async fn adoptions(
    readers: &Readers,
    family: Option<RouteId>,
    states: Vec<AdoptionState>,
    after: Option<PinKey>,
    limit: usize,
) -> Result<Vec<Adoption>> {
    // The names are constants of this program.
    let states: Vec<String> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    let text = format!(
        "{COLUMNS} WHERE state IN ({}) AND (?1 IS NULL OR family = ?1) \
         AND (?2 IS NULL OR (family, id) > (?2, ?3)) ORDER BY family, id LIMIT ?4",
        states.join(", ")
    );
    let after = after.as_ref().map(|key| (key.family.as_str(), &*key.id)).unzip();
    let query = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(family.as_ref().map(RouteId::as_str))
        .bind(after.0)
        .bind(after.1)
        .bind(sql_limit(limit));
    query.fetch_all(readers.pool()?).await.map_err(read_error)?.iter().map(shown).collect()
}

async fn counts(readers: &Readers) -> Result<Vec<(RouteId, AdoptionState, u64)>> {
    let text = "SELECT family, state, count(*) FROM adoptions GROUP BY family, state ORDER BY family, state";
    let found: Vec<(String, String, i64)> =
        sqlx::query_as(text).fetch_all(readers.pool()?).await.map_err(read_error)?;
    found
        .into_iter()
        .map(|(family, state, count)| Ok((RouteId::new(family), AdoptionState::parse(&state)?, count.cast_unsigned())))
        .collect()
}
