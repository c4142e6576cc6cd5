//! The durable store against the one in memory, from the same random operations.

use proptest::prelude::*;

use super::*;
use crate::flag::RetryKey;
use crate::store::{Claim, RunFilter};

#[derive(Clone, Debug)]
struct Op {
    run: u64,
    first: u64,
    count: u64,
    batch: u64,
    pin: Option<(u8, bool)>,
    claim: Option<(u8, u8)>,
    dark: bool,
    legacy_try: Option<u8>,
}

/// Few names, so that operations meet.
fn op() -> impl Strategy<Value = Op> {
    let pin = proptest::option::weighted(0.3, (0..4_u8, any::<bool>()));
    let claim = proptest::option::weighted(0.3, (0..4_u8, 0..2_u8));
    let legacy = proptest::option::weighted(0.1, 0..4_u8);
    (0..4_u64, 1..6_u64, 1..4_u64, 0..6_u64, pin, claim, any::<bool>(), legacy).prop_map(
        |(run, first, count, batch, pin, claim, dark, legacy_try)| Op {
            run,
            first,
            count,
            batch,
            pin,
            claim,
            dark,
            legacy_try,
        },
    )
}

fn append_of(op: &Op) -> Append {
    Append {
        batch: Uuid::from_u128(u128::from(op.batch)),
        pins: op.pin.iter().map(|(id, engine)| pin(&id.to_string(), arm(*engine))).collect(),
        claim: op.claim.map(|(key, request)| Claim { key: RetryKey([key; 32]), request: [request; 32] }),
        // One priority for all of a run, as the engine has it: two queues keep no order between them.
        priority: if op.dark { Priority::Dark } else { Priority::Live },
        ..append(run_id(op.run), op.first, op.count)
    }
}

fn arm(engine: bool) -> Arm {
    if engine { Arm::Engine } else { Arm::Legacy }
}

async fn look(store: &SharedStore) -> String {
    let mut seen = String::new();
    for run in 0..4 {
        seen += &format!("{:?}\n", store.events(run_id(run), Seq::FIRST).await);
    }
    seen += &format!("{:?}\n", store.runs(RunFilter { limit: 99, ..RunFilter::default() }).await);
    seen += &format!("{:?}\n", store.pin_counts().await);
    for key in 0..4 {
        seen += &format!("{:?}\n", store.first_try(RetryKey([key; 32])).await);
        seen += &format!("{:?}\n", store.pin(pin(&key.to_string(), Arm::Engine).key).await);
    }
    seen
}

async fn both_agree(ops: Vec<Vec<Op>>) {
    let memory = Place::new(Which::Memory).await;
    let sqlite = Place::new(Which::Sqlite).await;
    for together in ops {
        let dark = together.first().is_some_and(|op| op.dark);
        let appends: Vec<Append> = together.iter().map(|op| append_of(&Op { dark, ..op.clone() })).collect();
        let mut expected = Vec::new();
        for append in appends.clone() {
            expected.push(memory.store.append(append).await);
        }
        let given = futures_util::future::join_all(appends.into_iter().map(|a| sqlite.store.append(a))).await;
        assert_eq!(given, expected);
        for key in together.iter().filter_map(|op| op.legacy_try) {
            memory.store.note_legacy_tries(vec![RetryKey([key; 32])]).await.unwrap();
            sqlite.store.note_legacy_tries(vec![RetryKey([key; 32])]).await.unwrap();
        }
    }
    assert_eq!(look(&sqlite.store).await, look(&memory.store).await);
    sqlite.store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_and_memory_agree(ops in proptest::collection::vec(proptest::collection::vec(op(), 1..8), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(both_agree(ops));
    }
}
