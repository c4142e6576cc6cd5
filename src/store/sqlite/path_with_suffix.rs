//! The paths of the files that belong to a database, such as its log (`-wal`).

use std::path::{Path, PathBuf};

/// The path with a suffix at the end of the file's name.
pub(super) fn path_with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
