//! The layout of the file that names the routes whose evidence in the store is incomplete.
//!
//! Always true: a mark is written to a slot of its own ([`slot_file`](crate::slot_file)), and survives the end of the
//! process and a full disk; a torn slot counts as a mark of every route, since the route that it named is lost.
//!
//! Layout, in slots of 64 bytes: slot 0 names the format; the last slot stands for every route; each slot between names
//! one route.

use std::io;
use std::path::{Path, PathBuf};

use crate::slot_file::{self, FileSlot, OpenError, SLOT_BYTES, SlotFile, SlotRoute, bytes_at};

const SLOTS: u64 = 128;
const ANY_SLOT: u64 = SLOTS - 1;
const MAGIC: &[u8; 8] = b"PMEVID01";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkFileError {
    /// Another process has locked the file.
    #[error("the file of evidence marks {}, which lists routes with incomplete evidence, is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The file was written by a newer version, or is no file of evidence marks.
    #[error(
        "the file of evidence marks {}, which lists routes with incomplete evidence, cannot be read by this version; \
         move it away. The evidence in the store may be incomplete: start it from zero by changing a compare rule of \
         each route",
        .0.display()
    )]
    Unknown(PathBuf),
    /// The file cannot be created, read or written.
    #[error("the file of evidence marks {}, which lists routes with incomplete evidence, cannot be {what}: {source}; it takes {bytes} bytes in a directory that this process may write", .path.display(), bytes = SLOTS * SLOT_BYTES as u64)]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The operation that failed.
        what: &'static str,
        /// Why the operation failed.
        source: io::Error,
    },
}

/// The file of evidence marks, open and locked.
#[derive(Debug)]
pub(super) struct MarkFile {
    slots: SlotFile,
    /// For each slot, whether it holds a mark.
    used: Vec<bool>,
}

impl MarkFile {
    /// Opens the file; with `create`, creates it if it does not exist. Also returns the marks in the file, each with
    /// the index of its slot.
    pub(super) fn open(path: &Path, create: bool) -> Result<(Self, Vec<(SlotRoute, u64)>), MarkFileError> {
        let failed = |what| move |source| MarkFileError::Io { path: path.to_owned(), what, source };
        let slots = SlotFile::open(path, create).map_err(|error| match error {
            OpenError::Locked => MarkFileError::Locked(path.to_owned()),
            OpenError::Io { what, source } => failed(what)(source),
        })?;
        if slots.slots().map_err(failed("read"))? < SLOTS {
            // A process that was killed while it created the file had marked nothing yet.
            let mut header = [0; SLOT_BYTES];
            header[8..16].copy_from_slice(MAGIC);
            // The header is written first, so that every file of full size has one.
            let written = slots.write(0, header).and_then(|()| slots.fill_with_zeros(1..SLOTS));
            written.and_then(|()| slots.sync_all()).map_err(failed("created"))?;
        }
        let (mut has_header, mut used, mut marks) = (false, vec![false; SLOTS as usize], Vec::new());
        slots
            .read(0..SLOTS, |index, slot| match index {
                0 => has_header = slot_file::is_whole(slot) && &slot[8..16] == MAGIC,
                _ if slot_file::is_free(slot) => {}
                _ => marks.push((route_in(index, slot), index)),
            })
            .map_err(failed("read"))?;
        if !has_header {
            return Err(MarkFileError::Unknown(path.to_owned()));
        }
        for index in marks.iter().map(|(_, index)| *index).chain([0]) {
            used[index as usize] = true;
        }
        Ok((Self { slots, used }, marks))
    }

    /// Writes a mark of the route, or a mark of every route if no slot is left. Returns which of the two was marked,
    /// and the index of the slot.
    pub(super) fn write(&mut self, route: SlotRoute) -> io::Result<(SlotRoute, u64)> {
        let free = self.used[..ANY_SLOT as usize].iter().position(|used| !used);
        let (route, index, hash) = match (route, free) {
            (SlotRoute::Hash(hash), Some(index)) => (route, index as u64, hash),
            _ => (SlotRoute::Any, ANY_SLOT, [0; 16]),
        };
        let mut slot = [0; SLOT_BYTES];
        slot[8..24].copy_from_slice(&hash);
        slot[24] = 1; // so that a used slot is not all zeros
        self.slots.write(index, slot)?;
        self.used[index as usize] = true;
        Ok((route, index))
    }

    /// Clears the mark in this slot.
    pub(super) fn clear(&mut self, index: u64) -> io::Result<()> {
        self.slots.fill_with_zeros(index..index + 1)?;
        self.used[index as usize] = false;
        Ok(())
    }
}

fn route_in(index: u64, slot: &FileSlot) -> SlotRoute {
    match slot_file::is_whole(slot) && index < ANY_SLOT {
        true => SlotRoute::Hash(bytes_at(slot, 8)),
        false => SlotRoute::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RouteId;

    /// The slots that are not free in a file with marks of two routes and of every route, as the version of November
    /// 2026 wrote them. Later versions must read these bytes and write the same.
    const WRITTEN: &[(u64, &str)] = &[
        (0, "4082c59dd93e731c504d455649443031"),
        (1, "3ba4972bb80e523e58f72bda58df747265a013ef43d966a001"),
        (2, "fa5c1292ad2f99207b9c9fd74380c953b9d6238fb1c9e0df01"),
        (127, "8f6441c69ed007fc0000000000000000000000000000000001"),
    ];

    #[test]
    fn files_of_earlier_versions_are_read_and_the_same_bytes_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let (create, cancel) = (RouteId::from("orders.create"), RouteId::from("orders.cancel"));
        let (create, cancel) = (SlotRoute::of(&create), SlotRoute::of(&cancel));
        let (mut file, marks) = MarkFile::open(&path, true).unwrap();
        assert_eq!(marks, []);
        for route in [create, cancel, SlotRoute::Any] {
            file.write(route).unwrap();
        }
        drop(file);
        let expected = slot_file::testing::file_of(SLOTS, WRITTEN);
        assert!(std::fs::read(&path).unwrap() == expected, "other bytes were written");

        std::fs::write(&path, expected).unwrap();
        let (mut file, marks) = MarkFile::open(&path, true).unwrap();
        assert_eq!(marks, [(create, 1), (cancel, 2), (SlotRoute::Any, 127)]);
        assert_eq!(file.write(cancel).unwrap(), (cancel, 3), "the mark goes to the first free slot");
    }
}
