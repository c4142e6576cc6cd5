//! Compares bodies that do not both have a structure.

use super::bounds::BoundExceeded;
use super::digest::digest;
use super::findings::ComparisonFindings;
use super::parsed_body::ParsedBody;
use super::text::{self, TextContext};
use super::verdict::DifferenceKind;

/// Compares two bodies: text line by line, bytes as a whole (a difference shows their digests), and bodies of different
/// types by type only.
pub(super) fn compare(
    legacy: &ParsedBody,
    engine: &ParsedBody,
    texts: TextContext<'_>,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    match (legacy, engine) {
        (ParsedBody::Empty, ParsedBody::Empty) => Ok(()),
        (ParsedBody::Text(legacy), ParsedBody::Text(engine)) => text::compare(legacy, engine, texts, findings),
        (ParsedBody::Bytes(legacy), ParsedBody::Bytes(engine)) => {
            if legacy != engine {
                findings.add_text("body", DifferenceKind::Value, Some(&digest(legacy)), Some(&digest(engine)));
            }
            Ok(())
        }
        (ParsedBody::Empty, other) => {
            findings.add_text("body", DifferenceKind::Extra, None, Some(other.name()));
            Ok(())
        }
        (other, ParsedBody::Empty) => {
            findings.add_text("body", DifferenceKind::Missing, Some(other.name()), None);
            Ok(())
        }
        (legacy, engine) => {
            findings.add_text("body", DifferenceKind::Type, Some(legacy.name()), Some(engine.name()));
            Ok(())
        }
    }
}
