//! Processes of an older version on a database whose tables a newer one has upgraded.

use super::*;
use crate::store::Store as _;

/// A process of the version before would not recognise a retry of a request that a newer process took.
#[tokio::test]
async fn processes_of_the_version_before_the_digests_changed_are_refused() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let url = Secret::new(database.url());
    PostgresStore::create_older_tables(&url, 10).await;
    database.query("INSERT INTO pointsman.workers VALUES ('\\x01', 'the older one', now() + interval '1 hour')");
    let limits = Limits { lease_ms: 100, ..Limits::default() };
    let refused = PostgresStore::open(&url, None, &limits).await.err().unwrap().0;
    assert!(refused.contains("still use (the older one)"), "{refused}");
    database.query("DELETE FROM pointsman.workers");
    let store = PostgresStore::open(&url, None, &limits).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    let parameters = "SELECT pg_get_function_identity_arguments(oid) FROM pg_proc WHERE proname = 'append_batch' AND \
                      pronargs = 53";
    let parameters = database.query(parameters);
    let nulls: Vec<String> = parameters
        .split(',')
        .filter_map(|parameter| Some(format!("NULL::{}", parameter.trim().split_once(' ')?.1)))
        .collect();
    assert_eq!(nulls.len(), 53, "{parameters}");
    // An older process that comes back is told so.
    let append = format!("PERFORM append_batch({})", nulls.join(", "));
    database.query(&format!(
        "SET search_path = pointsman; DO $$ BEGIN {append}; RAISE EXCEPTION 'it was taken'; \
         EXCEPTION WHEN SQLSTATE 'PM002' THEN NULL; END $$"
    ));
}
