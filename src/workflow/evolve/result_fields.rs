//! The values that expressions read from a step whose calls have all ended.

use serde_json::Value;

use crate::expression::SharedJson;
use crate::workflow::calls::{CallResult, RunningStep};

type Fields = Vec<(&'static str, Value)>;

/// Returns why a step whose calls have all ended has no output, its output, and the other fields that expressions read.
/// For a fan-out, the output and the fields are lists in the order of the items. If a rehearsed call has no declared
/// output, only the reason is returned.
pub(super) fn result_fields(open: &RunningStep) -> (Option<String>, Option<SharedJson>, Fields) {
    let why_no_output = open.results.values().find_map(|result| result.why_no_output.clone());
    if why_no_output.is_some() {
        return (why_no_output, None, Vec::new());
    }
    let headers = |result: &CallResult| {
        Value::Object(result.headers.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect())
    };
    let status = |result: &CallResult| result.status.map_or(Value::Null, Value::from);
    let Some(items) = &open.items else {
        let Some(result) = open.results.get(&0) else { return (None, None, Vec::new()) };
        let output = result.output.clone().unwrap_or_default();
        return (None, Some(output), vec![("status", status(result)), ("headers", headers(result))]);
    };
    let of_all = |what: &dyn Fn(&CallResult) -> Value| {
        let indexes = (0u32..).take(items.len());
        Value::Array(indexes.map(|item_index| open.results.get(&item_index).map_or(Value::Null, what)).collect())
    };
    let output = |item_index| open.results.get(&item_index)?.output.as_ref();
    let output = SharedJson::list((0u32..).take(items.len()).map(output));
    let mut fields = vec![("status", of_all(&status)), ("headers", of_all(&headers))];
    if let Some(by) = &open.fallbacks_by_item {
        let name =
            |item_index: u32| by.get(&item_index).map_or(Value::Null, |by| Value::String(by.as_str().to_owned()));
        fields.push(("by", (0u32..).take(items.len()).map(name).collect()));
    }
    if open.collect {
        let errors = open.failures.iter().map(|(index, failure)| {
            serde_json::json!({ "index": index, "status": failure.status, "message": failure.message })
        });
        fields.push(("errors", Value::Array(errors.collect())));
    }
    (None, Some(output), fields)
}
