//! The flag files of a simulation.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::config::{self, Overrides, Setup};
use crate::flag::{Promote, Route};
use crate::limits::Limits;

const SETTINGS: &str = "services:
  shop: http://127.0.0.1:9
  bank: { urls: ['http://127.0.0.1:10'], keyed: true }
default_legacy: shop
";

const WORKFLOW: &str = "workflow: pay
steps:
  charge:
    call: POST ${services.bank}/charge
    body: { k: '${request.query.k}' }
    timeout: 2s
    retry: { attempts: 4, base: 50ms, max: 500ms }
    rehearse: {}
respond: { status: 200, body: { by: engine } }
";

const ROUTES: &str = "routes:
- { id: pay, match: { method: POST, path: /pay }, legacy: shop, workflow: pay, deadline: 3s, key: '${request.query.k}' }
- { id: ship, match: { method: POST, path: /ship }, legacy: shop, workflow: pay, deadline: 3s, key: '${request.query.k}' }
";

/// The files, in which no gate wants more evidence than a few equal pairs.
pub(super) fn files(lease_ms: u64) -> Setup {
    static FILES: LazyLock<Setup> = LazyLock::new(read);
    let limits = Limits {
        lease_ms,
        sweep_ms: 1_000,
        command_wait_ms: 5_000,
        move_answer_ms: 5_000,
        drain_ms: 4_000,
        shadow_drain_ms: 500,
        shadow_threads: 1,
        retry_keys_file_bytes_max: 65_536,
        run_snapshot_bytes_max: 0,
        ..Limits::default()
    };
    Setup { limits: Arc::new(limits), ..FILES.clone() }
}

fn read() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("pointsman.yaml", SETTINGS), ("workflows/pay.yaml", WORKFLOW), ("routes/shop.yaml", ROUTES)] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let loaded = config::read(dir.path(), &Overrides::default());
    let mut setup = loaded.unwrap_or_else(|failed| panic!("{}", failed.render(false))).setup;
    for route in &mut setup.routes {
        let promote = Promote {
            pairs: 5,
            mismatch_below: 1.0,
            coverage_at_least: 0.0,
            strata_at_least: 0,
            effects_compared: false,
            errors_not_worse_by: 1.0,
            answers: 0,
            window: Duration::ZERO,
            age_at_most: Duration::from_secs(30 * 86_400),
            ..Promote::default()
        };
        *route = Arc::new(Route { promote, ..Route::clone(route) });
    }
    setup
}
