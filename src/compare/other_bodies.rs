//! Compares bodies that do not both have a structure.

use super::bounds::BoundExceeded;
use super::digest::digest;
use super::findings::ComparisonFindings;
use super::parsed_body::ParsedBody;
use super::text::{self, TextContext};
use super::verdict::DifferenceKind;

/// Compares two bodies, each with the name of its type: text line by line, bytes as a whole (a difference shows their
/// digests), and bodies of different types by type only.
pub(super) fn compare(
    (legacy, legacys_type): (&ParsedBody, &str),
    (engine, engines_type): (&ParsedBody, &str),
    texts: TextContext<'_>,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    if let (Some(legacy), Some(engine)) = (legacy.text(), engine.text()) {
        return text::compare(legacy, engine, texts, findings);
    }
    match (legacy, engine) {
        (ParsedBody::Empty, ParsedBody::Empty) => {}
        (ParsedBody::Bytes(legacy), ParsedBody::Bytes(engine)) => {
            if !legacy.is_empty() {
                findings.compared.note_value();
            }
            if legacy != engine {
                findings.add_text("body", DifferenceKind::Value, Some(&digest(legacy)), Some(&digest(engine)));
            }
        }
        (ParsedBody::Empty, _) => findings.add_text("body", DifferenceKind::Extra, None, Some(engines_type)),
        (_, ParsedBody::Empty) => findings.add_text("body", DifferenceKind::Missing, Some(legacys_type), None),
        _ => findings.add_text("body", DifferenceKind::Type, Some(legacys_type), Some(engines_type)),
    }
    Ok(())
}
