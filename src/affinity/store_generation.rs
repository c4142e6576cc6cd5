//! Recognises a store that is older than its file of retry keys: an older copy that was put in the place of the store.
//!
//! The question it answers: "did a later process use this store before its file was replaced?" Always true: a
//! generation is in the store, durably, before it is written to a file of retry keys; generations of one store only
//! grow. So no file of the store has a higher generation than the store, whenever a process was killed. A file with a
//! higher generation was written by a process on a later state of the store, of which this store is an older copy.
//!
//! Example: the store has generation 5, and is copied while no process runs. The next process stores 6, then writes 6
//! to the file. It ends, and the copy is put back. The process that starts finds 5 in the store and 6 in the file. It
//! records in the store that it is a copy, and only then begins generation 7, so that a kill in between loses nothing.
//!
//! Not recognised:
//!
//! - a copy of the present generation (a new one begins at each start and every ten minutes);
//! - a copy together with a copy of the file from the same time;
//! - a copy whose file of retry keys was removed, or was last used by a version that knows no generations.
//!
//! A store that several processes share has no generations.

use super::StoreAffinity;
use super::key_log::KeyLog;

impl KeyLog {
    /// Records that a file of the store had this generation.
    pub(super) fn raise_generation(&self, generation: u64) {
        let mut ring = self.ring();
        ring.generation = ring.generation.max(generation);
    }
}

impl StoreAffinity {
    /// The highest generation of the store that its files of retry keys had at the start. The next generation is above
    /// it.
    pub fn generation_in_files(&self) -> u64 {
        self.keys.ring().generation
    }

    /// Writes the generation to this process's file of retry keys. The store must have it.
    pub fn write_generation(&self, generation: u64) {
        if !self.store.is_shared() {
            self.keys.write_generation(generation);
        }
    }
}
