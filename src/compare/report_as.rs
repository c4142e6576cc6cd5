//! The kind as which differences between values are listed.

use super::verdict::DifferenceKind;

/// The kind as which differences between values are listed. Other kinds (`status`, `header`, …) are listed as found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportAs {
    /// As the kind that was found.
    Found,
    /// As `stale_read`: the engine read data that legacy had already changed.
    StaleRead,
    /// As `intent`.
    Intent,
    /// As `effect_differs`.
    Effect,
}

impl ReportAs {
    /// The kind as which a difference of this kind is listed.
    pub(super) fn kind_of(self, kind: DifferenceKind) -> DifferenceKind {
        match (kind, self) {
            (
                DifferenceKind::Missing
                | DifferenceKind::Extra
                | DifferenceKind::Value
                | DifferenceKind::Type
                | DifferenceKind::Order
                | DifferenceKind::DuplicateKey,
                report_as,
            ) => match report_as {
                Self::Found => kind,
                Self::StaleRead => DifferenceKind::StaleRead,
                Self::Intent => DifferenceKind::Intent,
                Self::Effect => DifferenceKind::EffectDiffers,
            },
            (kind, _) => kind,
        }
    }
}
