//! What a rehearsed call took from a call by legacy, and how a rehearsal is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Failure;

/// What a rehearsed call took from a call by legacy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenReply {
    /// The number of the call: unique in the process that saw it.
    pub call: u64,
    /// The status of its reply.
    pub status: u16,
    /// The reply's headers that are recorded, names in lower case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Why the step fails for good: the service refused the call by legacy, or the reply does not fit the schema of the
    /// step's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Failure>,
}

/// How a rehearsal (`Outcome::Rehearsed`) is stored. A declared output that is null is written like an output that
/// nobody declared; `declares_null` tells the two apart.
pub(super) mod stored_rehearsal {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::TakenReply;
    use crate::expression::SharedJson;
    use crate::workflow::CallRecord;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        intent: Arc<CallRecord>,
        output: Option<SharedJson>,
        note: Option<String>,
        /// The output was declared, and is null. Absent in events of earlier versions.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        declares_null: bool,
        /// Absent in events of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<TakenReply>,
    }

    pub fn serialize<S: Serializer>(
        intent: &Arc<CallRecord>,
        output: &Option<SharedJson>,
        note: &Option<String>,
        taken: &Option<TakenReply>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let declares_null = output.as_ref().is_some_and(|output| output.is_null());
        let (intent, output, note, taken) = (intent.clone(), output.clone(), note.clone(), taken.clone());
        Stored { intent, output, note, declares_null, taken }.serialize(serializer)
    }

    type Fields = (Arc<CallRecord>, Option<SharedJson>, Option<String>, Option<TakenReply>);

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        let Stored { intent, output, note, declares_null, taken } = Stored::deserialize(deserializer)?;
        Ok((intent, output.or_else(|| declares_null.then(SharedJson::default)), note, taken))
    }
}
