//! The default directory of the file of retry keys, for a store that is not a file.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use super::key_file::KeyFileError;

/// The directory for the file if the settings name none and the store is not a file: `$STATE_DIRECTORY` of the service
/// manager, else a directory of this user among temporary files.
///
/// # Errors
/// It cannot be created, or belongs to another user.
pub fn default_dir() -> Result<PathBuf, KeyFileError> {
    if let Some(dir) = std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty()) {
        // The variable may name several directories, separated by colons; the first is used.
        let dir = dir.to_string_lossy().split(':').next().map(PathBuf::from).unwrap_or_default();
        return Ok(dir);
    }
    let user = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("pointsman-{user}"));
    let failed = |source| KeyFileError::Io { path: dir.clone(), what: "created", bytes: 0, source };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&dir).map_err(failed)?;
    if !found.is_dir() || found.uid() != user {
        return Err(failed(std::io::Error::other("it is not a directory of this user")));
    }
    Ok(dir)
}
