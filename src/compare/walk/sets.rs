//! Arrays whose order does not matter, and objects whose keys are ids: which of their elements belong together is found
//! by what they hold.
//!
//! Always true: the ids of elements that only one pairing makes equal are bound before those of any others, in whatever
//! order the arrays stand. So the ids of a set of objects are known before a set of references to them is paired.

use serde_json::Value;

use super::{PassPurpose, SetIdBinding, Walk};
use crate::compare::body_rules::{IdRule, RuleId, Unordered};
use crate::compare::bounds::BoundExceeded;
use crate::compare::context::WalkContext;
use crate::compare::differing_elements::ElementOfLegacy;
use crate::compare::node::{Members, Node};
use crate::compare::pairing;
use crate::compare::repeated_report;
use crate::compare::value_path::ValuePath;
use crate::compare::verdict::DifferenceKind;

/// How often the elements of one array are paired anew.
const PAIRED_ANEW_MAX: usize = 16;

impl<'a, 'f> Walk<'a, 'f> {
    /// Binds the ids in unordered arrays. To be called when all other ids are bound, because these tell which elements
    /// of a set belong together. Returns whether ids may be left that it has not bound.
    pub(in crate::compare) fn bind_ids_in_sets(
        context: WalkContext<'a, 'f>,
        which: SetIdBinding,
        legacy: Node<'_>,
        engine: Node<'_>,
    ) -> Result<bool, BoundExceeded> {
        let rules = context.rules;
        if !rules.have_ids() || rules.unordered.is_empty() && rules.keys.is_empty() {
            return Ok(false);
        }
        let pass = match which {
            SetIdBinding::Unambiguous => PassPurpose::BindUnambiguous,
            SetIdBinding::All => PassPurpose::BindInUnordered,
        };
        let mut walk = Self::new(context, pass);
        walk.compare_values(&mut ValuePath::of("$"), legacy, engine)?;
        Ok(walk.is_ambiguous)
    }

    /// Compares two objects whose keys are ids: members correspond if their keys do. Keys that are not bound yet are
    /// bound as their values correspond.
    pub(super) fn compare_objects_by_id<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        by: IdRule,
        (legacy, legacy_members): (Node<'v>, Members<'v>),
        (engine, engine_members): (Node<'v>, Members<'v>),
    ) -> Result<(), BoundExceeded> {
        let context = &mut self.context;
        let pairs = match self.pass {
            PassPurpose::BindByPath | PassPurpose::BindByKey => return Ok(()),
            PassPurpose::BindUnambiguous => {
                let found = pairing::pair_certain_members(context, by.kind, legacy_members, engine_members)?;
                self.is_ambiguous |= found.len() < legacy_members.len().max(engine_members.len());
                found
            }
            PassPurpose::BindInUnordered | PassPurpose::Report => {
                pairing::pair_members(context, by.kind, legacy_members, engine_members)?
            }
        };
        for (a, b) in pairs {
            path.enter_element(a.map(|(key, _)| ElementOfLegacy::of_key(key)));
            match (a, b) {
                (Some((legacy_key, of_legacy)), Some((engine_key, of_engine))) => {
                    let keys = (Value::from(legacy_key), Value::from(engine_key));
                    self.bind_or_compare_ids(path, by, (&keys.0).into(), (&keys.1).into());
                    if self.is_report() {
                        let members = ((legacy, legacy_key, of_legacy), (engine, engine_key, of_engine));
                        repeated_report::report_member(&mut self.context, path, members.0, members.1, super::is_same)?;
                    }
                    self.compare_values(path, of_legacy, of_engine)?;
                }
                (Some((_, value)), None) => self.add_unpaired(path, DifferenceKind::Missing, value),
                (None, Some((_, value))) => self.add_unpaired(path, DifferenceKind::Extra, value),
                (None, None) => {}
            }
            path.leave();
        }
        Ok(())
    }

    pub(super) fn compare_unordered<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        legacy: &[Node<'v>],
        engine: &[Node<'v>],
        rule: RuleId,
        how: &Unordered,
    ) -> Result<(), BoundExceeded> {
        let pairs = match self.pass {
            PassPurpose::BindByPath => return Ok(()),
            PassPurpose::BindByKey if matches!(how, Unordered::Set) => return Ok(()),
            PassPurpose::BindUnambiguous => {
                let found = pairing::pair_certain(&mut self.context, legacy, engine, how)?;
                self.is_ambiguous |= found.len() < legacy.len().max(engine.len());
                found
            }
            PassPurpose::BindInUnordered => return self.bind_in_ambiguous(path, legacy, engine, how),
            PassPurpose::BindByKey | PassPurpose::Report => {
                pairing::pair_unordered(&mut self.context, legacy, engine, how)?
            }
        };
        if self.is_report() && pairs.iter().any(|(a, b)| matches!((a, b), (Some(a), Some(b)) if a != b)) {
            self.context.findings.count_use(rule);
        }
        for (a, b) in pairs {
            self.compare_element(path, a.map(|n| (n, legacy[n])), b.map(|n| engine[n]))?;
        }
        Ok(())
    }

    /// Binds the ids of elements that could be paired in several ways. After a pair that binds more than one id, the
    /// elements are paired anew: the new ids may tell which of the others belong together.
    fn bind_in_ambiguous<'v>(
        &mut self,
        path: &mut ValuePath<'v>,
        legacy: &[Node<'v>],
        engine: &[Node<'v>],
        how: &Unordered,
    ) -> Result<(), BoundExceeded> {
        for paired in 0..=PAIRED_ANEW_MAX {
            let pairs = pairing::pair_unordered(&mut self.context, legacy, engine, how)?;
            let (mut is_changed, last) = (false, pairs.len().saturating_sub(1));
            for (at, (a, b)) in pairs.into_iter().enumerate() {
                let before = self.context.ids.len();
                self.compare_element(path, a.map(|n| (n, legacy[n])), b.map(|n| engine[n]))?;
                is_changed = self.context.ids.len() > before + 1 && at < last;
                if is_changed && paired < PAIRED_ANEW_MAX {
                    break;
                }
            }
            if !is_changed {
                break;
            }
        }
        Ok(())
    }
}
