//! Tells whether two values are equal, exactly or within a tolerance.

use super::body_rules::Tolerance;
use super::bounds::BoundExceeded;
use super::findings::ComparisonFindings;
use super::node::{Kind, Node};
use super::number::{Decimal, NumberForm};
use super::times;

/// Whether two documents are equal without any rule but the form of their numbers.
pub(super) fn same(
    legacy: Node<'_>,
    engine: Node<'_>,
    form: NumberForm,
    findings: &mut ComparisonFindings<'_>,
) -> Result<bool, BoundExceeded> {
    findings.count_work()?;
    Ok(match (legacy.kind(), engine.kind()) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Bool(a), Kind::Bool(b)) => a == b,
        (Kind::Number(a), Kind::Number(b)) => form.same(a, b),
        (Kind::String(a), Kind::String(b)) => a == b,
        (Kind::Array(a), Kind::Array(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !same(a, b, form, findings)? {
                    return Ok(false);
                }
            }
            true
        }
        (Kind::Object(a), Kind::Object(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, a) in a.iter() {
                let Some(b) = b.get(key) else { return Ok(false) };
                if !same(a, b, form, findings)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}

/// Whether two values differ by no more than a tolerance.
pub(super) fn within(
    legacy: Node<'_>,
    engine: Node<'_>,
    by: &Tolerance,
    findings: &mut ComparisonFindings<'_>,
) -> Result<bool, BoundExceeded> {
    Ok(match (by, legacy.kind(), engine.kind()) {
        // In forms, tables and XML, numbers are texts.
        (Tolerance::Number(by), Kind::Number(a), Kind::Number(b))
        | (Tolerance::Number(by), Kind::String(a), Kind::String(b)) => {
            matches!((Decimal::parse(a), Decimal::parse(b)), (Some(a), Some(b)) if a.within(&b, by))
        }
        (Tolerance::Time(by), Kind::Number(_) | Kind::String(_), Kind::Number(_) | Kind::String(_)) => {
            times::are_within(&legacy.value(), &engine.value(), *by)
        }
        (Tolerance::TimesInText(times), Kind::String(a), Kind::String(b)) => {
            times.with_times_of_legacy(a, b, &mut |bytes| findings.count_work_on(bytes))?.is_some_and(|text| text == a)
        }
        (Tolerance::Number(_) | Tolerance::Time(_) | Tolerance::TimesInText(_), ..) => false,
    })
}
