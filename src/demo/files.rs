//! The example set of flag files, compiled into the binary.
//!
//! The question it answers: "which files does the demo run?" The files of the project's directory `flags/`, with these
//! differences ([`CHANGES`]): the addresses of the sample services; an egress listener, through which the sample legacy
//! makes its calls, with steps that are rehearsed from these calls; captures, a guard and the adoption of legacy's
//! orders; and `workflows/create-order.yaml`, whose first version, with a defect that no reply shows, is written first
//! and replaced by [`correct`].

use std::io;
use std::net::SocketAddr;
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
const ADOPTING: &str = include_str!("adopt-order.yaml");
const AS_FIRST_WRITTEN: &str = include_str!("create-order-first.yaml");

/// The address of the sample legacy in the flag files; the demo uses this port if it is free.
pub const LEGACY_URL: &str = "http://127.0.0.1:9000";
/// The address of the outside world in the flag files; the demo uses this port if it is free.
pub const WORLD_URL: &str = "http://127.0.0.1:9100";

/// What the demo changes in the files: legacy's own calls replace outputs that are declared by hand, and the `assert`
/// about the charge; the last four add the egress listener, captures with adoption, and a guard.
const CHANGES: [(&str, &str); 7] = [
    ("    rehearse: { id: \"${legacy.body.payment_id}\" }\n", "    rehearse: legacy\n"),
    (
        "    rehearse: { id: \"${legacy.body.reservations[index].id}\", sku: \"${item.sku}\", qty: \"${item.qty}\" }\n",
        "    rehearse: legacy\n",
    ),
    ("    rehearse: { id: \"${legacy.body.refund_id}\" }\n", "    rehearse: legacy\n"),
    ("      assert: [\"${intents.charge.body.amount == legacy.body.total}\"]\n", ""),
    (
        "default_legacy: shop",
        "egress: { listen: EGRESS, window: 300ms } # legacy's own calls go through it\ndefault_legacy: shop",
    ),
    (
        "    instance: { creates: $.id }\n",
        "    instance: { creates: $.id, adopt: { workflow: adopt-order, settles: 2s } }\n    capture: 20%\n",
    ),
    ("    workflow: create-campaign\n", "    workflow: create-campaign\n    guard: { errors: 5% }\n"),
];

/// Writes the set with the first version of the workflow, the addresses of these services and that of the egress
/// listener.
///
/// # Errors
/// The directory cannot be written.
pub fn write(dir: &Path, legacy: &str, world: &str, egress: SocketAddr) -> io::Result<()> {
    for (name, text) in FILES.into_iter().chain([("workflows/adopt-order.yaml", ADOPTING)]) {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = changed(text).replace("EGRESS", &egress.to_string());
        std::fs::write(&path, text.replace(LEGACY_URL, legacy).replace(WORLD_URL, world))?;
    }
    put_first_version(dir)
}

fn changed(text: &str) -> String {
    CHANGES.iter().fold(text.to_owned(), |text, (written, instead)| text.replace(written, instead))
}

/// Puts the corrected workflow in place, as an editor does: a new file, renamed over the old one.
///
/// # Errors
/// The directory cannot be written.
pub fn correct(dir: &Path) -> io::Result<()> {
    replace(dir, &changed(CORRECTED))
}

/// Puts the first version of the workflow, with its defect, in place.
///
/// # Errors
/// The directory cannot be written.
pub fn put_first_version(dir: &Path) -> io::Result<()> {
    replace(dir, &changed(AS_FIRST_WRITTEN))
}

/// Copies a set to another directory, with the first version of the workflow.
///
/// # Errors
/// A directory cannot be read or written.
pub fn copy_with_first_version(from: &Path, to: &Path) -> io::Result<()> {
    for part in ["", "routes", "workflows"] {
        std::fs::create_dir_all(to.join(part))?;
        for entry in std::fs::read_dir(from.join(part))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(part).join(entry.file_name()))?;
            }
        }
    }
    put_first_version(to)
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
        let egress = "127.0.0.1:3".parse().expect("an address");
        write(&dir, "http://127.0.0.1:1", "http://127.0.0.1:2", egress).expect("written");
        let workflow = dir.join("workflows/create-order.yaml");
        assert_eq!(std::fs::read_to_string(&workflow).expect("there"), changed(AS_FIRST_WRITTEN));
        correct(&dir).expect("written");
        assert_eq!(std::fs::read_to_string(&workflow).expect("there"), changed(CORRECTED));
        let settings = std::fs::read_to_string(dir.join("pointsman.yaml")).expect("there");
        assert!(settings.contains("http://127.0.0.1:2/bank") && !settings.contains(WORLD_URL));
        assert!(settings.contains("listen: 127.0.0.1:3"), "{settings}");
        let copy = dir.join("copy");
        copy_with_first_version(&dir, &copy).expect("copied");
        let copied = std::fs::read_to_string(copy.join("workflows/create-order.yaml")).expect("there");
        assert_eq!(copied, changed(AS_FIRST_WRITTEN));
        assert!(copy.join("workflows/adopt-order.yaml").exists() && copy.join("pointsman.yaml").exists());
        std::fs::remove_dir_all(dir).ok();
        assert_eq!(diff_of_versions().len(), 2);
    }

    #[test]
    fn what_is_changed_is_in_the_files() {
        for (written, _) in CHANGES {
            assert!(FILES.iter().any(|(_, text)| text.contains(written)), "{written}");
        }
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
