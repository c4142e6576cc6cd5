//! Instances that move, or have moved, from legacy to the engine.
//!
//! Always true: an instance is claimed only while no other process uses the store: what another one has sent to legacy
//! is not known here. Other processes are looked for before the claim and after it, because one may begin in between; a
//! process that begins after the second look reads the pins of the claim when it has its lease.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::columns::{Result, column, run_id, sql_limit, time, utf8_text};
use super::pool::Pool;
use crate::flag::PinKey;
use crate::names::{RouteId, WorkerId, WorkflowName};
use crate::store::adoptions::claimed;
use crate::store::encoded::nanos;
use crate::store::{Adoption, AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, NewAdoption};

impl AdoptionStore for PostgresStore {
    fn claim_adoption(&self, new: NewAdoption) -> BoxFuture<'_, Result<AdoptionClaim>> {
        claim(&self.pool, new).boxed()
    }

    fn used_by_another(&self, this: WorkerId, settles_s: u64) -> BoxFuture<'_, Result<Option<String>>> {
        other_process(&self.pool, this, settles_s).boxed()
    }

    fn record_adoption_outcome(&self, outcome: AdoptionOutcome) -> BoxFuture<'_, Result<bool>> {
        record_outcome(&self.pool, outcome).boxed()
    }

    fn adoption(&self, key: PinKey) -> BoxFuture<'_, Result<Option<Adoption>>> {
        adoption(&self.pool, key).boxed()
    }

    fn adoptions(
        &self,
        family: Option<RouteId>,
        states: Vec<AdoptionState>,
        after: Option<PinKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Adoption>>> {
        adoptions(&self.pool, family, states, after, limit).boxed()
    }

    fn adoption_counts(&self) -> BoxFuture<'_, Result<Vec<(RouteId, AdoptionState, u64)>>> {
        counts(&self.pool).boxed()
    }
}

/// The name of another process that uses the store, or did so at most this long ago.
async fn other_process(pool: &Pool, worker: WorkerId, settles_s: u64) -> Result<Option<String>> {
    let text = "SELECT name FROM workers WHERE worker <> $1 \
                AND alive_until > clock_timestamp() - make_interval(secs => $2) ORDER BY alive_until DESC LIMIT 1";
    let settles_s = settles_s as f64;
    let found = pool.query(|| sqlx::query(text).bind(worker.0.as_bytes().as_slice()).bind(settles_s)).await?;
    found.first().map(|row| column(row, 0)).transpose()
}

async fn claim(pool: &Pool, new: NewAdoption) -> Result<AdoptionClaim> {
    let NewAdoption { key, id, pins, twins, run, workflow, by, at, worker, settles_s } = new;
    let give_back = |key| {
        let reason = Some("another process began to use the store".to_owned());
        record_outcome(pool, AdoptionOutcome { key, run, state: AdoptionState::GivenBack, reason, by: None, at })
    };
    if let Some(other) = other_process(pool, worker, settles_s).await? {
        // An earlier try of this claim may hold, whose reply was lost.
        give_back(key).await?;
        return Ok(AdoptionClaim::OtherProcess(other));
    }
    let families = |keys: &[PinKey]| keys.iter().map(|key| key.family.as_str().to_owned()).collect::<Vec<_>>();
    let ids = |keys: &[PinKey]| keys.iter().map(|key| key.id.as_bytes().to_vec()).collect::<Vec<_>>();
    let (pin_families, pin_ids, twin_families, twin_ids) = (families(&pins), ids(&pins), families(&twins), ids(&twins));
    let run_bytes = run.0.as_bytes().as_slice();
    let make = || {
        sqlx::query("SELECT claim_adoption($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
            .bind(key.family.as_str())
            .bind(key.id.as_bytes())
            .bind(id.as_bytes())
            .bind(run_bytes)
            .bind(workflow.as_str())
            .bind(by.as_bytes())
            .bind(nanos(at))
            .bind(&pin_families)
            .bind(&pin_ids)
            .bind(&twin_families)
            .bind(&twin_ids)
    };
    pool.query(make).await?;
    let claim = claimed(run, adoption(pool, key.clone()).await?);
    if claim == AdoptionClaim::Claimed
        && let Some(other) = other_process(pool, worker, settles_s).await?
    {
        give_back(key).await?;
        return Ok(AdoptionClaim::OtherProcess(other));
    }
    Ok(claim)
}

async fn record_outcome(pool: &Pool, outcome: AdoptionOutcome) -> Result<bool> {
    let AdoptionOutcome { key, run, state, reason, by, at } = outcome;
    let make = || {
        sqlx::query("SELECT settle_adoption($1, $2, $3, $4, $5, $6, $7)")
            .bind(key.family.as_str())
            .bind(key.id.as_bytes())
            .bind(run.0.as_bytes().as_slice())
            .bind(state.as_str())
            .bind(reason.as_ref().map(String::as_bytes))
            .bind(by.as_ref().map(String::as_bytes))
            .bind(nanos(at))
    };
    pool.query(make).await?;
    let stored = adoption(pool, key.clone()).await?;
    Ok(stored.is_some_and(|adoption| adoption.run == run && adoption.state == state))
}

fn shown(row: &PgRow) -> Result<Adoption> {
    let text = |index: usize| utf8_text(column(row, index)?);
    Ok(Adoption {
        key: PinKey { family: RouteId::new(column::<String>(row, 0)?), id: text(1)?.into() },
        id: text(2)?.into(),
        run: run_id(column(row, 3)?)?,
        workflow: WorkflowName::new(column::<String>(row, 4)?),
        state: AdoptionState::parse(column(row, 5)?)?,
        reason: column::<Option<&[u8]>>(row, 6)?.map(utf8_text).transpose()?,
        by: text(7)?,
        claimed: time(column(row, 8)?)?,
        at: time(column(row, 9)?)?,
    })
}

async fn adoption(pool: &Pool, key: PinKey) -> Result<Option<Adoption>> {
    let text = "SELECT family, id, spelled, run_id, workflow, state, reason, by, claimed, at FROM adoptions \
                WHERE family = $1 AND sha256(id) = sha256($2)";
    let (family, id) = (key.family.as_str(), key.id.as_bytes());
    pool.query(|| sqlx::query(text).bind(family).bind(id)).await?.first().map(shown).transpose()
}

/// In the order of the family and of the hashes of their ids, which the index has.
async fn adoptions(
    pool: &Pool,
    family: Option<RouteId>,
    states: Vec<AdoptionState>,
    after: Option<PinKey>,
    limit: usize,
) -> Result<Vec<Adoption>> {
    let text = "SELECT family, id, spelled, run_id, workflow, state, reason, by, claimed, at FROM adoptions \
                WHERE state = ANY($1) AND ($2::text IS NULL OR family = $2) \
                    AND ($3::text IS NULL OR (family, sha256(id)) > ($3, sha256($4))) \
                ORDER BY family, sha256(id) LIMIT $5";
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let make = || {
        sqlx::query(text)
            .bind(&states)
            .bind(family.as_ref().map(RouteId::as_str))
            .bind(after.as_ref().map(|key| key.family.as_str()))
            .bind(after.as_ref().map(|key| key.id.as_bytes()))
            .bind(sql_limit(limit))
    };
    pool.query(make).await?.iter().map(shown).collect()
}

async fn counts(pool: &Pool) -> Result<Vec<(RouteId, AdoptionState, u64)>> {
    let text = "SELECT family, state, count(*) FROM adoptions GROUP BY family, state ORDER BY family, state";
    let found = pool.query(|| sqlx::query(text)).await?;
    let count = |row: &PgRow| {
        let state = AdoptionState::parse(column(row, 1)?)?;
        Ok((RouteId::new(column::<String>(row, 0)?), state, column::<i64>(row, 2)?.cast_unsigned()))
    };
    found.iter().map(count).collect()
}
