//! Compares two texts line by line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::body_rules::RuleId;
use super::bounds::BoundExceeded;
use super::digest::digest;
use super::findings::ComparisonFindings;
use super::id_map::{FoundIds, IdMap};
use super::redact::ShownAs;
use super::text_lines::{Line, LineEquality, Lines};
use super::text_rules::TextRules;
use super::verdict::DifferenceKind;

/// The most lines, of both texts together and without their common beginning and end, for which an alignment is
/// computed: in the worst case the work grows with the product of the numbers of lines, and it cannot be interrupted.
const LINES_MAX: usize = 3_000;
/// The longest first word of a line that tells differences apart.
const WORD_BYTES_MAX: usize = 32;
/// The most lines of one place that a difference shows.
const LINES_SHOWN_MAX: usize = 4;
const PATH: &str = "text";

/// What the comparison of texts depends on beside the texts.
#[derive(Clone, Copy)]
pub(super) struct TextContext<'a> {
    /// `None` if the route has no rules for texts: differences then show digests of lines, because a line has no key
    /// that would tell whether it is secret.
    pub(super) rules: Option<&'a TextRules>,
    pub(super) ids: &'a IdMap,
    /// The rule that is counted if two lines are equal only because their ids correspond.
    pub(super) renaming: Option<RuleId>,
    /// Whether it matters for equal texts if a line of them is compared, because nothing else of the replies is.
    pub(super) needs_compared_line: bool,
}

/// Binds the ids in lines that correspond.
pub(super) fn bind_ids(
    legacy: &str,
    engine: &str,
    rules: &TextRules,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    if rules.first_id_rule().is_none() {
        return Ok(());
    }
    let (a, b) = (Lines::of(legacy, Some(rules), findings)?.counted, Lines::of(engine, Some(rules), findings)?.counted);
    let Some(alignment) = align(&a, &b, None, findings)? else { return Ok(()) };
    for (line, other) in alignment.pairs.iter().filter_map(|(n, m)| Some((a.get(*n)?, b.get(*m)?))) {
        findings.count_work()?;
        for (legacy, engine, by) in line.ids_with(other) {
            ids.bind(None, legacy, engine, || FoundIds {
                path: PATH.to_owned(),
                // An id that its own line does not show is not shown beside another one.
                shown_as: match line.shown(findings).contains(legacy) && other.shown(findings).contains(engine) {
                    true => ShownAs::UnderKey,
                    false => ShownAs::Stars,
                },
                legacy: legacy.into(),
                engine: engine.into(),
                rule: Some(by.rule),
                unproven: Some(by.unproven),
            });
        }
    }
    Ok(())
}

/// Compares two texts.
pub(super) fn compare(
    legacy: &str,
    engine: &str,
    context: TextContext<'_>,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    let TextContext { rules, ids, renaming, needs_compared_line } = context;
    let ignores_lines = || rules.is_some_and(|rules| rules.ignore_rules().next().is_some());
    if legacy == engine && ids.is_empty() && !(needs_compared_line && ignores_lines()) {
        if !legacy.is_empty() {
            findings.compared.note_value();
        }
        return Ok(());
    }
    let (left, right) = (Lines::of(legacy, rules, findings)?, Lines::of(engine, rules, findings)?);
    for rule in rules.into_iter().flat_map(TextRules::ignore_rules) {
        if left.ignored.get(&rule) != right.ignored.get(&rule) {
            findings.count_use(rule);
        }
    }
    // Not counted for equal texts, which are equal without the patterns.
    if let Some(rule) = left.too_long.or(right.too_long).filter(|_| legacy != engine) {
        findings.count_use(rule);
    }
    let (a, b) = (left.counted, right.counted);
    if !(a.is_empty() && b.is_empty()) {
        findings.compared.note_value();
    }
    let Some(alignment) = align(&a, &b, Some(ids), findings)? else {
        let shown = |text: &str| digest(text.as_bytes());
        findings.add_text(PATH, DifferenceKind::Value, Some(&shown(legacy)), Some(&shown(engine)));
        findings.truncate();
        return Ok(());
    };
    let mut places = alignment.places;
    for (n, m) in alignment.pairs {
        findings.count_work()?;
        let (Some(line), Some(other)) = (a.get(n), b.get(m)) else { continue };
        if !are_equal(line, other, ids, renaming, findings) {
            places.push((n..n + 1, m..m + 1));
        }
    }
    places.sort_by_key(|(old, new)| (old.start, new.start));
    for (old, new) in places {
        let (Some(old), Some(new)) = (a.get(old), b.get(new)) else { continue };
        // The alignment replaces only ids that cannot be mistaken for something else; these lines may be equal by
        // others.
        let mut pairs = old.iter().zip(new);
        if old.len() == new.len() && pairs.all(|(line, other)| are_equal(line, other, ids, renaming, findings)) {
            continue;
        }
        let kind = match (old.is_empty(), new.is_empty()) {
            (false, true) => DifferenceKind::Missing,
            (true, false) => DifferenceKind::Extra,
            (false, false) | (true, true) => DifferenceKind::Value,
        };
        let contradicted: Vec<&FoundIds> = old
            .iter()
            .zip(new)
            .flat_map(|(line, other)| line.ids_with(other))
            .flat_map(|(legacy, engine, by)| ids.contradicted(by.kind, legacy, engine))
            .collect();
        for line in [old, new].into_iter().filter_map(<[_]>::first) {
            findings.add_cause(first_word(line.text));
        }
        let show = |lines: &[Line<'_>]| (!lines.is_empty()).then(|| shown(lines, rules, findings));
        let (old, new) = (show(old), show(new));
        findings.add_contradicting_text(PATH, kind, old.as_deref(), new.as_deref(), &contradicted);
    }
    Ok(())
}

/// What a line is about: its first word, `Total` of `Total: 12.00 EUR`. Empty if the word is long, or has digits, as
/// the name of a single thing does.
fn first_word(line: &str) -> &str {
    let word = line.split_whitespace().next().unwrap_or_default();
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    if word.len() > WORD_BYTES_MAX || word.contains(|c: char| c.is_ascii_digit()) { "" } else { word }
}

/// Whether two lines are equal; counts the rules by which they are.
fn are_equal(
    line: &Line<'_>,
    other: &Line<'_>,
    ids: &IdMap,
    renaming: Option<RuleId>,
    findings: &mut ComparisonFindings<'_>,
) -> bool {
    match line.equality(other, ids, renaming) {
        LineEquality::Same => true,
        LineEquality::By(rules) => {
            rules.into_iter().for_each(|rule| findings.count_use(rule));
            true
        }
        LineEquality::Different => false,
    }
}

/// Which lines of two texts correspond.
struct Alignment {
    /// Indexes of lines that may be equal.
    pairs: Vec<(usize, usize)>,
    /// Where the texts differ.
    places: Vec<(Range<usize>, Range<usize>)>,
}

/// The numbers of lines: the same for lines with the same key.
fn numbered<'t>(
    lines: &[Line<'t>],
    engine_ids: Option<&IdMap>,
    numbers: &mut HashMap<Cow<'t, str>, u32>,
    findings: &mut ComparisonFindings<'_>,
) -> Result<Vec<u32>, BoundExceeded> {
    let number = |line: &Line<'t>| {
        findings.count_work()?;
        let next = numbers.len() as u32;
        Ok(*numbers.entry(line.key(engine_ids)).or_insert(next))
    };
    lines.iter().map(number).collect()
}

/// Aligns two texts by the keys of their lines; `None` if too many lines differ.
fn align(
    legacy: &[Line<'_>],
    engine: &[Line<'_>],
    ids: Option<&IdMap>,
    findings: &mut ComparisonFindings<'_>,
) -> Result<Option<Alignment>, BoundExceeded> {
    // Lines are mapped to numbers, because the alignment compares each pair of lines many times.
    let mut numbers = HashMap::new();
    let a = numbered(legacy, None, &mut numbers, findings)?;
    let b = numbered(engine, ids, &mut numbers, findings)?;
    drop(numbers);
    let front = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&a[front..a.len() - back], &b[front..b.len() - back]);
    if middle_a.len() + middle_b.len() > LINES_MAX {
        return Ok(None);
    }
    findings.check_time()?;
    let mut pairs: Vec<(usize, usize)> = (0..front).map(|n| (n, n)).collect();
    let mut places = Vec::new();
    for change in capture_diff_slices(Algorithm::Myers, middle_a, middle_b) {
        let (tag, old, new) = change.as_tag_tuple();
        let (old, new) = (old.start + front..old.end + front, new.start + front..new.end + front);
        match tag {
            DiffTag::Equal => pairs.extend(old.zip(new)),
            DiffTag::Delete | DiffTag::Insert | DiffTag::Replace => places.push((old, new)),
        }
    }
    pairs.extend((0..back).map(|n| (a.len() - back + n, b.len() - back + n)));
    Ok(Some(Alignment { pairs, places }))
}

/// Returns the lines of one place as a difference shows them.
fn shown(lines: &[Line<'_>], rules: Option<&TextRules>, findings: &ComparisonFindings<'_>) -> String {
    let first = lines.first().map_or(0, |line| line.number);
    let Some(rules) = rules else {
        let text: String = lines.iter().map(|line| line.text).collect();
        return format!("line {first}: {} lines, {}", lines.len(), digest(text.as_bytes()));
    };
    let content = |line: &Line<'_>| {
        let is_long = rules.too_long(line.text.trim_end_matches(['\n', '\r'])).is_some();
        let unapplied = if is_long { " (too long for patterns)" } else { "" };
        format!("line {}{unapplied}: {}", line.number, line.shown(findings))
    };
    let mut texts: Vec<String> = lines.iter().take(LINES_SHOWN_MAX).map(content).collect();
    if let Some(more) = lines.len().checked_sub(LINES_SHOWN_MAX).filter(|more| *more > 0) {
        texts.push(format!("and {more} more"));
    }
    texts.join("\n")
}
