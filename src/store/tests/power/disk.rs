//! A disk, as it is rebuilt from what a process wrote.
//!
//! Always true: what was synced is there; a write that was not may be there, in part, or not at all, whatever came
//! after it. A sector of 512 bytes is written whole or not. That a file exists, or was removed, is taken as known at
//! once.

use std::collections::BTreeMap;
use std::path::Path;

const SECTOR: usize = 512;

/// What happened, in the order in which it returned.
pub(super) enum Moment {
    Wrote {
        file: String,
        at: usize,
        data: Vec<u8>,
    },
    Cut {
        file: String,
        len: usize,
    },
    Synced {
        file: String,
    },
    /// It is not there any more.
    Removed {
        file: String,
    },
    /// The process said that this append is kept.
    CheckpointAnswer(u64),
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Nothing,
    All,
    SomeWrites,
    SomeSectors,
}

/// See the module.
#[derive(Default)]
pub(super) struct Disk(BTreeMap<String, File>);

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    /// As far as these sectors of it arrive.
    fn onto(&self, bytes: &mut Vec<u8>, mut arrives: impl FnMut() -> bool) {
        match self {
            Change::Cut(len) => {
                if arrives() {
                    bytes.resize(*len, 0);
                }
            }
            Change::Write(at, data) => {
                let mut from = 0;
                while from < data.len() {
                    // Up to the next border of a sector on the disk.
                    let to = data.len().min(from + SECTOR - (at + from) % SECTOR);
                    if arrives() {
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
    /// One more thing happens; which append was said to be kept.
    pub(super) fn take_in(&mut self, moment: &Moment) -> Option<u64> {
        match moment {
            Moment::CheckpointAnswer(n) => return Some(*n),
            Moment::Wrote { file, at, data } => self.file(file).since.push(Change::Write(*at, data.clone())),
            Moment::Cut { file, len } => self.file(file).since.push(Change::Cut(*len)),
            Moment::Removed { file } => drop(self.0.remove(file)),
            Moment::Synced { file } => {
                let file = self.file(file);
                for change in std::mem::take(&mut file.since) {
                    change.onto(&mut file.synced, || true);
                }
            }
        }
        None
    }
    fn file(&mut self, name: &str) -> &mut File {
        self.0.entry(name.to_owned()).or_default()
    }
    /// The power goes: what is then found is written to a folder.
    pub(super) fn cut(self, into: &Path, random: &mut fastrand::Rng) -> How {
        let how = [How::Nothing, How::All, How::SomeWrites, How::SomeSectors][random.usize(..4)];
        for (name, File { synced: mut bytes, since }) in self.0 {
            for change in &since {
                let whole = match how {
                    How::Nothing => Some(false),
                    How::All => Some(true),
                    How::SomeWrites => Some(random.bool()),
                    How::SomeSectors => None,
                };
                change.onto(&mut bytes, || whole.unwrap_or_else(|| random.bool()));
            }
            std::fs::write(into.join(name), bytes).unwrap();
        }
        how
    }
}

/// From here on something was acknowledged.
pub(super) fn begun(moments: &[Moment]) -> usize {
    let first = moments.iter().position(|moment| matches!(moment, Moment::CheckpointAnswer(_)));
    first.expect("the process said something") + 1
}

/// What `strace -f -y -xx` wrote down.
pub(super) fn read(trace: &str) -> Vec<Moment> {
    let mut open: BTreeMap<&str, &str> = BTreeMap::new();
    let mut moments = Vec::new();
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
        moments.extend(moment(&whole));
    }
    moments
}

/// `pwrite64(9<\x2f…>, "\x37\x7f", 2, 0) = 2`: the file's path and the bytes in hexadecimal digits.
fn moment(call: &str) -> Option<Moment> {
    let (name, rest) = call.split_once('(')?;
    let (what, result) = rest.rsplit_once(" = ")?;
    let done: usize = result.split(' ').next()?.parse().ok()?;
    if name.starts_with("unlink") {
        let path = String::from_utf8(bytes(what)).ok()?;
        return Some(Moment::Removed { file: path.rsplit('/').next().unwrap_or_default().to_owned() });
    }
    let (place, arguments) = what.split_once('<')?.1.split_once('>')?;
    let place = String::from_utf8(hex(place)).ok()?;
    let file = place.rsplit('/').next().unwrap_or_default();
    let ours = matches!(file, "test.db" | "test.db-wal" | "test.db-journal");
    let arguments = arguments.trim_start_matches([',', ' ']).trim_end().trim_end_matches(')');
    match name {
        "write" => said(&bytes(arguments)),
        _ if !ours => None,
        "pwrite64" => {
            let mut data = bytes(arguments);
            data.truncate(done);
            Some(Moment::Wrote { file: file.to_owned(), at: arguments.rsplit(", ").next()?.parse().ok()?, data })
        }
        "ftruncate" => Some(Moment::Cut { file: file.to_owned(), len: arguments.parse().ok()? }),
        "fsync" | "fdatasync" => Some(Moment::Synced { file: file.to_owned() }),
        _ => None,
    }
}

fn said(text: &[u8]) -> Option<Moment> {
    let text = String::from_utf8_lossy(text);
    let number = text.lines().find_map(|line| line.strip_prefix("kept "))?;
    Some(Moment::CheckpointAnswer(number.trim().parse().ok()?))
}

/// `"\x0a\x6b", 2`: what stands between the quotes.
fn bytes(text: &str) -> Vec<u8> {
    hex(text.split('"').nth(1).unwrap_or_default())
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits.filter_map(|digits| u8::from_str_radix(digits.get(..2)?, 16).ok()).collect()
}
