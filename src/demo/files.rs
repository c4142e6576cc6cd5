//! The example set of flag files, compiled into the binary.
//!
//! The question it answers: "which files does the demo run?" The files of the project's directory `flags/`, with two
//! differences: the addresses of the sample services, and `workflows/create-order.yaml`, whose first version, with two
//! defects, is written first and replaced by [`correct`].

use std::io;
use std::path::Path;

const FILES: [(&str, &str); 8] = [
    ("pointsman.yaml", include_str!("../../flags/pointsman.yaml")),
    ("routes/orders.yaml", include_str!("../../flags/routes/orders.yaml")),
    ("routes/campaigns.yaml", include_str!("../../flags/routes/campaigns.yaml")),
    ("workflows/create-order.yaml", CORRECTED),
    ("workflows/get-order.yaml", include_str!("../../flags/workflows/get-order.yaml")),
    ("workflows/cancel-order.yaml", include_str!("../../flags/workflows/cancel-order.yaml")),
    ("workflows/create-campaign.yaml", include_str!("../../flags/workflows/create-campaign.yaml")),
    ("workflows/launch-campaign.yaml", include_str!("../../flags/workflows/launch-campaign.yaml")),
];
const CORRECTED: &str = include_str!("../../flags/workflows/create-order.yaml");
const AS_FIRST_WRITTEN: &str = include_str!("create-order-first.yaml");

/// The address of the sample legacy in the flag files; the demo uses this port if it is free.
pub const LEGACY_URL: &str = "http://127.0.0.1:9000";
/// The address of the outside world in the flag files; the demo uses this port if it is free.
pub const WORLD_URL: &str = "http://127.0.0.1:9100";

/// Writes the set with the first version of the workflow and the addresses of these services.
///
/// # Errors
/// The directory cannot be written.
pub fn write(dir: &Path, legacy: &str, world: &str) -> io::Result<()> {
    for (name, text) in FILES {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text.replace(LEGACY_URL, legacy).replace(WORLD_URL, world))?;
    }
    replace(dir, AS_FIRST_WRITTEN)
}

/// Puts the corrected workflow in place, as an editor does: a new file, renamed over the old one.
///
/// # Errors
/// The directory cannot be written.
pub fn correct(dir: &Path) -> io::Result<()> {
    replace(dir, CORRECTED)
}

fn replace(dir: &Path, text: &str) -> io::Result<()> {
    let written = dir.join("workflows/.create-order.yaml.new");
    std::fs::write(&written, text)?;
    std::fs::rename(written, dir.join("workflows/create-order.yaml"))
}

/// The changed lines between the first and the corrected version, each with its sign as in a unified diff.
pub fn diff_of_versions() -> Vec<String> {
    similar::TextDiff::from_lines(AS_FIRST_WRITTEN, CORRECTED)
        .iter_all_changes()
        .filter(|change| change.tag() != similar::ChangeTag::Equal)
        .map(|change| format!("{} {}", change.tag(), change.value().trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_differs_and_is_corrected() {
        let dir = std::env::temp_dir().join(format!("pointsman-files-{}", std::process::id()));
        write(&dir, "http://127.0.0.1:1", "http://127.0.0.1:2").expect("written");
        let workflow = dir.join("workflows/create-order.yaml");
        assert_eq!(std::fs::read_to_string(&workflow).expect("there"), AS_FIRST_WRITTEN);
        correct(&dir).expect("written");
        assert_eq!(std::fs::read_to_string(&workflow).expect("there"), CORRECTED);
        let settings = std::fs::read_to_string(dir.join("pointsman.yaml")).expect("there");
        assert!(settings.contains("http://127.0.0.1:2/bank") && !settings.contains(WORLD_URL));
        std::fs::remove_dir_all(dir).ok();
        assert!(diff_of_versions().len() >= 4);
    }

    #[test]
    fn every_file_of_the_example_set_is_in_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("flags");
        let mut found = 1;
        for part in ["routes", "workflows"] {
            found += std::fs::read_dir(root.join(part)).expect("there").count();
        }
        assert_eq!(found, FILES.len());
    }
}
