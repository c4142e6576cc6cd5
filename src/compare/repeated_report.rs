//! Reports the keys that one of two objects has more often than the other, or with other earlier values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::equal::{same, within};
use super::findings::ComparisonFindings;
use super::id_map::id_text;
use super::rules_by_node::CoveringRules;
use super::value_path::ValuePath;
use super::verdict::DifferenceKind;

/// Reports the repeated keys of two objects at the same path. A key that one object does not have at all is left to the
/// comparison of the members.
pub(super) fn report<'v>(
    cx: &mut WalkContext<'_, '_>,
    path: &mut ValuePath<'v>,
    (legacy, legacy_members): (&Value, &'v Map<String, Value>),
    (engine, engine_members): (&Value, &Map<String, Value>),
) -> Result<(), BoundExceeded> {
    let repeated = cx.rules_by_node.repeated();
    let (a, b) = (repeated.of(legacy), repeated.of(engine));
    let keys: BTreeSet<&String> = [a, b].into_iter().flatten().flat_map(BTreeMap::keys).collect();
    for key in keys {
        let (Some((key, legacy)), Some(engine)) = (legacy_members.get_key_value(key), engine_members.get(key)) else {
            continue;
        };
        let [legacy, engine] = [(a, legacy), (b, engine)].map(|(keys, last)| Occurrences {
            earlier: keys.and_then(|keys| keys.get(key)).map_or(&[][..], Vec::as_slice),
            last,
        });
        let covered = cx.rules_by_node.on_either(legacy.last, engine.last);
        if legacy.are_same(&engine, covered, cx)? {
            continue;
        }
        if let Some(rule) = covered.ignore {
            cx.findings.count_use(rule);
            continue;
        }
        path.enter_key(key);
        cx.findings.add_shown(path, DifferenceKind::DuplicateKey, |findings| {
            (Some(legacy.shown(key, path, findings)), Some(engine.shown(key, path, findings)))
        });
        path.leave();
    }
    Ok(())
}

/// All values of one key of an object.
struct Occurrences<'a> {
    /// The values before the last one, in their order.
    earlier: &'a [Value],
    last: &'a Value,
}

impl Occurrences<'_> {
    /// Whether two keys stand equally often, with earlier values that are equal by the rules that cover the last ones.
    fn are_same(
        &self,
        other: &Self,
        covered: CoveringRules,
        cx: &mut WalkContext<'_, '_>,
    ) -> Result<bool, BoundExceeded> {
        if self.earlier.len() != other.earlier.len() {
            return Ok(false);
        }
        for (a, b) in self.earlier.iter().zip(other.earlier) {
            let tolerance = covered.tolerance.and_then(|n| cx.rules.tolerance.get(n));
            let is_bound = || matches!((id_text(a), id_text(b)), (Some(a), Some(b)) if cx.ids.are_bound(a, b));
            let equal = tolerance.is_some_and(|(.., by)| within(a, b, by))
                || covered.id.is_some() && is_bound()
                || match (a, b) {
                    (Value::String(a), Value::String(b)) => cx.ids.same_text(a, b),
                    _ => same(a, b, cx.rules.number_form, cx.findings)?,
                };
            if !equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shown(&self, key: &str, path: &ValuePath<'_>, findings: &ComparisonFindings<'_>) -> String {
        let values = self.earlier.iter().chain([self.last]).cloned().collect();
        let times = match self.earlier.len() {
            0 => "once".to_owned(),
            1 => "twice".to_owned(),
            more => format!("{} times", more.saturating_add(1)),
        };
        let (key, values) = (findings.shown_text(key), findings.shown_value(path, &Value::Array(values)));
        format!("the key `{key}` stands {times}: {values}")
    }
}
