//! Two texts, line by line.

use std::collections::HashMap;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::body::digest;
use super::findings::Findings;
use super::verdict::{Kind, TooMuch};

/// Lines of both sides together that are still aligned; the work grows with their product in the worst case, and
/// nothing can interrupt it.
const LINES_MAX: usize = 3_000;

/// Compares two texts. Their lines have no keys that would tell a secret from a name, so their digests stand for them.
pub(super) fn compare(legacy: &str, engine: &str, found: &mut Findings<'_>) -> Result<(), TooMuch> {
    if legacy == engine {
        return Ok(());
    }
    let (a, b): (Vec<&str>, Vec<&str>) =
        (legacy.split_inclusive('\n').collect(), engine.split_inclusive('\n').collect());
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..a.len() - back], &b[front..b.len() - back]);
    if a.len() + b.len() > LINES_MAX {
        found.plain("text", Kind::Value, Some(&digest(legacy.as_bytes())), Some(&digest(engine.as_bytes())));
        found.truncate();
        return Ok(());
    }
    found.look()?;
    // Lines as numbers: the alignment looks at each pair many times.
    let mut names: HashMap<&str, u32> = HashMap::new();
    let mut name = |line| {
        let next = names.len() as u32;
        *names.entry(line).or_insert(next)
    };
    let left: Vec<u32> = a.iter().map(|line| name(line)).collect();
    let right: Vec<u32> = b.iter().map(|line| name(line)).collect();
    for change in capture_diff_slices(Algorithm::Myers, &left, &right) {
        let (tag, old, new) = change.as_tag_tuple();
        let show = |lines: &[&str], from: usize| {
            let text = lines.concat();
            format!("line {}: {} lines, {}", front + from + 1, lines.len(), digest(text.as_bytes()))
        };
        let (was, is) = (show(&a[old.clone()], old.start), show(&b[new.clone()], new.start));
        match tag {
            DiffTag::Equal => {}
            DiffTag::Delete => found.plain("text", Kind::Missing, Some(&was), None),
            DiffTag::Insert => found.plain("text", Kind::Extra, None, Some(&is)),
            DiffTag::Replace => found.plain("text", Kind::Value, Some(&was), Some(&is)),
        }
    }
    Ok(())
}
