//! The watcher sees renames and symlink swaps; an invalid set changes nothing; a burst is one change.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::set::{POINTSMAN, ROUTES, Set, WORKFLOW, write};
use crate::config::{FilesChange, FlagFileWatcher, Overrides, Reading, WatchTiming, read};
use crate::flag::State;

/// Polls so rarely that only an event can report a change within `WAIT`.
const BY_EVENT: WatchTiming = WatchTiming {
    quiet: Duration::from_millis(20),
    burst_max: Duration::from_millis(300),
    poll: Duration::from_secs(3_600),
};
const WAIT: Duration = Duration::from_secs(20);

struct Watched {
    watcher: FlagFileWatcher,
    changes: tokio::sync::mpsc::Receiver<Reading>,
}

impl Watched {
    fn new(dir: &Path, timing: WatchTiming) -> Self {
        let seen = read(dir, &Overrides::default()).map(|loaded| (loaded.hash, loaded.referenced_files));
        let (hash, others) = seen.unwrap_or_default();
        let watcher = FlagFileWatcher::start(dir, Overrides::default(), hash, others, timing);
        let (watcher, changes) = watcher.expect("a thread");
        Self { watcher, changes }
    }
    async fn next(&mut self) -> Reading {
        tokio::time::timeout(WAIT, self.changes.recv())
            .await
            .expect("a change in time")
            .expect("the watcher still runs")
    }
    /// The state of the first route of the next set, or the refusal's text.
    async fn state(&mut self) -> Result<State, String> {
        match self.next().await.change {
            FilesChange::Loaded(loaded) => Ok(loaded.setup.routes[0].declared),
            FilesChange::Refused(failed) => Err(failed.render(false)),
        }
    }
}

/// Writes a file so that nobody reads an incomplete one: writes it beside the directory, then renames it.
fn write_whole(set: &Set, name: &str, text: String) {
    let (temporary, at) = (set.dir().with_file_name("written"), set.dir().join(name));
    write(&temporary, text);
    std::fs::create_dir_all(at.parent().expect("a directory")).expect("a directory");
    std::fs::rename(&temporary, &at).expect("renamed");
}

fn routes(state: &str) -> String {
    ROUTES.replace("state: shadow", &format!("state: {state}"))
}

#[tokio::test]
async fn an_editors_rename_is_one_change() {
    let set = Set::valid();
    let mut watched = Watched::new(&set.dir(), BY_EVENT);
    let at = set.dir().join("routes/orders.yaml");
    let temporary = set.dir().join("routes/.orders.yaml.swp");
    write(&temporary, routes("off"));
    std::fs::rename(&temporary, &at).expect("renamed");
    assert_eq!(watched.state().await, Ok(State::Off));
    assert!(watched.changes.try_recv().is_err(), "one change");
}

#[tokio::test]
async fn an_invalid_set_is_refused_and_a_corrected_one_accepted() {
    let set = Set::valid();
    let mut watched = Watched::new(&set.dir(), BY_EVENT);
    write_whole(&set, "routes/orders.yaml", routes("shaddow"));
    let refused = watched.state().await.expect_err("refused");
    assert!(refused.contains("routes/orders.yaml:6:12") && refused.contains("did you mean `shadow`?"), "{refused}");
    write_whole(&set, "routes/orders.yaml", routes("shadow"));
    assert_eq!(watched.state().await, Ok(State::Shadow));
}

#[tokio::test]
async fn a_new_directory_and_a_new_file_are_seen() {
    let set = Set::valid().remove("routes/orders.yaml");
    std::fs::remove_dir(set.dir().join("routes")).expect("removed");
    let mut watched = Watched::new(&set.dir(), BY_EVENT);
    write_whole(&set, "routes/new.yaml", routes("off"));
    assert_eq!(watched.state().await, Ok(State::Off));
    write_whole(&set, "routes/new.yaml", routes("shadow"));
    assert_eq!(watched.state().await, Ok(State::Shadow));
}

/// Like the kubelet: `routes -> ..data/routes`, `..data -> ..2026_1`, swapped by renaming the link.
#[tokio::test]
async fn every_symlink_swap_is_seen() {
    let home = tempfile::tempdir().expect("a directory");
    let flags = home.path().join("flags");
    let version = |name: &str, state: &str| {
        let dir = flags.join(name);
        write(&dir.join("pointsman.yaml"), POINTSMAN);
        write(&dir.join("routes/orders.yaml"), routes(state));
        write(&dir.join("workflows/create-order.yaml"), WORKFLOW);
    };
    let swap = |to: &str| {
        symlink(to, flags.join("..data_tmp")).expect("a link");
        std::fs::rename(flags.join("..data_tmp"), flags.join("..data")).expect("swapped");
    };
    version("..2026_1", "off");
    swap("..2026_1");
    for name in ["pointsman.yaml", "routes", "workflows"] {
        symlink(format!("..data/{name}"), flags.join(name)).expect("a link");
    }
    let mut watched = Watched::new(&flags, BY_EVENT);
    for (name, state, expected) in
        [("..2026_2", "shadow", State::Shadow), ("..2026_3", "off", State::Off), ("..2026_4", "shadow", State::Shadow)]
    {
        version(name, state);
        swap(name);
        assert_eq!(watched.state().await, Ok(expected), "{name}");
    }
}

#[tokio::test]
async fn polling_finds_a_change_without_an_event() {
    let set = Set::valid();
    let replacement = set.dir().with_file_name("flags-new");
    let timing = WatchTiming { poll: Duration::from_millis(50), ..BY_EVENT };
    let mut watched = Watched::new(&set.dir(), timing);
    // The directory itself is replaced: the kernel still watches the old one.
    write(&replacement.join("pointsman.yaml"), POINTSMAN);
    write(&replacement.join("routes/orders.yaml"), routes("off"));
    write(&replacement.join("workflows/create-order.yaml"), WORKFLOW);
    std::fs::rename(set.dir(), set.dir().with_file_name("flags-gone")).expect("moved away");
    std::fs::rename(&replacement, set.dir()).expect("moved in");
    loop {
        match watched.state().await {
            Ok(state) => break assert_eq!(state, State::Off),
            // The files may be read between the two renames, when the directory is absent.
            Err(text) => assert!(text.contains("cannot be read"), "{text}"),
        }
    }
}

#[tokio::test]
async fn force_reports_an_unchanged_set() {
    let set = Set::valid();
    let mut watched = Watched::new(&set.dir(), BY_EVENT);
    watched.watcher.trigger().force();
    assert_eq!(watched.state().await, Ok(State::Shadow));
}

#[tokio::test]
async fn a_hundred_invalid_versions_are_refused_and_the_valid_one_accepted() {
    let set = Set::valid();
    let mut watched = Watched::new(&set.dir(), WatchTiming { quiet: Duration::from_millis(1), ..BY_EVENT });
    let at = set.dir().join("routes/orders.yaml");
    for n in 0..100 {
        write(&at, routes(&format!("bad{n}")));
        let refused = loop {
            let refused = watched.state().await.expect_err("refused");
            // The watcher may have read a file that was written only in part; then it reads the files again.
            if refused.contains(&format!("`bad{n}`")) {
                break refused;
            }
        };
        assert!(refused.contains("orders.yaml:6:12"), "{refused}");
    }
    write(&at, routes("off"));
    loop {
        if watched.state().await == Ok(State::Off) {
            break;
        }
    }
}
