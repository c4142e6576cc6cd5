//! Mutated flag files: no panic, the same outcome each time, and every finding has a valid position.

use super::set::{POINTSMAN, ROUTES, WORKFLOW};
use crate::config::Overrides;
use crate::config::files::{File, FileKind, Files};
use crate::config::load::check;
use crate::flag::test_mutator::Mutator;

const WORDS: &[&str] = &[
    ":",
    ": ",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "|\n",
    ">-\n",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "#",
    "\t",
    "${",
    "${request.",
    "}}",
    "$${",
    "~",
    "null",
    "true",
    "0x7fffffffffffffff",
    "1e999",
    "-1",
    ".inf",
    "%YAML 1.2\n---\n",
    "\n...\n",
    "\u{feff}",
    "\u{2028}",
    "\0",
    "state: only",
    "percent: 101",
    "legacy: shop",
    "steps:",
    "needs: [",
];
fn outcome(which: usize, text: &str) -> Result<(), String> {
    let mut texts = [POINTSMAN.to_owned(), ROUTES.to_owned(), WORKFLOW.to_owned()];
    text.clone_into(&mut texts[which]);
    let lines: Vec<usize> = texts.iter().map(|text| text.lines().count()).collect();
    let kinds = [FileKind::Pointsman, FileKind::Routes, FileKind::Workflow];
    let files = kinds.into_iter().zip(texts).map(|(kind, text)| File { kind, name: format!("{kind:?}.yaml"), text });
    let files = Files { files: files.collect(), ..Files::default() };
    match check("flags".as_ref(), files, &Overrides::default()) {
        Ok(_) => Ok(()),
        Err(failed) => {
            let longest = lines.into_iter().max().unwrap_or(0) + 1;
            for finding in &failed.findings.0 {
                assert!(finding.line.is_some_and(|line| line >= 1 && line <= longest), "{}", failed.render(false));
            }
            Err(failed.render(true))
        }
    }
}

#[test]
fn mutated_files_are_accepted_or_refused_with_a_position_in_bounded_time() {
    let mut mutator = Mutator::new(&[POINTSMAN, ROUTES, WORKFLOW], WORDS);
    let mut refused = 0_u64;
    while let Some((number, bytes)) = mutator.next() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let which = mutator.random.usize(0..3);
        let first = outcome(which, &text);
        assert_eq!(outcome(which, &text), first, "{}", mutator.case(number, &bytes));
        refused += u64::from(first.is_err());
    }
    println!("{refused} refused");
    mutator.report("mutated_files_are_accepted_or_refused_with_a_position_in_bounded_time");
    assert!(refused > 3);
}
