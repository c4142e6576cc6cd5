//! The contents of a disk after a power cut, rebuilt from the recorded writes of a process.
//!
//! Always true: synced writes are on the disk; a write that was not synced may be there, in part, or not at all,
//! whatever was written after it. A sector of 512 bytes is written completely or not. Creation and removal of files
//! count as synced at once.

use std::collections::BTreeMap;
use std::path::Path;

const SECTOR: usize = 512;

/// A recorded action of the process, in the order in which the calls returned.
pub(super) enum Action {
    Wrote {
        file: String,
        at: usize,
        data: Vec<u8>,
    },
    Truncated {
        file: String,
        len: usize,
    },
    Synced {
        file: String,
    },
    Removed {
        file: String,
    },
    /// The process acknowledged this append.
    Acknowledged(u64),
}

/// Which writes that were not synced are on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsynced {
    Nothing,
    All,
    SomeWrites,
    SomeSectors,
}

/// The files of the disk.
#[derive(Default)]
pub(super) struct Disk(BTreeMap<String, File>);

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    /// Applies the change to the bytes of a file. `is_on_disk` decides for each sector whether it was written.
    fn apply(&self, bytes: &mut Vec<u8>, mut is_on_disk: impl FnMut() -> bool) {
        match self {
            Change::Truncate(len) => {
                if is_on_disk() {
                    bytes.resize(*len, 0);
                }
            }
            Change::Write(at, data) => {
                let mut from = 0;
                while from < data.len() {
                    // Up to the next sector boundary on the disk.
                    let to = data.len().min(from + SECTOR - (at + from) % SECTOR);
                    if is_on_disk() {
                        if bytes.len() < at + to {
                            bytes.resize(at + to, 0);
                        }
                        bytes[at + from..at + to].copy_from_slice(&data[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Disk {
    /// Applies an action; returns the append that it acknowledges, if any.
    pub(super) fn apply(&mut self, action: &Action) -> Option<u64> {
        match action {
            Action::Acknowledged(n) => return Some(*n),
            Action::Wrote { file, at, data } => self.file(file).unsynced.push(Change::Write(*at, data.clone())),
            Action::Truncated { file, len } => self.file(file).unsynced.push(Change::Truncate(*len)),
            Action::Removed { file } => drop(self.0.remove(file)),
            Action::Synced { file } => {
                let file = self.file(file);
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.synced, || true);
                }
            }
        }
        None
    }
    fn file(&mut self, name: &str) -> &mut File {
        self.0.entry(name.to_owned()).or_default()
    }
    /// Cuts the power: writes the files to a folder as they may be after that.
    pub(super) fn cut_power(self, into: &Path, random: &mut fastrand::Rng) -> Unsynced {
        let unsynced =
            [Unsynced::Nothing, Unsynced::All, Unsynced::SomeWrites, Unsynced::SomeSectors][random.usize(..4)];
        for (name, File { synced: mut bytes, unsynced: changes }) in self.0 {
            for change in &changes {
                let whole = match unsynced {
                    Unsynced::Nothing => Some(false),
                    Unsynced::All => Some(true),
                    Unsynced::SomeWrites => Some(random.bool()),
                    Unsynced::SomeSectors => None,
                };
                change.apply(&mut bytes, || whole.unwrap_or_else(|| random.bool()));
            }
            std::fs::write(into.join(name), bytes).unwrap();
        }
        unsynced
    }
}

/// The number of actions up to the first acknowledgement.
pub(super) fn first_acknowledged(actions: &[Action]) -> usize {
    let first = actions.iter().position(|action| matches!(action, Action::Acknowledged(_)));
    first.expect("the process acknowledged an append") + 1
}

/// Reads the output of `strace -f -y -xx`.
pub(super) fn read(trace: &str) -> Vec<Action> {
    let mut open: BTreeMap<&str, &str> = BTreeMap::new();
    let mut actions = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            open.insert(thread, begun);
            continue;
        }
        let whole = match call.split_once(" resumed>") {
            Some((_, end)) => format!("{}{end}", open.remove(thread).unwrap_or_default()),
            None => call.to_owned(),
        };
        actions.extend(action(&whole));
    }
    actions
}

/// `pwrite64(9<\x2f…>, "\x37\x7f", 2, 0) = 2`: the file's path and the bytes in hexadecimal digits.
fn action(call: &str) -> Option<Action> {
    let (name, rest) = call.split_once('(')?;
    let (what, result) = rest.rsplit_once(" = ")?;
    let done: usize = result.split(' ').next()?.parse().ok()?;
    if name.starts_with("unlink") {
        let path = String::from_utf8(bytes(what)).ok()?;
        return Some(Action::Removed { file: path.rsplit('/').next().unwrap_or_default().to_owned() });
    }
    let (path, arguments) = what.split_once('<')?.1.split_once('>')?;
    let path = String::from_utf8(hex(path)).ok()?;
    let file = path.rsplit('/').next().unwrap_or_default();
    let is_of_store = matches!(file, "test.db" | "test.db-wal" | "test.db-journal");
    let arguments = arguments.trim_start_matches([',', ' ']).trim_end().trim_end_matches(')');
    match name {
        "write" => acknowledgement(&bytes(arguments)),
        _ if !is_of_store => None,
        "pwrite64" => {
            let mut data = bytes(arguments);
            data.truncate(done);
            Some(Action::Wrote { file: file.to_owned(), at: arguments.rsplit(", ").next()?.parse().ok()?, data })
        }
        "ftruncate" => Some(Action::Truncated { file: file.to_owned(), len: arguments.parse().ok()? }),
        "fsync" | "fdatasync" => Some(Action::Synced { file: file.to_owned() }),
        _ => None,
    }
}

fn acknowledgement(text: &[u8]) -> Option<Action> {
    let text = String::from_utf8_lossy(text);
    let number = text.lines().find_map(|line| line.strip_prefix("acknowledged "))?;
    Some(Action::Acknowledged(number.trim().parse().ok()?))
}

/// `"\x0a\x6b", 2`: the bytes between the quotes.
fn bytes(text: &str) -> Vec<u8> {
    hex(text.split('"').nth(1).unwrap_or_default())
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits.filter_map(|digits| u8::from_str_radix(digits.get(..2)?, 16).ok()).collect()
}
