//! What a check of the store shows.

use clap::Parser;

use crate::cli::args::CommandLine;
use crate::cli::format::Formatter;
use crate::cli::{StoreFinding, StoreReport, store};

#[test]
fn a_store_check_shows_each_fault_and_what_to_do() {
    let report = StoreReport {
        location: "sqlite:a.db".into(),
        runs: 3,
        purged: 1,
        events: 5,
        payloads: 1,
        ..StoreReport::default()
    };
    let done = store::report(&report, Formatter(false));
    assert!(done.is_ok);
    assert_eq!(
        done.text,
        "sqlite:a.db: no faults; 3 runs (1 of them purged except for their summaries), 5 events, 1 payload\n"
    );
    let finding = StoreFinding {
        run: Some("run_1".into()),
        what: "where event 2 should be\u{1b}[2J stands event 3".into(),
        todo: "restore a backup".into(),
    };
    let done = store::report(&StoreReport { findings: vec![finding], ..report }, Formatter(false));
    assert!(!done.is_ok && done.text.contains("what to do: restore a backup") && done.text.contains("1 fault;"));
    assert!(!done.text.contains('\u{1b}'));
    assert_eq!(done.json["findings"][0]["run"], "run_1");
    assert!(CommandLine::try_parse_from(["pointsman", "store", "check", "flags", "--store", "sqlite:x"]).is_err());
    for line in
        [&["store", "check"][..], &["store", "backup", "x.db", "flags"], &["store", "check", "--store", "memory"]]
    {
        assert!(CommandLine::try_parse_from([&["pointsman"][..], line].concat()).is_ok(), "{line:?}");
    }
}
