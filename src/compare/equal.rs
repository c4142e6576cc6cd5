//! Tells whether two values are equal, exactly or within a tolerance.

use serde_json::Value;

use super::body_rules::Tolerance;
use super::bounds::BoundExceeded;
use super::findings::ComparisonFindings;
use super::number::{Decimal, NumberForm};
use super::times;

/// Whether two documents are equal without any rule but the form of their numbers.
pub(super) fn same(
    legacy: &Value,
    engine: &Value,
    form: NumberForm,
    findings: &mut ComparisonFindings<'_>,
) -> Result<bool, BoundExceeded> {
    findings.step()?;
    Ok(match (legacy, engine) {
        (Value::Number(a), Value::Number(b)) => form.same(a, b),
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b) {
                if !same(a, b, form, findings)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Object(a), Value::Object(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, a) in a {
                let Some(b) = b.get(key) else { return Ok(false) };
                if !same(a, b, form, findings)? {
                    return Ok(false);
                }
            }
            true
        }
        (a, b) => a == b,
    })
}

/// Whether two values differ by no more than a tolerance.
pub(super) fn within(legacy: &Value, engine: &Value, by: &Tolerance) -> bool {
    match (by, legacy, engine) {
        (Tolerance::Number(by), Value::Number(a), Value::Number(b)) => {
            matches!((Decimal::parse(a.as_str()), Decimal::parse(b.as_str())), (Some(a), Some(b)) if a.within(&b, by))
        }
        // In forms, tables and XML, numbers are texts.
        (Tolerance::Number(by), Value::String(a), Value::String(b)) => {
            matches!((Decimal::parse(a), Decimal::parse(b)), (Some(a), Some(b)) if a.within(&b, by))
        }
        (Tolerance::Number(_), ..) => false,
        (Tolerance::Time(by), a, b) => times::are_within(a, b, *by),
    }
}
