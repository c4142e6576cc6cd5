//! Determines which reply headers a run of the plan records.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::expression::ReadPath;
use crate::workflow::plan::Step;
use crate::workflow::reply_headers::RecordedHeaders;
use crate::workflow::sensitive::Sensitive;

/// Returns, for each step, which headers of its replies are recorded: the sensitive ones, and those that an expression
/// reads from the step or from a step that it replaces.
pub(super) fn recorded(steps: &[Step], reads: &[ReadPath], sensitive: &Sensitive) -> Vec<Arc<RecordedHeaders>> {
    let named: BTreeSet<Arc<str>> = sensitive.headers.iter().map(|name| name.as_str().into()).collect();
    let all = reads.iter().any(|path| path.root() == "steps" && path.part(0).is_none());
    let of = |step: &Step| {
        let mut recorded = if all { RecordedHeaders::All } else { RecordedHeaders::Only(named.clone()) };
        let mut read_as = Some(step);
        for _ in steps {
            let Some(read_step) = read_as else { break };
            let of_step = |path: &&ReadPath| path.root() == "steps" && path.part(0) == Some(read_step.id.as_str());
            reads.iter().filter(of_step).for_each(|path| recorded.add(path));
            read_as = read_step.replaces.and_then(|original| steps.get(original.0));
        }
        Arc::new(recorded)
    };
    steps.iter().map(of).collect()
}
