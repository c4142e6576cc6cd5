use sqlx::Row as _;

use super::*;

#[tokio::test]
async fn runs_that_are_going_are_found_by_their_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = crate::store::SqliteStore::open(&path, &crate::limits::Limits::default()).await.unwrap();
    crate::store::Store::close(&store).await;
    let mut text = String::from("EXPLAIN QUERY PLAN ");
    over(&mut text, CARRY, CARRY_VALUES, 64, ") AS given WHERE runs.run_id = given.column1");
    let options = super::super::connection::options(&path);
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(text).into_sql_str()).fetch_all(&mut conn).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(3)).collect();
    assert!(plan.iter().any(|line| line.starts_with("SEARCH runs USING") && line.contains("run_id=?")), "{plan:?}");
}
