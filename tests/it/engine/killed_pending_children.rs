//! kill -9 between the append of a parent that decides on a child, and the first event of that child.

use http::Method;
use rusqlite::Connection;
use serde_json::json;

use super::child_effects::child_of;
use super::{EngineTest, RUN, id, path};
use crate::support::strace::Strace;
use crate::support::{until, until_true};

const PARENT: &str = "
workflow: parent
steps:
  before: { call: 'POST ${services.works}/befores' }
  child: { needs: [before], run: kid }
  after: { needs: [child], call: 'POST ${services.works}/afters' }
respond: { status: 200, body: done }
";

const KID: &str = "
workflow: kid
steps:
  letter: { call: 'POST ${services.works}/letters' }
respond: { status: 200, body: sent }
";

/// The last call of the parent.
const LAST: &str = "POST /afters";

/// The most syncs of one thread that come before the child's first event.
const SYNCS_MAX: usize = 40;

/// The number of pending runs (table `births`) in the store of a killed process that have no event, and whose parent
/// has some.
fn pending_runs(test: &EngineTest) -> i64 {
    let store = Connection::open(test.dir.path().join("pointsman.db")).expect("it opens");
    let text = "SELECT count(*) FROM births WHERE run_id NOT IN (SELECT run_id FROM runs) \
                AND parent IN (SELECT run_id FROM appends)";
    store.query_row(text, [], |row| row.get(0)).expect("it is read")
}

/// The process is killed when one of its threads syncs a file for the n-th time, for each n, until a kill leaves the
/// child pending.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_a_kill_left_pending_begins_once_in_the_next_process() {
    let mut test = EngineTest::with(&[PARENT, KID]).await;
    for n in 1..=SYNCS_MAX {
        let fault = format!("signal=SIGKILL:when={n}");
        let strace = Strace::inject(test.pointsman.pid(), "fsync,fdatasync", &fault).await;
        let request = json!({ "workflow": "parent", "input": {}, "idempotency_key": format!("key-{n}") });
        let url = format!("{}{RUN}", test.pointsman.admin_url());
        // The process may be killed before it answers.
        let _answer = test.client.json(Method::POST, &url, &[("prefer", "respond-async")], &request).await;
        let is_killed = || test.pointsman.is_gone();
        until_true("the kill, or the run's last call", || is_killed() || test.step_service.effects(LAST) == n).await;
        assert!(is_killed(), "the run was not killed at sync {n}, and no kill before left its child pending");
        strace.end().await;
        test.kill().await;
        let pending = pending_runs(&test);
        test.restart().await;
        // The same key: this starts the run only if the kill came before the run's first event.
        let envelope = until("the start to be taken", || async {
            let (status, envelope) = test.post(RUN, request.clone()).await;
            matches!(status, 200 | 202).then_some(envelope)
        });
        let run = path(&envelope.await["data"]);
        test.wait_for_status(&run, "completed").await;
        assert_eq!((test.step_service.effects("POST /letters"), test.step_service.effects(LAST)), (n, n));
        let children = test.pointsman.get(&format!("/api/v2/orchestrate/runs?parent={}", id(&run))).await;
        let children = children["runs"].as_array().expect("a list").iter().map(|run| run["run_id"].clone());
        assert_eq!(children.collect::<Vec<_>>(), [id(&child_of(&test, &run).await)], "it began once");
        if pending > 0 {
            return test.finish().await;
        }
    }
    panic!("no kill left the child pending");
}
