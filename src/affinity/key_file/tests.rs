use std::os::unix::fs::MetadataExt;

use super::*;
use crate::affinity::key_file_tag::StoreTag;
use crate::flag::RetryKey;
use crate::names::RouteId;
use crate::slot_file::testing::file_of;
use crate::store::StoreIdentity;

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
    let found = std::fs::metadata(&path).unwrap();
    // 512 bytes, whatever the file system's block size: see stat(2).
    assert!(found.len() == 65_536 && found.blocks() * 512 >= 65_536, "it has its full size and is not sparse");
    for seq in 1..=1_000 {
        opened.file.write(&record(seq)).unwrap();
    }
    opened.file.write_progress(990, 1_000).unwrap();
    assert!(matches!(KeyFile::open(&path, 65_536, true), Err(KeyFileError::Locked(_))));
    drop(opened);

    let bytes = std::fs::read(&path).unwrap();
    let slot = (HEAD_SLOTS + (995 - 1) % 960) as usize * SLOT_BYTES;
    let mut torn = bytes.clone();
    torn[slot + 40] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let opened = KeyFile::open(&path, 65_536, true).unwrap();
    let seqs: Vec<u64> = opened.waiting.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [991, 992, 993, 994, 996, 997, 998, 999, 1_000]);
    assert_eq!((opened.skipped, opened.last), (1, 1_000));
    assert_eq!(opened.damage.as_deref(), Some("1 record is missing, 1 slot cannot be read"));
    assert!(opened.unnoted.iter().any(|(route, _)| *route == SlotRoute::Any));
    assert!(opened.waiting.iter().all(|found| *found == record(found.seq)));
    drop(opened);

    // Without the number of stored records all records wait again.
    let mut without_progress = bytes;
    without_progress[SLOT_BYTES..2 * SLOT_BYTES].fill(7);
    std::fs::write(&path, without_progress).unwrap();
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
        opened.file.write_unnoted(SlotRoute::of(&RouteId::from(format!("r{n}").as_str())), at, |_| false).unwrap();
    }
    let earlier = Timestamp::from_second(76).unwrap();
    opened.file.write_unnoted(SlotRoute::of(&RouteId::from("r65")), earlier, |_| false).unwrap();
    drop(opened);
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    opened.file.write_unnoted(SlotRoute::of(&RouteId::from("r66")), earlier, |_| false).unwrap();
    drop(opened);
    let unnoted = KeyFile::open(&path, 65_536, true).unwrap().unnoted;
    assert_eq!(unnoted.len(), 62);
    assert!(unnoted.contains(&(SlotRoute::of(&RouteId::from("r60")), at)));
    assert!(unnoted.contains(&(SlotRoute::Any, at)), "the others share a slot");
}

#[test]
fn a_route_gets_the_slot_of_one_whose_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let at = |second| Timestamp::from_second(second).unwrap();
    let route = |n: usize| SlotRoute::of(&RouteId::from(format!("r{n}").as_str()));
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    for n in 0..UNNOTED_ROUTES {
        opened.file.write_unnoted(route(n), at(if n == 7 { 10 } else { 20 }), |_| false).unwrap();
    }
    drop(opened);
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    opened.file.write_unnoted(route(99), at(30), |time| time < at(15)).unwrap();
    opened.file.write_unnoted(route(99), at(31), |time| time < at(25)).unwrap();
    drop(opened);
    let unnoted = KeyFile::open(&path, 65_536, true).unwrap().unnoted;
    let found = |wanted| unnoted.iter().find(|(route, _)| *route == wanted).map(|(_, at)| *at);
    assert_eq!((found(route(99)), found(route(7)), found(route(8))), (Some(at(31)), None, Some(at(20))));
    assert_eq!((found(SlotRoute::Any), unnoted.len()), (None, UNNOTED_ROUTES));
}

/// The route of a torn slot is unknown: it counts for every route. The slots of other routes are not changed.
#[test]
fn a_torn_slot_of_a_route_counts_for_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let at = |second| Timestamp::from_second(second).unwrap();
    let route = |name: &str| SlotRoute::of(&RouteId::from(name));
    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    for name in ["a", "b", "c"] {
        opened.file.write_unnoted(route(name), at(77), |_| false).unwrap();
    }
    drop(opened);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2 * SLOT_BYTES + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut opened = KeyFile::open(&path, 65_536, true).unwrap();
    opened.file.write_unnoted(route("c"), at(99), |_| false).unwrap();
    opened.file.write_unnoted(route("d"), at(88), |_| false).unwrap();
    drop(opened);
    let unnoted = KeyFile::open(&path, 65_536, true).unwrap().unnoted;
    let found = |wanted| unnoted.iter().find(|(route, _)| *route == wanted).map(|(_, at)| *at);
    assert_eq!((found(route("b")), found(route("c")), found(route("d"))), (Some(at(77)), Some(at(99)), Some(at(88))));
    assert!(found(SlotRoute::Any).is_some(), "{unnoted:?}");
    assert_eq!(KeyFile::open(&path, 65_536, true).unwrap().skipped, 0, "a torn slot is reported once");
}

#[test]
fn the_error_names_a_directory_that_does_not_exist() {
    let error = KeyFile::open(Path::new("/nowhere/s.keys"), 65_536, true).err().unwrap().to_string();
    assert!(error.contains("/nowhere/s.keys") && error.contains("retry_keys_dir"), "{error}");
}

/// The slots that are not free in a file of 65,536 bytes with a tag, the progress, a route whose key could not be
/// noted, a time for all routes, and the records 1, 2 and 961, of which the last one overwrote the first. Written by
/// the version of November 2026: later ones must read them, and write the same.
const WRITTEN: &[(u64, &str)] = &[
    (
        0,
        "2c6c9e1a730aa0bc504d4b4559533031000000000000000000000000000012\
         34280c551183358811e4e8d78f645d8904af506bb1ea2bc7140fc5b533061709e3",
    ),
    (1, "f269ee7885d8c8ce010000000000000000040000000000000200000000000000"),
    (2, "efbc75580373e5b258f72bda58df747265a013ef43d966a000ca9a3b00000000"),
    (63, "b7d61664b7e0bc600000000000000000000000000000000000ca9a3b00000000"),
    (
        64,
        "7d421eff216f5d67c103000000000000e873a93b00000000c1030000000000000\
         303030303030303030303030303030303030303030303030000000000000000",
    ),
    (
        65,
        "54ea862dcc0b2f870200000000000000d0d19a3b0000000002000000000000000\
         303030303030303030303030303030303030303030303030000000000000000",
    ),
];

#[test]
fn files_of_earlier_versions_are_read_and_the_same_bytes_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.keys");
    let identity = StoreIdentity { location: "/data/pointsman.db".into(), incarnation: "inode 7".into() };
    let tag = Tag { file: uuid::Uuid::from_u128(0x1234), owner: StoreTag::new(&[9; 32], &identity) };
    let (create, at) = (SlotRoute::of(&RouteId::from("orders.create")), Timestamp::from_second(1_000_000).unwrap());

    let mut file = KeyFile::open(&path, 65_536, true).unwrap().file;
    file.write_tag(&tag).unwrap();
    file.write_unnoted(create, at, |_| false).unwrap();
    file.write_unnoted(SlotRoute::Any, at, |_| false).unwrap();
    for seq in [1, 2, 961] {
        file.write(&record(seq)).unwrap();
    }
    file.write_progress(1, 2).unwrap();
    drop(file);
    let expected = file_of(1_024, WRITTEN);
    assert!(std::fs::read(&path).unwrap() == expected, "other bytes were written");

    std::fs::write(&path, expected).unwrap();
    assert_eq!(KeyFile::peek(&path).unwrap(), (Some(tag), vec![record(961), record(2)]));
    let opened = KeyFile::open(&path, 65_536, false).unwrap();
    assert_eq!((opened.tag, opened.stored, opened.last, opened.skipped), (Some(tag), 1, 961, 0));
    assert_eq!(opened.waiting, [record(2), record(961)]);
    assert!(opened.unnoted.contains(&(create, at)) && opened.unnoted.contains(&(SlotRoute::Any, at)));
    assert_eq!(opened.damage.as_deref(), Some("958 records are missing"));
}
