//! Compares two texts line by line.

use std::collections::HashMap;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::bounds::BoundExceeded;
use super::digest::digest;
use super::findings::ComparisonFindings;
use super::verdict::DifferenceKind;

/// The most lines, of both texts together and without their common beginning and end, for which an alignment is
/// computed: in the worst case the work grows with the product of the numbers of lines, and it cannot be interrupted.
const LINES_MAX: usize = 3_000;

/// Compares two texts. A line has no key that would tell whether it is secret, so its digest is shown instead.
pub(super) fn compare(legacy: &str, engine: &str, findings: &mut ComparisonFindings<'_>) -> Result<(), BoundExceeded> {
    if legacy == engine {
        return Ok(());
    }
    let (a, b): (Vec<&str>, Vec<&str>) =
        (legacy.split_inclusive('\n').collect(), engine.split_inclusive('\n').collect());
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[front..a.len() - back], &b[front..b.len() - back]);
    if a.len() + b.len() > LINES_MAX {
        findings.add_text(
            "text",
            DifferenceKind::Value,
            Some(&digest(legacy.as_bytes())),
            Some(&digest(engine.as_bytes())),
        );
        findings.truncate();
        return Ok(());
    }
    findings.check_time()?;
    // Lines are mapped to numbers, because the alignment compares each pair of lines many times.
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut number = |line| {
        let next = numbers.len() as u32;
        *numbers.entry(line).or_insert(next)
    };
    let left: Vec<u32> = a.iter().map(|line| number(line)).collect();
    let right: Vec<u32> = b.iter().map(|line| number(line)).collect();
    for change in capture_diff_slices(Algorithm::Myers, &left, &right) {
        let (tag, old, new) = change.as_tag_tuple();
        let show = |lines: &[&str], from: usize| {
            let text = lines.concat();
            format!("line {}: {} lines, {}", front + from + 1, lines.len(), digest(text.as_bytes()))
        };
        let (legacy_lines, engine_lines) = (show(&a[old.clone()], old.start), show(&b[new.clone()], new.start));
        match tag {
            DiffTag::Equal => {}
            DiffTag::Delete => findings.add_text("text", DifferenceKind::Missing, Some(&legacy_lines), None),
            DiffTag::Insert => findings.add_text("text", DifferenceKind::Extra, None, Some(&engine_lines)),
            DiffTag::Replace => {
                findings.add_text("text", DifferenceKind::Value, Some(&legacy_lines), Some(&engine_lines))
            }
        }
    }
    Ok(())
}
