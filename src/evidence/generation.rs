//! In which evidence of a route a request counts, and which behaviour of the engine answered it.

/// The generation of a route's evidence in which a comparison counts: it increases each time the basis changes. `None`
/// if the request was decided by files with another basis: the comparison counts in no generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EvidenceGeneration(pub(super) Option<u64>);

/// The generation of the engine's behaviour for a route's requests: it increases each time a part of the basis changes
/// that is not the rules, because the engine may then give out the same ids again. `None` as for
/// [`EvidenceGeneration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EngineGeneration(pub(super) Option<u64>);

#[cfg(test)]
impl EngineGeneration {
    /// A generation with this number.
    pub(crate) const fn testing(number: u64) -> Self {
        Self(Some(number))
    }
}
