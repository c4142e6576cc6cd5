//! Rows of the flips, of the record and of what is kept of each route that were changed by other programs: they
//! are named, and none is taken for another.

use super::*;
use crate::store::{ChainHead, DeclaredState, EvidenceRecord, FlipRecord, PutFlips, RecordEntry, StoreError};

on_every_store! {
    a_flip_whose_row_contradicts_itself_is_named,
    an_entry_that_cannot_be_read_is_named,
    a_record_without_its_newest_entry_is_named,
    what_is_kept_of_a_route_is_not_taken_for_another_routes,
}

fn flip(route: &str) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: Some(route.into()),
        from: "off".into(),
        to: "shadow".into(),
        shares: None,
        by: "ada".into(),
        at: at(1),
        reason: None,
        forced: false,
        overridden: None,
        evidence: json!({}),
        gates: Vec::new(),
        guard: None,
        candidate: None,
    }
}

fn text<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    result.unwrap_err().0
}

/// What a check of the whole store finds.
async fn findings(fixture: &StoreFixture) -> Vec<String> {
    let checked = match &fixture.storage {
        Storage::Memory => return Vec::new(),
        Storage::Folder(dir) => SqliteStore::check(dir.path().join("test.db"), Default::default()).await.unwrap(),
        Storage::Database(database) => {
            PostgresStore::check(&Secret::new(database.url()), None, &Limits::default()).await.unwrap().0
        }
    };
    checked.findings.into_iter().map(|finding| finding.what).collect()
}

/// Flips of `a`, `b`, `a` and `b`, changed by this statement; `None` for the memory store, which has no rows.
async fn with_flips(which: StoreKind, change: &str) -> Option<StoreFixture> {
    let fixture = StoreFixture::new(which).await;
    let flips = ["a", "b", "a", "b"].map(flip).to_vec();
    fixture.store.put_flips(PutFlips { flips, declared: None, after: 0, ..PutFlips::default() }).await.unwrap();
    assert_eq!(fixture.store.last_flips().await.unwrap().len(), 2);
    fixture.edit(change).await.then_some(fixture)
}

async fn a_flip_whose_row_contradicts_itself_is_named(which: StoreKind) {
    let twice = r#"UPDATE flips SET record = '{"route":"a","route":"b"}' WHERE number = 2"#;
    let cases = [
        ("UPDATE flips SET route = 'b' WHERE number = 3", 3, "its column `route` is `b` and its content says `a`"),
        ("UPDATE flips SET route = NULL WHERE number = 1", 1, "its column `route` is empty and its content says `a`"),
        ("UPDATE flips SET number = 0 WHERE number = 1", 0, "numbers begin with 1"),
        ("UPDATE flips SET number = -7 WHERE number = 1", -7, "numbers begin with 1"),
        ("UPDATE flips SET record = '' WHERE number = 2", 2, "EOF"),
        (twice, 2, "duplicate field `route`"),
    ];
    for (change, number, why) in cases {
        let Some(fixture) = with_flips(which, change).await else { return };
        let store = &fixture.store;
        // No route gets the state of the flip before.
        let last = text(store.last_flips().await);
        assert!(last.contains(&format!("flip {number} in the store cannot be read")) && last.contains(why), "{last}");
        assert_eq!(text(store.flips_after(0, 9).await), last);
        assert_eq!(text(store.flips(None, 9).await), last);
        let rows = store.flip_rows(0, 9).await.unwrap();
        let bad: Vec<_> = rows.iter().filter_map(|row| row.as_ref().err()).collect();
        assert!(rows.len() == 4 && bad.len() == 1 && bad[0].number == number && bad[0].why.contains(why), "{rows:?}");
        assert_eq!(findings(&fixture).await, [last], "{change}");
    }
    let Some(fixture) = with_flips(which, "UPDATE flips SET route = 'b' WHERE number = 3").await else { return };
    assert!(text(fixture.store.flips(Some("b".into()), 9).await).contains("flip 3"), "it is not shown as one of `b`");
    if which == StoreKind::Sqlite {
        // In PostgreSQL the number is in the column alone.
        let fixture = with_flips(which, "UPDATE flips SET number = 9 WHERE number = 4").await.unwrap();
        assert!(
            text(fixture.store.last_flips().await).contains("flip 9 in the store cannot be read: its column `number`")
        );
    }
}

async fn an_entry_that_cannot_be_read_is_named(which: StoreKind) {
    let entry = |number: u64| RecordEntry {
        number,
        at: at(1),
        kind: "flip".into(),
        route: None,
        source: format!("flip {number}"),
        flips: number,
        body: json!({ "to": "off" }),
        previous: String::new(),
        is_noted: false,
        hash: format!("h{number}"),
    };
    let written = serde_json::to_string(&entry(2)).unwrap();
    let put = |text: String| format!("UPDATE record_entries SET record = '{text}' WHERE number = 2");
    let added_key = &*put(written.replacen('{', r#"{"note":"x","#, 1));
    let twice = &*put(written.replace(r#"{"to":"#, r#"{"to":"only","to":"#));
    // As a version with further fields writes it.
    let covered = |more: &str| {
        let content = written.replacen(r#","hash":"h2"}"#, more, 1);
        let hash = blake3::hash(format!("{content}}}").as_bytes()).to_hex();
        put(format!(r#"{content},"hash":"{hash}"}}"#))
    };
    let newer = &*covered(r#","weight":3"#);
    let changed_since = &*newer.replace("weight\":3", "weight\":4");
    let covered_twice = &*covered(r#","flips":3"#);
    let cases = [
        ("UPDATE record_entries SET source = 'flip 7' WHERE number = 2", 2, "its column `source` is `flip 7`"),
        ("UPDATE record_entries SET number = 9 WHERE number = 3", 9, "its column `number` is `9`"),
        ("UPDATE record_entries SET number = 0 WHERE number = 1", 0, "numbers begin with 1"),
        ("UPDATE record_entries SET record = '' WHERE number = 3", 3, "EOF"),
        (added_key, 2, "it is not exactly as pointsman writes it"),
        (twice, 2, "it is not exactly as pointsman writes it"),
        (newer, 2, "a newer version of pointsman seems to have written it: it has `weight`"),
        (changed_since, 2, "it is not exactly as pointsman writes it"),
        (covered_twice, 2, "duplicate field `flips`"),
        (
            r#"UPDATE record_entries SET record = '{"kind":"a","kind":"b"}' WHERE number = 2"#,
            2,
            "duplicate field `kind`",
        ),
    ];
    for (change, number, why) in cases {
        let fixture = StoreFixture::new(which).await;
        for number in 1..=3 {
            fixture.store.put_record_entry(entry(number)).await.unwrap();
        }
        if !fixture.edit(change).await {
            return;
        }
        let found = text(fixture.store.record_entries(0, 9).await);
        assert!(
            found.contains(&format!("entry {number} of the record cannot be read")) && found.contains(why),
            "{found}"
        );
        let rows = fixture.store.record_rows(0, 9).await.unwrap();
        assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 2, "{rows:?}");
        let newest = fixture.store.newest_record_row().await.unwrap().unwrap();
        assert_eq!(newest.is_err(), number >= 3, "{newest:?}");
        assert_eq!(findings(&fixture).await, [found]);
    }
}

async fn a_record_without_its_newest_entry_is_named(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let entry = |number: u64| RecordEntry {
        number,
        at: at(1),
        kind: "refused".into(),
        route: None,
        source: format!("refused {number}"),
        flips: 0,
        body: json!({}),
        previous: String::new(),
        is_noted: number > 1,
        hash: format!("h{number}"),
    };
    let store = &fixture.store;
    assert_eq!(store.chain_head().await.unwrap(), None);
    for number in [1, 2, 3, 3] {
        store.put_record_entry(entry(number)).await.unwrap();
    }
    // One that is not added is not noted.
    store.put_record_entry(RecordEntry { hash: "other".into(), ..entry(3) }).await.unwrap();
    let head = ChainHead { number: 3, hash: "h3".into() };
    assert_eq!(store.chain_head().await.unwrap().as_ref(), Some(&head));
    assert_eq!(findings(&fixture).await, [""; 0]);
    for change in ["DELETE FROM record_entries WHERE number = 3", "DELETE FROM record_entries"] {
        if !fixture.edit(change).await {
            return;
        }
        assert_eq!(fixture.store.chain_head().await.unwrap().as_ref(), Some(&head), "{change}");
        let found = findings(&fixture).await;
        assert!(found.len() == 1 && found[0].contains("entry 3 of the record, which the store notes"), "{found:?}");
    }
    assert!(fixture.edit("DELETE FROM meta WHERE key = 'record_head'").await);
    assert_eq!(findings(&fixture).await, [""; 0], "as a store of an earlier version");
    for number in [1, 2] {
        store.put_record_entry(entry(number)).await.unwrap();
    }
    assert!(fixture.edit("DELETE FROM meta WHERE key = 'record_head'").await);
    let found = findings(&fixture).await;
    assert!(found.len() == 1 && found[0].contains("and had one when entry 2 was added"), "{found:?}");
    store.put_record_entry(entry(3)).await.unwrap();
    assert!(fixture.edit("UPDATE meta SET value = 'x' WHERE key = 'record_head'").await);
    let found = text(fixture.store.chain_head().await);
    assert!(found.contains("the row `record_head` of the table `meta` cannot be read"), "{found}");
    assert_eq!(findings(&fixture).await, [found]);
}

async fn what_is_kept_of_a_route_is_not_taken_for_another_routes(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let declared = Some(vec![DeclaredState {
        route: "a".into(),
        file: None,
        retry: None,
        follows: None,
        live: None,
        in_force: None,
        evidence_from: None,
        forced: None,
        promote: None,
        is_absent: false,
        earlier_ids: Vec::new(),
    }]);
    fixture.store.put_flips(PutFlips { flips: Vec::new(), declared, after: 0, ..PutFlips::default() }).await.unwrap();
    let evidence = EvidenceRecord { route: "a".into(), at: at(1), value: json!({ "pairs": 1 }) };
    fixture.store.put_evidence(vec![evidence]).await.unwrap();
    for table in ["declared", "evidence"] {
        if !fixture.edit(&format!("UPDATE {table} SET route = 'b'")).await {
            return;
        }
    }
    let found = [text(fixture.store.declared().await), text(fixture.store.evidence().await)];
    for (found, table) in found.iter().zip(["declared", "evidence"]) {
        assert!(found.contains(&format!("the row of `b` in `{table}` cannot be read: its column `route`")), "{found}");
    }
    assert_eq!(findings(&fixture).await, found);
}
