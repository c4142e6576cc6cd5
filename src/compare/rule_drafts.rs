//! Rules as a person writes them: the value alone, or a map that also says when the rule applies.
//!
//! They are read by hand, because an untagged enum would lose digits of numbers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::problem::Site;

const WHEN: &str = "The rule applies only where this condition over `request` and `legacy.status` holds: \
                    `${legacy.status < 400}`.";

/// Declares the draft of a rule with its name in the schema, its description, and the types of the value alone.
macro_rules! rule_draft {
    ($(#[$doc:meta])* $name:ident, $schema:literal, $alone:tt, $description:literal, $members:tt, $required:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Value);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $schema.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut properties = json!($members);
                properties["when"] = json!({ "type": "string", "description": WHEN });
                json_schema!({
                    "description": $description,
                    "anyOf": [
                        { "type": $alone },
                        {
                            "type": "object",
                            "properties": properties,
                            "required": $required,
                            "additionalProperties": false,
                        },
                    ],
                })
            }
        }
    };
}

rule_draft!(
    /// A part that may differ.
    IgnoreDraft,
    "Ignore",
    "string",
    "A path, or a path and when the rule applies.",
    { "path": { "type": "string", "description": "The path of what may differ." } },
    ["path"]
);
rule_draft!(
    /// An array whose order does not matter.
    UnorderedDraft,
    "Unordered",
    "string",
    "`set`, or the name of the field that is the key of the elements.",
    { "by": { "type": "string", "description": "`set`, or the name of the field that is the key of the elements." } },
    ["by"]
);
rule_draft!(
    /// By how much values may differ.
    ToleranceDraft,
    "Tolerance",
    ["number", "string"],
    "A number (absolute), or a duration such as `2s` or `500ms` for times; or a map with `by` or `times`.",
    {
        "by": {
            "type": ["number", "string"],
            "description": "A number (absolute), or a duration such as `2s` or `500ms` for times.",
        },
        "times": {
            "type": ["string", "object"],
            "additionalProperties": { "type": "string", "description": "A duration such as `2s` or `500ms`." },
            "description": "By how much the times within a text may differ, the rest of which must be equal: a \
                            duration for all times as RFC 3339 or HTTP write them, or patterns, each with a duration: \
                            the group of the pattern, or what it matches, is a time.",
        },
    },
    []
);
rule_draft!(
    /// A condition that must hold.
    AssertDraft,
    "Assert",
    "string",
    "A condition. Alone, it is not evaluated where legacy answered 4xx or 5xx.",
    { "that": { "type": "string", "description": "The condition that must hold." } },
    ["that"]
);

/// Values that are ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdDraft(pub Value);

impl JsonSchema for IdDraft {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A JSONPath, or a map with `path`, `keys` or `header.NAME`.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "path": { "type": "string", "description": "The JSONPath of the ids." },
                        "any_type": {
                            "type": "boolean",
                            "description": "With `path`: whether an id may be a number on one side and a text on the \
                                            other.",
                        },
                        "keys": {
                            "type": "string",
                            "description": "The JSONPath of objects whose keys are ids.",
                        },
                        "kind": {
                            "type": "string",
                            "description": "With `path` or `keys`: the name of what the ids are ids of. Equal ids of \
                                            different kinds need not correspond to the same id.",
                        },
                        "when": { "type": "string", "description": WHEN },
                    },
                    "additionalProperties": {
                        "type": "string",
                        "description": "`header.NAME`: the path in a header, with `{id}` for the id: `/orders/{id}`.",
                    },
                },
            ],
        })
    }
}

/// The value of a rule, where it is, and the condition of the rule.
pub(super) struct Written<'a> {
    pub(super) value: &'a Value,
    pub(super) site: Site,
    pub(super) when: Option<(&'a str, Site)>,
}

impl<'a> Written<'a> {
    /// Reads a rule whose value in a map has this key; `None` if the map does not have it, which the check by the
    /// schema reports.
    pub(super) fn of(draft: &'a Value, key: &str, site: &Site) -> Option<Self> {
        Some(match draft {
            Value::Object(map) => Self { value: map.get(key)?, site: site.key(key), when: Self::when(map, site) },
            value => Self { value, site: site.clone(), when: None },
        })
    }

    /// The condition of a rule that is written as a map.
    pub(super) fn when(map: &'a Map<String, Value>, site: &Site) -> Option<(&'a str, Site)> {
        Some((map.get("when")?.as_str()?, site.key("when")))
    }

    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }
}
