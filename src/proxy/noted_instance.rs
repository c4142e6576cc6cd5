//! What replies show of instances: that legacy has one, and that one has ended.
//!
//! Always true: no request waits for these reports. A body is parsed on the thread of `settler`. If that thread's queue
//! has no room, a reply of legacy is parsed by the thread that served it, after the reply; an answer of the engine is
//! not parsed, and its instance counts as alive for longer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::compare::decoded_body;
use crate::exchange::{Affinity, AnswerBody, ArmAnswer, NotedInstance, RequestCopy};
use crate::expression::{id_text, parse_json};
use crate::flag::{Arm, Instance, InstanceId, InstanceKey, Owner, ReplyFacts, RequestFacts, RouteFlag};
use crate::names::RunId;

/// Compressed replies are read up to this decompressed size.
pub(super) const UNPACKED_BYTES_MAX: usize = 4 << 20;

/// A follow-up that legacy gets and that is not copied.
pub(super) struct FollowUpAtLegacy {
    pub affinity: Arc<dyn Affinity>,
    pub key: InstanceKey,
}

impl FollowUpAtLegacy {
    /// Reports the instance, if the head of legacy's reply shows that legacy has it.
    pub(super) fn on_reply_head(self, status: StatusCode) {
        note_follow_up(&*self.affinity, self.key, status, false);
    }
}

/// Reports the instance of a follow-up that legacy has answered, if the reply shows that legacy has it.
pub(super) fn note_follow_up(affinity: &dyn Affinity, key: InstanceKey, status: StatusCode, has_ended: bool) {
    if has_ended || status.is_success() || status == StatusCode::NOT_MODIFIED {
        affinity.note_instance(NotedInstance { key, arm: Arm::Legacy, run: None, is_created: false, has_ended });
    }
}

/// Whether this reply ends the instance that the request is about. A condition without a value does not hold.
pub(super) fn has_ended(
    flag: &RouteFlag,
    request: &RequestCopy,
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> bool {
    let Some(end) = &flag.route.lifetime.ends else { return false };
    let body = body.filter(|body| end.reads_body() && !body.is_empty());
    let body = body.and_then(|body| decoded_body(headers, body, UNPACKED_BYTES_MAX));
    let body = body.and_then(|body| parse_json(&body).ok()).unwrap_or_default();
    let facts = RequestFacts {
        method: &request.method,
        path: &request.path,
        matched_path: &request.path,
        query: request.query.as_deref(),
        headers: &request.headers,
        peer: request.peer,
        params: &request.params,
        random: 0,
        owner: Owner::NoPin,
        now_s: 0,
    };
    end.holds(&facts, &ReplyFacts { status, headers, body }).unwrap_or_else(|error| {
        tracing::debug!(route = %flag.route.id, %error, "`instance.ends` has no value for a reply: it does not hold");
        false
    })
}

/// The id of the instance that a reply created; `body` is `None` if it was not copied.
pub(super) fn created_id(flag: &RouteFlag, headers: &HeaderMap, body: Option<&Bytes>) -> Option<String> {
    let Some(Instance::Creates { id }) = &flag.route.instance else { return None };
    if let Some(header) = id.header() {
        return header.id_in(headers);
    }
    let body = body.filter(|body| !body.is_empty())?;
    id_text(&id.find(&[], &parse_json(&decoded_body(headers, body, UNPACKED_BYTES_MAX)?).ok()?)?)
}

/// An answer of the engine that may end an instance.
pub(super) struct AnsweredInstance {
    flag: Arc<RouteFlag>,
    request: RequestCopy,
    key: InstanceKey,
    /// The run that created the instance.
    run: RunId,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    affinity: Arc<dyn Affinity>,
}

impl AnsweredInstance {
    /// `None` if it is not known which instance of the engine the answer is about.
    pub(super) fn new(
        flag: &Arc<RouteFlag>,
        instance: Option<&InstanceId>,
        request: RequestCopy,
        answer: &ArmAnswer,
        affinity: &Arc<dyn Affinity>,
    ) -> Option<Box<Self>> {
        let AnswerBody::Whole(body) = &answer.body else { return None };
        let (key, run) = match instance {
            Some(instance) => (instance.key.clone(), instance.run?),
            None => {
                let id = answer.report.pinned.as_ref()?.id.clone();
                (InstanceKey { family: flag.family.clone(), id }, answer.report.run?)
            }
        };
        Some(Box::new(Self {
            flag: flag.clone(),
            request,
            key,
            run,
            status: answer.status,
            headers: answer.headers.clone(),
            body: body.clone(),
            affinity: affinity.clone(),
        }))
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Reports the instance if it has ended.
    pub(super) fn note(self) {
        let Self { flag, request, key, run, status, headers, body, affinity } = self;
        if has_ended(&flag, &request, status, &headers, Some(&body)) {
            affinity.note_instance(NotedInstance {
                key,
                arm: Arm::Engine,
                run: Some(run),
                is_created: false,
                has_ended: true,
            });
        }
    }
}
