//! A directory of flag files for one test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::{CheckFailed, Loaded, Overrides, read};

pub(super) const POINTSMAN: &str = "\
listen: 127.0.0.1:8080
admin: { listen: 127.0.0.1:8081 }
services:
  shop: http://127.0.0.1:9000
  bank: { urls: [http://127.0.0.1:9102], keyed: true }
default_legacy: shop
store: memory
";

pub(super) const ROUTES: &str = "\
routes:
  - id: orders.create
    match: { method: POST, path: /orders }
    legacy: shop
    workflow: create-order
    state: shadow
    percent: 50
    retry_key: ${request.headers[\"x-request\"]}
    compare:
      ignore: [$.created_at]
      assert: [ '${intents.charge.body.amount == legacy.body.total}' ]
    paths: strict
";

pub(super) const WORKFLOW: &str = "\
workflow: create-order
steps:
  charge:
    call: POST ${services.bank}/charges
    body: { amount: '${request.body.total}' }
    rehearse: { id: '${legacy.body.id}' }
respond:
  status: 201
  body: { id: '${steps.charge.output.id}' }
";

/// A valid set in its own directory.
pub(in crate::config) struct Set {
    home: TempDir,
}

impl Set {
    pub fn valid() -> Self {
        let set = Set { home: tempfile::tempdir().expect("a directory") };
        set.put("pointsman.yaml", POINTSMAN)
            .put("routes/orders.yaml", ROUTES)
            .put("workflows/create-order.yaml", WORKFLOW)
    }
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("flags")
    }
    pub fn put(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        write(&self.dir().join(name), text);
        self
    }
    /// Replaces a text that the file must contain.
    pub fn edit(self, name: &str, from: &str, to: &str) -> Self {
        let path = self.dir().join(name);
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.contains(from), "{name} has no `{from}`");
        self.put(name, text.replacen(from, to, 1))
    }
    pub fn remove(self, name: &str) -> Self {
        std::fs::remove_file(self.dir().join(name)).expect("removed");
        self
    }
    pub fn read(&self) -> Result<Loaded, CheckFailed> {
        read(&self.dir(), &Overrides::default())
    }
    /// The rendered findings, with `flags` instead of the directory.
    pub fn shown(&self) -> String {
        let text = match self.read() {
            Ok(loaded) => loaded.warnings.render(false),
            Err(failed) => failed.render(false),
        };
        text.replace(&self.dir().display().to_string(), "flags")
    }
}

pub(super) fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("written");
}
