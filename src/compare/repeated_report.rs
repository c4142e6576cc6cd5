//! Reports the keys that one of two objects has more often than the other, or with other earlier values.

use serde_json::Value;

use super::bounds::BoundExceeded;
use super::context::WalkContext;
use super::findings::ComparisonFindings;
use super::node::{Members, Node};
use super::value_path::ValuePath;
use super::verdict::DifferenceKind;
use crate::secret::STARS;

/// Tells whether two values are equal by the rules.
pub(super) type IsSame =
    fn(&mut WalkContext<'_, '_>, &ValuePath<'_>, Node<'_>, Node<'_>) -> Result<bool, BoundExceeded>;

/// Reports the repeated keys of two objects at the same path. A key that one object does not have at all is left to the
/// comparison of the members.
pub(super) fn report<'v>(
    cx: &mut WalkContext<'_, '_>,
    path: &mut ValuePath<'v>,
    (legacy, legacy_members): (Node<'v>, Members<'v>),
    (engine, engine_members): (Node<'v>, Members<'v>),
    is_same: IsSame,
) -> Result<(), BoundExceeded> {
    for key in keys_repeated_by_either(cx, legacy, engine) {
        let (Some((key, of_legacy)), Some(of_engine)) = (legacy_members.get_with_key(key), engine_members.get(key))
        else {
            continue;
        };
        path.enter_key(key);
        let reported = report_member(cx, path, (legacy, key, of_legacy), (engine, key, of_engine), is_same);
        path.leave();
        reported?;
    }
    Ok(())
}

/// The keys that one of two objects repeats, each once.
pub(super) fn keys_repeated_by_either<'a>(
    cx: &WalkContext<'a, '_>,
    legacy: Node<'_>,
    engine: Node<'_>,
) -> Vec<&'a String> {
    let repeated = cx.rules_by_node.repeated();
    let mut keys: Vec<&String> = repeated.keys_of(legacy).chain(repeated.keys_of(engine)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Reports two members that correspond, each of an object, if one of them stands more often than the other, or with
/// other earlier values. `path` is that of the members.
pub(super) fn report_member(
    cx: &mut WalkContext<'_, '_>,
    path: &ValuePath<'_>,
    (legacy, legacy_key, of_legacy): (Node<'_>, &str, Node<'_>),
    (engine, engine_key, of_engine): (Node<'_>, &str, Node<'_>),
    is_same: IsSame,
) -> Result<(), BoundExceeded> {
    let repeated = cx.rules_by_node.repeated();
    let legacy = Occurrences { earlier: repeated.earlier(legacy, legacy_key), last: of_legacy };
    let engine = Occurrences { earlier: repeated.earlier(engine, engine_key), last: of_engine };
    let mut are_same = legacy.earlier.len() == engine.earlier.len();
    for (a, b) in legacy.earlier.iter().zip(&engine.earlier) {
        are_same = are_same && is_same(cx, path, (*a).into(), (*b).into())?;
    }
    if are_same {
        return Ok(());
    }
    if let Some(rule) = cx.rules_by_node.on_either(of_legacy, of_engine).ignore {
        cx.findings.count_use(rule);
        return Ok(());
    }
    cx.findings.add_shown(path, DifferenceKind::DuplicateKey, |findings| {
        (Some(legacy.shown(legacy_key, path, findings)), Some(engine.shown(engine_key, path, findings)))
    });
    Ok(())
}

/// All values of one key of an object.
struct Occurrences<'a> {
    /// The values before the last one, in their order.
    earlier: Vec<&'a Value>,
    last: Node<'a>,
}

impl Occurrences<'_> {
    fn shown(&self, key: &str, path: &ValuePath<'_>, findings: &ComparisonFindings<'_>) -> String {
        let values = self.earlier.iter().copied().cloned().chain([self.last.value().into_owned()]).collect();
        let times = match self.earlier.len() {
            0 => "once".to_owned(),
            1 => "twice".to_owned(),
            more => format!("{} times", more.saturating_add(1)),
        };
        let key = if path.hides_last_key() { STARS.to_owned() } else { findings.shown_text(key) };
        let values = findings.shown_value(path, (&Value::Array(values)).into());
        format!("the key `{key}` stands {times}: {values}")
    }
}
