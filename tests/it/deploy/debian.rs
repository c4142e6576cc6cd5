//! The Debian package: made by cargo-deb from the binary under test, installed into a root of its own, and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{path, run, stdout};
use crate::support::process::BINARY;

/// A package, and a root directory without any other.
struct Package {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Package {
    /// Packs a copy of the binary under test without debug information.
    fn build() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let binary = dir.path().join("binary");
        stdout(Command::new("strip").arg("-o").arg(&binary).arg(BINARY));
        let cargo_deb =
            std::env::var("POINTSMAN_CARGO_DEB").expect("POINTSMAN_CARGO_DEB: tests/run installs cargo-deb");
        let before = std::env::var("PATH").expect("a PATH");
        let directory = Path::new(&cargo_deb).parent().expect("a directory").display().to_string();
        let made = stdout(
            Command::new(path("build-deb"))
                .arg(&binary)
                .args(["--fast", "--no-strip", "--offline", "--locked"])
                .env("CARGO_TARGET_DIR", dir.path().join("target"))
                .env("PATH", format!("{directory}:{before}")),
        );
        let file = PathBuf::from(made.lines().last().expect("the path of the package"));
        assert!(file.exists(), "{made}");
        Self { dir, file }
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
    /// dpkg on the root. The scripts of the package run outside of it and find it by DPKG_ROOT.
    fn dpkg(&self, arguments: &[&str]) -> (bool, String) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.root().display()));
        // What the package depends on is not in this root.
        dpkg.args(["--force-script-chrootless", "--force-depends", "--force-not-root"]).args(arguments);
        run(dpkg.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    }
    fn installed(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

/// The files and links below a directory.
fn files(dir: &Path) -> Vec<String> {
    let listed =
        stdout(Command::new("find").arg(dir).args(["(", "-type", "f", "-o", "-type", "l", ")", "-printf", "%P\\n"]));
    let mut files: Vec<String> = listed.lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// What the shell completes after `pointsman s`.
const COMPLETES: &str = r#"
source "$1"
COMP_WORDS=(pointsman s) COMP_CWORD=1
_pointsman pointsman s pointsman
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn the_package_is_installed_and_removed() {
    let package = Package::build();
    let about = stdout(Command::new("dpkg-deb").arg("--field").arg(&package.file));
    assert!(about.starts_with("Package: pointsman\n") && about.contains("\nDepends: libc6"), "{about}");
    let scripts = package.dir.path().join("scripts");
    stdout(Command::new("dpkg-deb").arg("--control").arg(&package.file).arg(&scripts));
    let after = fs::read_to_string(scripts.join("postinst")).expect("a script");
    assert!(after.contains("deb-systemd-helper") && !after.contains("restart"), "an upgrade restarts nothing: {after}");
    fs::create_dir_all(package.installed("var/lib/dpkg/updates")).expect("a directory");
    fs::create_dir_all(package.installed("var/lib/dpkg/info")).expect("a directory");
    fs::write(package.installed("var/lib/dpkg/status"), "").expect("written");
    let file = package.file.display().to_string();
    let (is_done, said) = package.dpkg(&["--install", &file]);
    assert!(is_done, "{said}");

    let version = stdout(Command::new(package.installed("usr/bin/pointsman")).arg("--version"));
    assert_eq!(version.trim(), format!("pointsman {}", env!("CARGO_PKG_VERSION")));
    // The units are those of deploy/systemd, and nothing is enabled or started.
    for unit in ["pointsman.service", "pointsman.socket"] {
        let there = ["usr/lib/systemd/system", "lib/systemd/system"].map(|dir| package.installed(dir).join(unit));
        let there =
            there.iter().find(|file| file.exists()).unwrap_or_else(|| panic!("{unit}: {:?}", files(&package.root())));
        let text = fs::read_to_string(there).expect("readable");
        assert_eq!(text, super::read(&format!("systemd/{unit}")));
    }
    let links = package.installed("etc/systemd/system");
    assert!(!links.exists() || files(&links).is_empty(), "{:?}", files(&links));
    // Completion and pages are such that their programs read them.
    stdout(Command::new("bash").arg("-n").arg(package.installed("usr/share/bash-completion/completions/pointsman")));
    let completed = stdout(
        Command::new("bash")
            .args(["-c", COMPLETES, "it"])
            .arg(package.installed("usr/share/bash-completion/completions/pointsman")),
    );
    assert!(
        completed.lines().any(|word| word == "serve") && completed.lines().any(|word| word == "status"),
        "{completed}"
    );
    for completion in
        ["usr/share/zsh/vendor-completions/_pointsman", "usr/share/fish/vendor_completions.d/pointsman.fish"]
    {
        assert!(
            fs::read_to_string(package.installed(completion)).expect("there").contains("pointsman"),
            "{completion}"
        );
    }
    let pages = files(&package.installed("usr/share/man/man1"));
    // Compressed, unless the package was made by `--fast`.
    let page = |name: &str| pages.iter().find(|page| page.trim_end_matches(".gz") == name);
    assert!(["pointsman.1", "pointsman-runs-list.1"].iter().all(|name| page(name).is_some()), "{pages:?}");
    let page = package.installed("usr/share/man/man1").join(page("pointsman-serve.1").expect("a page"));
    let page = stdout(Command::new("zcat").arg("--force").arg(page));
    assert!(page.contains(".SH SYNOPSIS") && page.contains("succeed"), "{page}");
    // The example passes the installed binary's check.
    let flags = package.installed("usr/share/doc/pointsman/examples/flags");
    let checked = run(Command::new(package.installed("usr/bin/pointsman")).arg("check").arg(&flags));
    assert!(checked.0, "{}", checked.1);

    let (is_done, said) = package.dpkg(&["--purge", "pointsman"]);
    assert!(is_done, "{said}");
    let left: Vec<_> = files(&package.root())
        .into_iter()
        .filter(|file| !file.starts_with("var/lib/dpkg/") && !file.starts_with("var/log/"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
