//! The table of what may be lost: each row is held by tests, which exist.

use std::path::Path;

use crate::support::documented;

/// The rows, each with its tests.
const ROWS: &[(&str, &[&str])] = &[
    (
        "a process, not its directory",
        &[
            "shared_evidence::a_killed_process_leaves_a_gap_and_nothing_more",
            "lost_keys::a_process_that_stops_with_keys_that_the_database_lacks_does_not_deregister",
            "legacy_keys::killed_after_legacy_answered",
        ],
    ),
    ("a process and its directory", &["lost_keys::a_process_whose_directory_is_lost_shuts_the_gate_to_live"]),
    ("the primary, for a while", &["postgres::restarted_after_a_crash"]),
    ("the primary, and a synchronous standby takes over", &["postgres::a_standby_takes_over"]),
    (
        "the primary, and an asynchronous standby takes over",
        &["postgres::an_asynchronous_standby_takes_over_without_the_last_commits"],
    ),
];

/// Whether a source file has an asynchronous test of this name: the function begins a line, and an attribute on one of
/// the lines just before it makes it a test.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let signature = format!("async fn {name}()");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&signature)).any(|(at, _)| {
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[tokio::test"))
    })
}

#[test]
fn a_function_is_a_test_only_with_its_attribute_and_outside_of_comments() {
    let source = "#[tokio::test]\n// async fn commented()\n// #[tokio::test]\nasync fn plain() {}\n\
                  #[tokio::test(flavor = \"multi_thread\")]\n#[ignore]\n  async fn test() {}\n";
    assert_eq!(["commented", "plain", "test"].map(|name| has_test(source, name)), [false, false, true]);
}

#[test]
fn each_row_of_the_table_of_losses_has_tests() {
    let shown = documented::table("scale", "| what is lost | what may be lost with it |");
    let shown: Vec<&str> = shown.iter().map(|row| row[0].as_str()).filter(|cell| !cell.starts_with('-')).collect();
    assert_eq!(shown.len(), ROWS.len(), "{shown:?}");
    for (row, tests) in ROWS {
        assert!(shown.contains(row), "scale.md has no row `{row}`");
        for test in *tests {
            let (file, name) = test.split_once("::").expect("a file and a name");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/{file}.rs"));
            let text = std::fs::read_to_string(path).expect("the file of the test");
            assert!(has_test(&text, name), "there is no test {test}");
        }
    }
}
