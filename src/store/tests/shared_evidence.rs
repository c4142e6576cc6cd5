//! Evidence that several processes add to.

use super::*;
use crate::store::{EvidenceRecord, EvidenceReplacement, EvidenceVersion};

/// Of two processes that read the same row, one replaces it; the other one has to read it again.
#[tokio::test]
async fn a_row_of_evidence_is_replaced_only_if_it_is_the_one_that_was_read() {
    let of = |route: &str, pairs: u64| EvidenceRecord {
        route: route.into(),
        at: at(1),
        value: json!({ "pairs": pairs, "rate": 0.1 }),
    };
    let put = |record: EvidenceRecord, instead_of: Option<EvidenceVersion>| EvidenceReplacement { record, instead_of };
    let memory = MemoryStore::new();
    memory.set_shared();
    let postgres = match StoreKind::Postgres.is_installed() {
        true => Some(StoreFixture::new(StoreKind::Postgres).await),
        false => None,
    };
    let stores = [Some(Arc::new(memory) as StoreHandle), postgres.as_ref().map(|fixture| fixture.store.clone())];
    for store in stores.into_iter().flatten() {
        let shared = store.shared_evidence().expect("a shared store");
        let stored = shared.replace_evidence(vec![put(of("b", 1), None), put(of("a", 2), None)]).await.unwrap();
        let version = |route: &str| stored.iter().find(|(of, _)| of.as_str() == route).unwrap().1.clone();
        assert_eq!(stored.len(), 2);
        assert_eq!(shared.changed_evidence(stored.clone()).await.unwrap(), []);
        // The row is there already.
        assert_eq!(shared.replace_evidence(vec![put(of("a", 9), None)]).await.unwrap(), []);
        let changes = vec![put(of("a", 3), Some(version("a"))), put(of("b", 4), Some(version("a")))];
        let replaced = shared.replace_evidence(changes).await.unwrap();
        assert_eq!(replaced.iter().map(|(route, _)| route.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(shared.replace_evidence(vec![put(of("a", 5), Some(version("a")))]).await.unwrap(), []);
        assert_eq!(shared.changed_evidence(stored.clone()).await.unwrap(), [(of("a", 3), replaced[0].1.clone())]);
        // What an earlier version of the program writes is seen too.
        store.put_evidence(vec![of("a", 6)]).await.unwrap();
        let known = vec![replaced[0].clone(), ("b".into(), version("b"))];
        let found = shared.changed_evidence(known).await.unwrap();
        assert_eq!(found.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>(), [of("a", 6)]);
    }
    if let Some(postgres) = postgres {
        // 8 writers, each of which adds 25 to the sum of two rows.
        let store = postgres.store.clone();
        let add = async |store: &StoreHandle| {
            let shared = store.shared_evidence().expect("a shared store");
            for _ in 0..25 {
                loop {
                    let found = shared.changed_evidence(Vec::new()).await.unwrap();
                    let more = |(record, version): (EvidenceRecord, EvidenceVersion)| {
                        let pairs = record.value["pairs"].as_u64().unwrap() + 1;
                        put(of(record.route.as_str(), pairs), Some(version))
                    };
                    let rows: Vec<_> = found.into_iter().filter(|(of, _)| of.route.as_str() == "b").map(more).collect();
                    if shared.replace_evidence(rows).await.unwrap().len() == 1 {
                        break;
                    }
                }
            }
        };
        futures_util::future::join_all((0..8).map(|_| add(&store))).await;
        let evidence = store.evidence().await.unwrap();
        assert_eq!(evidence[1], of("b", 1 + 8 * 25));
        postgres.store.close().await;
    }
}
