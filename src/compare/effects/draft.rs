//! `compare.effects.STEP`, as a person writes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compare::rule_drafts::{IdDraft, IgnoreDraft, ToleranceDraft, UnorderedDraft};
use crate::compare::text_rules::TextRulesDraft;

/// How the calls of one step are compared with those that legacy made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EffectRulesDraft {
    /// The only headers of the call that are compared. By default none.
    pub headers: Vec<String>,
    /// Parts of the call that may differ: JSONPath over its body (`$.sent_at`; `$` is all of it), `header.NAME`,
    /// `query.NAME`, or `path` for the values in the path.
    pub ignore: Vec<IgnoreDraft>,
    /// Values in the body that are ids (JSONPath): they are equal if legacy's ids correspond one-to-one to the
    /// engine's, in the replies and in all calls of the pair.
    pub ids: Vec<IdDraft>,
    /// Arrays in the body whose order does not matter. Each JSONPath has the value `set`, or the name of the field that
    /// is the key of the elements.
    pub unordered: BTreeMap<String, UnorderedDraft>,
    /// Values in the body that may differ by a tolerance: a number (absolute), a duration such as `2s` for times, or
    /// `{ times: 2s }` for the times within a text.
    pub tolerance: BTreeMap<String, ToleranceDraft>,
    /// How a body that is text is compared, line by line. Left out: lines are equal, apart from ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRulesDraft>,
    /// Whether the position of the call among the other calls does not matter.
    pub any_order: bool,
    /// Whether the calls are compared even though the step only reads.
    pub reads: bool,
    /// Why legacy's calls of this step do not come through the egress listener. Calls that only the engine would make
    /// are then no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// Why legacy may make the same call as this step, which the engine sends beside it: a private step (in `dark`), or
    /// one that reads with a method that is not safe (in `shadow` and `dark`). What the call does is then done twice.
    /// Left out: the gates to `dark` and `live` stay shut if legacy makes the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by_both: Option<String>,
}
