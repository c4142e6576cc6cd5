//! A directory of flag files of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What the gates require in tests that move routes: a few pairs and answers.
pub const PROMOTE: &str = "promote: { pairs: 20, mismatch_below: 100%, coverage_at_least: 0%, strata_at_least: 0, \
                           effects_compared: false, errors_not_worse_by: 10%, answers: 50, window: 0s }\n";

/// The same, and every shared step has to be compared.
pub const PROMOTE_WITH_EFFECTS: &str = "promote: { pairs: 20, mismatch_below: 100%, coverage_at_least: 0%, \
                                        strata_at_least: 0, errors_not_worse_by: 10%, answers: 50, window: 0s }\n";

/// A directory of flag files, gone with the value.
pub struct FlagsDir {
    dir: TempDir,
}

impl FlagsDir {
    /// The project's own example set, with the addresses of this test's services.
    pub fn example(legacy: &str, world: &str) -> Self {
        let flags = Self::empty();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("flags");
        copy(&source, flags.path());
        flags.edit("pointsman.yaml", |text| {
            let (before, rest) = text.split_once("promote:\n").expect("the gates' settings");
            let (_, after) = rest.split_once("\n\n").expect("an empty line behind them");
            let text = format!("{before}{PROMOTE}{after}");
            text.replace("http://127.0.0.1:9000", legacy).replace("http://127.0.0.1:9100", world)
        });
        flags
    }
    /// A copy.
    pub fn copy(&self) -> Self {
        let flags = Self::empty();
        copy(self.path(), flags.path());
        flags
    }
    /// An empty directory.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in ["routes", "workflows"] {
            fs::create_dir(dir.path().join(part)).expect("a directory");
        }
        Self { dir }
    }
    /// One legacy and no routes: every request is forwarded to it.
    pub fn passthrough(legacy: &str) -> Self {
        let flags = Self::empty();
        flags.write("pointsman.yaml", &format!("services:\n  shop: {legacy}\ndefault_legacy: shop\n"));
        flags
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Writes a file as an editor does: a new one, renamed over the old.
    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.path().join(".writing");
        fs::write(&temporary, text).expect("a written file");
        fs::rename(&temporary, self.file(name)).expect("a renamed file");
    }
    /// Changes a file.
    pub fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.file(name)).expect("a readable file");
        self.write(name, &change(text));
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a readable directory") {
        let entry = entry.expect("a readable directory");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copied file");
        }
    }
}
