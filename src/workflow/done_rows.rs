//! How a snapshot stores the calls that a run has done: a row for each, without the values that its open step holds
//! already.
//!
//! Always true: what is read back equals what was written, and shares the same values in memory. An open step holds the
//! value and the output of each of its items, which may be thousands; a second copy of them would be most of the
//! snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Run;
use super::calls::{DoneCall, StepState};
use crate::expression::SharedJson;
use crate::names::{RunId, Seq, StepId, WorkflowName};

/// The calls that a run has done, as they are stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct DoneRows {
    steps: Vec<StepId>,
    rows: Vec<Row>,
}

/// The index of the step, the item, the first attempt, the end, the status, and the other fields where one is not the
/// default.
#[derive(Debug, Serialize, Deserialize)]
struct Row(usize, Option<u32>, Seq, Seq, Option<u16>, Option<Box<RareFields>>);

/// Fields that few calls need.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct RareFields {
    #[serde(skip_serializing_if = "ValuePlace::is_in_step")]
    value: ValuePlace<Arc<Value>>,
    #[serde(skip_serializing_if = "ValuePlace::is_in_step")]
    output: ValuePlace<SharedJson>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rehearsed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    harmless: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_before: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<(RunId, WorkflowName)>,
}

/// Where a value is stored.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValuePlace<V> {
    /// In the open step, under the call's item.
    #[default]
    InStep,
    /// There is no value.
    Absent,
    /// In this row.
    InRow(V),
}

impl<V: Clone> ValuePlace<V> {
    fn is_in_step(&self) -> bool {
        matches!(self, ValuePlace::InStep)
    }

    fn of(value: Option<&V>, in_step: Option<&V>, is_same: impl Fn(&V, &V) -> bool) -> Self {
        match (value, in_step) {
            (None, None) => ValuePlace::InStep,
            (Some(value), Some(in_step)) if is_same(value, in_step) => ValuePlace::InStep,
            (Some(value), _) => ValuePlace::InRow(value.clone()),
            (None, Some(_)) => ValuePlace::Absent,
        }
    }

    fn get(self, in_step: Option<&V>) -> Option<V> {
        match self {
            ValuePlace::InStep => in_step.cloned(),
            ValuePlace::Absent => None,
            ValuePlace::InRow(value) => Some(value),
        }
    }
}

/// The value and the output that a step holds for an item while the step is open.
fn in_step<'a>(run: &'a Run, step: &StepId, item: Option<u32>) -> (Option<&'a Arc<Value>>, Option<&'a SharedJson>) {
    let Some(StepState::Open(open)) = run.steps.get(step) else { return (None, None) };
    let value = item.and_then(|item| open.items.as_ref()?.get(item as usize));
    (value, open.results.get(&item.unwrap_or(0)).and_then(|result| result.output.as_ref()))
}

impl DoneRows {
    /// The calls that this run has done.
    pub fn of(run: &Run) -> Self {
        let (mut steps, mut indexes) = (Vec::new(), HashMap::new());
        let rows = run.done.iter().map(|done| {
            let DoneCall {
                step,
                item,
                value,
                first_seq,
                last_seq,
                status,
                output,
                rehearsed,
                harmless,
                origin,
                group_before,
                child,
            } = done;
            let index = *indexes.entry(step).or_insert_with(|| {
                steps.push(step.clone());
                steps.len() - 1
            });
            let (value_there, output_there) = in_step(run, step, *item);
            let rare = RareFields {
                value: ValuePlace::of(value.as_ref(), value_there, Arc::ptr_eq),
                output: ValuePlace::of(Some(output), output_there, SharedJson::is_same),
                rehearsed: *rehearsed,
                harmless: *harmless,
                origin: *origin,
                group_before: *group_before,
                child: child.clone(),
            };
            let rare = (rare != RareFields::default()).then(|| Box::new(rare));
            Row(index, *item, *first_seq, *last_seq, *status, rare)
        });
        let rows = rows.collect();
        Self { steps, rows }
    }

    /// The calls in these rows; `run` was read back without them.
    ///
    /// # Errors
    /// A row refers to a step, a value or an output that is not there.
    pub fn read(self, run: &Run) -> Result<Vec<DoneCall>, String> {
        let Self { steps, rows } = self;
        let calls = rows.into_iter().map(|Row(index, item, first_seq, last_seq, status, rare)| {
            let step = steps.get(index).ok_or("a call that was done names no step")?.clone();
            let (value, output) = in_step(run, &step, item);
            let RareFields {
                value: value_place,
                output: output_place,
                rehearsed,
                harmless,
                origin,
                group_before,
                child,
            } = rare.map_or_else(RareFields::default, |rare| *rare);
            let value = value_place.get(value);
            let output = output_place.get(output).ok_or("a call that was done has no output")?;
            Ok(DoneCall {
                step,
                item,
                value,
                first_seq,
                last_seq,
                status,
                output,
                rehearsed,
                harmless,
                origin,
                group_before,
                child,
            })
        });
        calls.collect()
    }
}
