//! Gives the binary a hash of the sources on which folding (computing a run from its events) depends. A binary uses a
//! snapshot of a run only if a binary with the same hash wrote it. All of `workflow` is hashed, and the types of other
//! modules that a run consists of. If a change does not affect folding, each long run is read once from its first
//! event; if a relevant change were missed, runs would be loaded wrongly.

use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let type_files = ["src/names.rs", "src/expression/shared_json.rs", "src/expression/step_results.rs"];
    let mut files = type_files.map(PathBuf::from).to_vec();
    add_sources(Path::new("src/workflow"), &mut files)?;
    files.sort();
    let mut hash = FNV_OFFSET;
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let text = fs::read(&file)?;
        for part in [name.as_bytes(), &text] {
            hash = fnv(fnv(hash, &part.len().to_le_bytes()), part);
        }
    }
    println!("cargo:rerun-if-changed=src/build.rs");
    type_files.iter().for_each(|file| println!("cargo:rerun-if-changed={file}"));
    println!("cargo:rerun-if-changed=src/workflow");
    println!("cargo:rustc-env=POINTSMAN_FOLD={hash:032x}");
    Ok(())
}

/// Adds the sources in a folder and in the folders below it, except tests.
fn add_sources(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("tests") || path.ends_with("tests.rs") || path.ends_with("testing.rs") {
            continue;
        }
        match path.is_dir() {
            true => add_sources(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The hash FNV-1a. A cryptographic hash is not needed, since the sources are not hostile.
fn fnv(hash: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME))
}
