//! `alive.next:`, where a page of the list of legacy's instances names the next one.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json_path::JsonPath;

use super::creates::selects_one_value;
use crate::expression::parse_json_path;
use crate::flag::NextPage;
use crate::problem::{Problems, Site};

/// Where a page names the next one: the JSONPath of its address, or a map for lists whose pages have cursors.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NextPageDraft {
    /// The JSONPath of the address.
    Address(String),
    /// The cursor, and the query parameter in which the next call sends it.
    Cursor(NextCursorDraft),
}

/// Where the cursor of the next page is, and how the next call sends it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextCursorDraft {
    /// Where the cursor is in the body of the reply: a JSONPath, such as `$.next_cursor`.
    pub cursor: String,
    /// The query parameter in which the call for the next page sends the cursor, such as `cursor`.
    pub parameter: String,
}

/// Checks where the next page is named.
pub(super) fn next_page(draft: &NextPageDraft, site: &Site, problems: &mut Problems) -> Option<NextPage> {
    match draft {
        NextPageDraft::Address(text) => single_value_path(text, "$.next", site, problems).map(NextPage::Address),
        NextPageDraft::Cursor(NextCursorDraft { cursor, parameter }) => {
            let path = single_value_path(cursor, "$.next_cursor", &site.key("cursor"), problems);
            if parameter.is_empty() {
                problems.error(&site.key("parameter"), "the parameter has no name").hint("for example cursor");
                return None;
            }
            Some(NextPage::Cursor { path: path?, parameter: parameter.clone() })
        }
    }
}

fn single_value_path(text: &str, example: &str, site: &Site, problems: &mut Problems) -> Option<JsonPath> {
    let why = match parse_json_path(text) {
        Ok(path) if selects_one_value(text) => return Some(path),
        Ok(_) => "does not name one value".to_owned(),
        Err(error) => format!("is not a JSONPath: {error}"),
    };
    problems.error(site, format!("`{text}` {why}")).hint(format!("for example {example}"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_the_next_page_is_one_value() {
        let site = Site::file("r.yaml").key("next");
        for (draft, problem) in [
            (serde_json::json!("$.paging.next"), None),
            (serde_json::json!("$.a[*].next"), Some("does not name one value")),
            (serde_json::json!("next"), Some("is not a JSONPath")),
            (serde_json::json!({ "cursor": "$.next", "parameter": "after" }), None),
            (serde_json::json!({ "cursor": "$..next", "parameter": "after" }), Some("does not name one value")),
            (serde_json::json!({ "cursor": "$.next", "parameter": "" }), Some("has no name")),
        ] {
            let mut problems = Problems::default();
            let parsed: NextPageDraft = serde_json::from_value(draft.clone()).unwrap();
            let found = next_page(&parsed, &site, &mut problems);
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(found.is_some(), problem.is_none(), "{draft}");
            assert!(problem.is_none_or(|problem| messages[0].contains(problem)), "{messages:?}");
        }
    }
}
