//! PURE. When an instance ends, and what is done about instances that the engine does not know.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Map, Value, json};
use serde_json_path::JsonPath;

use super::facts::scope;
use super::{RequestFacts, Service};
use crate::expression::{Expression, ExpressionError, ReadPath, Template};
use crate::names::WorkflowName;

/// The members of `reply` in the condition by which an instance ends.
pub const REPLY_PARTS: [&str; 3] = ["status", "headers", "body"];

/// How long instances live, as far as a route of their family says so.
#[derive(Clone, Default)]
pub struct InstanceLifetime {
    /// A reply of the route for which this holds ends the instance.
    pub ends: Option<InstanceEnd>,
    /// On a creator: instances end when they are this old.
    pub ends_after: Option<Duration>,
    /// On a creator: how legacy is asked which instances it has.
    pub alive: Option<Arc<AliveCall>>,
    /// On a follower: who answers, in `only`, for an id of which nothing is known.
    pub unknown: UnknownInstance,
    /// On a creator: how instances of legacy become the engine's.
    pub adopt: Option<Arc<AdoptRule>>,
}

/// How legacy's instances of a family become the engine's, one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptRule {
    /// The workflow that reads an instance from legacy, has legacy release it, and answers with what the engine
    /// keeps of it.
    pub workflow: WorkflowName,
    /// Whether the workflow tells legacy to release the instance, so that legacy refuses changes of it from then on.
    pub tells_legacy: bool,
    /// For how long legacy may go on with a request whose end was not seen: no instance that such a request may be
    /// about is moved before.
    pub settles: Duration,
}

/// For how long legacy may go on with a request whose end was not seen, unless the file says otherwise.
pub const ADOPT_SETTLES: Duration = Duration::from_secs(30);

/// The condition by which an instance ends: over a request and the reply to it.
#[derive(Clone)]
pub struct InstanceEnd(Expression);

/// A call by which legacy lists the instances that it has and that have not ended.
#[derive(Clone)]
pub struct AliveCall {
    /// The service that is called with `GET`.
    pub service: Arc<Service>,
    /// Path and query, after the service's base.
    pub path: String,
    /// The headers; they read `secrets` only.
    pub headers: Vec<(HeaderName, Template)>,
    /// Where the list is in the body of the reply. If there is none, the reply lists nothing.
    pub list: JsonPath,
    /// Where the ids are in the body of the reply: one in each element of the list.
    pub ids: JsonPath,
    /// What in the body of the reply names the next page, if not a `Link` field.
    pub next: Option<NextPage>,
}

/// What names the next page of a list.
#[derive(Clone)]
pub enum NextPage {
    /// Its address, at this path of the body.
    Address(JsonPath),
    /// Its cursor.
    Cursor {
        /// Where the cursor is in the body.
        path: JsonPath,
        /// The query parameter in which the next call sends the cursor.
        parameter: String,
    },
}

/// Who answers, in `only`, a request about an id that neither arm is known to have given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownInstance {
    /// The workflow, if it does not read `instance`; else nobody: 503.
    #[default]
    NotDeclared,
    /// The workflow: `instance.status` is `unknown`, and `instance` has no output.
    Workflow,
    /// Nobody: 404.
    NotFound,
}

/// The reply to a request, as far as a condition reads it.
pub struct ReplyFacts<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, if it is JSON; else null.
    pub body: Value,
}

impl InstanceEnd {
    /// The end of an instance by a checked condition.
    pub fn new(condition: Expression) -> Self {
        Self(condition)
    }

    /// Whether the condition reads the body of the reply.
    pub fn reads_body(&self) -> bool {
        self.0.reads().iter().any(|read| read.root() == "reply" && matches!(read.part(0), None | Some("body")))
    }

    /// Whether this reply ends the instance that the request is about.
    ///
    /// # Errors
    /// The condition has no value, for example because the body has no such member.
    pub fn holds(&self, facts: &RequestFacts<'_>, reply: &ReplyFacts<'_>) -> Result<bool, ExpressionError> {
        let mut scope = scope(self.0.reads(), facts);
        scope.set("reply", Arc::new(reply.value(self.0.reads())));
        self.0.holds(&scope)
    }
}

impl ReplyFacts<'_> {
    fn value(&self, reads: &[ReadPath]) -> Value {
        let mut headers = Map::new();
        let reads_headers = |read: &ReadPath| read.root() == "reply" && matches!(read.part(0), None | Some("headers"));
        if reads.iter().any(reads_headers) {
            for name in self.headers.keys() {
                let values: Vec<_> =
                    self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
                headers.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
            }
        }
        json!({ "status": self.status.as_u16(), "headers": headers, "body": self.body })
    }
}
