//! Gives the binary a hash of the sources on which folding depends: a snapshot of a run is used only by binaries that
//! fold events as the one that wrote it. All of `workflow` is hashed: a change that does not affect folding costs one
//! longer read of each long run, while a change that was missed would give a wrong run.

use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let mut files = vec![PathBuf::from("src/names.rs")];
    find(Path::new("src/workflow"), &mut files)?;
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
    println!("cargo:rerun-if-changed=src/names.rs");
    println!("cargo:rerun-if-changed=src/workflow");
    println!("cargo:rustc-env=POINTSMAN_FOLD={hash:032x}");
    Ok(())
}

/// The sources in a folder and in those below it, but for tests.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("tests") || path.ends_with("tests.rs") || path.ends_with("testing.rs") {
            continue;
        }
        match path.is_dir() {
            true => find(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// FNV-1a. A cryptographic hash is not needed: the sources are not hostile.
fn fnv(hash: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME))
}
