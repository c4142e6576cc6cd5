use super::*;
use crate::flag::RetryKey;

fn key_of(n: u64) -> RetryKey {
    let mut key = [3; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    RetryKey(key)
}

fn record(seq: u64) -> Record {
    Record { seq, at: Timestamp::from_second(1_000_000 + seq as i64).unwrap(), key: key_of(seq) }
}

#[test]
fn records_are_read_back_and_torn_ones_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let opened = KeyFile::open(&path, 65_536, true).unwrap();
    assert_eq!((opened.file.records(), opened.last), (960, 0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 65_536, "it has its full size");
    for seq in 1..=1_000 {
        opened.file.write(&record(seq)).unwrap();
    }
    opened.file.write_progress(990, 1_000).unwrap();
    assert!(matches!(KeyFile::open(&path, 65_536, true), Err(KeyFileError::Locked(_))));
    drop(opened);

    let bytes = std::fs::read(&path).unwrap();
    let slot = (HEAD_SLOTS + (995 - 1) % 960) as usize * SLOT;
    let mut torn = bytes.clone();
    torn[slot + 40] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let opened = KeyFile::open(&path, 65_536, true).unwrap();
    let seqs: Vec<u64> = opened.waiting.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [991, 992, 993, 994, 996, 997, 998, 999, 1_000]);
    assert_eq!((opened.skipped, opened.last), (1, 1_000));
    assert_eq!(opened.damage.as_deref(), Some("1 records are not there, 1 records cannot be read"));
    assert!(opened.unnoted.iter().any(|(route, _)| *route == UnnotedRoute::Any));
    assert!(opened.waiting.iter().all(|found| *found == record(found.seq)));
    drop(opened);

    // Without the number of stored records all records wait again.
    let mut unsure = bytes;
    unsure[SLOT..2 * SLOT].fill(7);
    std::fs::write(&path, unsure).unwrap();
    assert_eq!(KeyFile::open(&path, 65_536, true).unwrap().waiting.len(), 960);
}

#[test]
fn the_file_is_resized_only_if_no_record_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let opened = KeyFile::open(&path, 65_536, true).unwrap();
    opened.file.write(&record(1)).unwrap();
    drop(opened);
    let opened = KeyFile::open(&path, 131_072, true).unwrap();
    assert_eq!((opened.file.records(), opened.waiting.len()), (960, 1));
    opened.file.write_progress(1, 1).unwrap();
    drop(opened);
    for (bytes, records) in [(131_072, 1_984), (65_536, 960)] {
        let opened = KeyFile::open(&path, bytes, true).unwrap();
        assert_eq!((opened.file.records(), opened.waiting.len(), opened.last), (records, 0, 1));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    }
}

#[test]
fn routes_that_were_served_unnoted_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    let at = Timestamp::from_second(77).unwrap();
    for n in 0..70 {
        opened.file.write_unnoted(UnnotedRoute::of(&RouteId::from(format!("r{n}").as_str())), at).unwrap();
    }
    drop(opened);
    let unnoted = KeyFile::open(&path, 65_536, true).unwrap().unnoted;
    assert_eq!(unnoted.len(), 62);
    assert!(unnoted.contains(&(UnnotedRoute::of(&RouteId::from("r60")), at)));
    assert!(unnoted.contains(&(UnnotedRoute::Any, at)), "the others share a slot");
}

/// The route of a torn slot is unknown: it counts for every route. The slots of other routes are not changed.
#[test]
fn a_torn_slot_of_a_route_counts_for_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let at = |second| Timestamp::from_second(second).unwrap();
    let route = |name: &str| UnnotedRoute::of(&RouteId::from(name));
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    for name in ["a", "b", "c"] {
        opened.file.write_unnoted(route(name), at(77)).unwrap();
    }
    drop(opened);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2 * SLOT + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    opened.file.write_unnoted(route("c"), at(99)).unwrap();
    opened.file.write_unnoted(route("d"), at(88)).unwrap();
    drop(opened);
    let unnoted = KeyFile::open(&path, 65_536, true).unwrap().unnoted;
    let found = |wanted| unnoted.iter().find(|(route, _)| *route == wanted).map(|(_, at)| *at);
    assert_eq!((found(route("b")), found(route("c")), found(route("d"))), (Some(at(77)), Some(at(99)), Some(at(88))));
    assert!(found(UnnotedRoute::Any).is_some(), "{unnoted:?}");
    assert_eq!(KeyFile::open(&path, 65_536, true).unwrap().skipped, 0, "it is said once");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = KeyFile::open(Path::new("/nowhere/s.keys"), 65_536, true).err().unwrap().to_string();
    assert!(error.contains("/nowhere/s.keys") && error.contains("retry_keys_dir"), "{error}");
}
