//! Tables of the reference for users that tests hold against what they find.

use std::collections::BTreeSet;
use std::path::Path;

/// The rows of the table of a topic that begins with this line, without the marks of code.
pub fn table(topic: &str, heading: &str) -> BTreeSet<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/docs/{topic}.md"));
    let text = std::fs::read_to_string(file).expect("the topic");
    let heading = format!("{heading}\n");
    let table = text.split(&heading).nth(1).unwrap_or_else(|| panic!("{topic}.md has no table `{heading}`"));
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}
