//! What is copied of a call that legacy makes.
//!
//! Always true: the observer is told of each call that is copied, exactly once, however it ends: after legacy's
//! socket has taken the last byte of the reply (see `completion`), or when the call is cut; always on the thread of
//! `settler`. If there is no room, it is told that the call was lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::body_copy::BodyCopy;
use crate::compare::{Body, Effect, EffectReply};
use crate::exchange::{EffectObserver, SentBody};
use crate::flag::SkipReason;

/// Hands effects to the observer on a thread that serves no connection.
pub(super) trait EffectQueue: Send + Sync {
    /// Never waits. What finds no room is lost: that is counted, and the observer is told.
    fn send(&self, effect: Effect, observer: &Arc<dyn EffectObserver>);
}

/// A call that legacy makes, until the observer is told of it.
pub(super) struct CopiedCall {
    /// The call without its body and reply. `None` once the observer was told.
    effect: Option<Effect>,
    /// The head of the reply, once it has come: it says how the call ended, even if the reply's body is not passed on
    /// whole.
    reply_head: Option<(StatusCode, HeaderMap)>,
    /// Whether legacy had closed its side of the connection before the reply came.
    is_given_up: bool,
    /// `None` if the call has no body.
    body: Option<Arc<Mutex<BodyCopy>>>,
    bytes_max: usize,
    observer: Arc<dyn EffectObserver>,
    /// `None` once the observer may be called directly.
    queue: Option<Arc<dyn EffectQueue>>,
    /// The number of the next call that begins.
    next_number: Arc<AtomicU64>,
}

impl CopiedCall {
    /// Begins a call, with the copy of its body if it has one. The observer is told that it begins.
    pub(super) fn new(
        effect: Effect,
        body: Option<Arc<Mutex<BodyCopy>>>,
        bytes_max: usize,
        observer: Arc<dyn EffectObserver>,
        queue: Arc<dyn EffectQueue>,
        next_number: Arc<AtomicU64>,
    ) -> Self {
        observer.begin(&effect, body.clone().map(|copy| copy as Arc<dyn SentBody>));
        Self {
            effect: Some(effect),
            reply_head: None,
            is_given_up: false,
            body,
            bytes_max,
            observer,
            queue: Some(queue),
            next_number,
        }
    }

    /// Lets the observer be called directly from now on. Not for a thread that serves connections: the observer may
    /// take long.
    pub(super) fn observe_directly(&mut self) {
        self.queue = None;
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn body(&self) -> Option<&Arc<Mutex<BodyCopy>>> {
        self.body.as_ref()
    }

    /// Records the head of the call's reply.
    pub(super) fn on_reply_head(&mut self, status: StatusCode, headers: HeaderMap) {
        self.reply_head = Some((status, headers));
        if let Some(effect) = &mut self.effect {
            effect.replied_before = Some(self.next_number.load(Relaxed));
        }
    }

    /// Records that legacy, which made the call, has closed its side of the connection before the reply came: legacy
    /// may never read the reply.
    pub(super) fn on_caller_closed(&mut self) {
        self.is_given_up = true;
    }

    /// Ends a call that got no complete reply.
    pub(super) fn end_without_reply(mut self: Box<Self>) {
        self.tell(None, true);
    }

    /// Ends a call whose reply is complete. `skip`: legacy did not take the whole reply, or there is no room for the
    /// bodies.
    pub(super) fn end(mut self: Box<Self>, body: Option<Bytes>, skip: Option<SkipReason>) {
        let has_room = skip != Some(SkipReason::QueueFull);
        let body = body.filter(|_| skip.is_none()).map_or(Body::TooLarge, Body::Whole);
        let reply = self.reply_head.take().map(|(status, headers)| EffectReply::new(status, headers, body));
        self.tell(reply, has_room);
    }

    /// Tells the observer of the call, unless it was told before.
    fn tell(&mut self, reply: Option<EffectReply>, has_room: bool) {
        let Some(effect) = self.effect.take() else { return };
        let body = match &self.body {
            None => Body::Whole(Bytes::new()),
            Some(copy) => {
                let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
                // A copy that did not reach the body's end may be incomplete.
                copy.whole().filter(|_| has_room).map_or(Body::TooLarge, Body::Whole)
            }
        };
        let cut_reply = |(status, headers)| EffectReply::new(status, headers, Body::TooLarge);
        let reply = reply.or_else(|| self.reply_head.take().map(cut_reply));
        let reply = reply.map(|reply| EffectReply { may_be_unread: self.is_given_up, ..reply });
        let effect = Effect { body, reply, ..effect };
        match &self.queue {
            Some(queue) => queue.send(effect, &self.observer),
            None => self.observer.observe(effect),
        }
    }
}

impl Drop for CopiedCall {
    fn drop(&mut self) {
        self.tell(None, true);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[derive(Default)]
    struct RecordedEffects(Mutex<Vec<Effect>>, Mutex<u32>);

    /// Hands effects to the observer at once.
    struct Direct;

    impl EffectQueue for Direct {
        fn send(&self, effect: Effect, observer: &Arc<dyn EffectObserver>) {
            observer.observe(effect);
        }
    }

    impl EffectObserver for RecordedEffects {
        fn is_watching(&self) -> bool {
            true
        }
        fn begin(&self, _: &Effect, _: Option<Arc<dyn SentBody>>) {
            *self.1.lock().unwrap() += 1;
        }
        fn lose(&self, _: u64) {}
        fn observe(&self, effect: Effect) {
            self.0.lock().unwrap().push(effect);
        }
    }

    /// Returns what the observer is told of a call with this copy of its body that ends in this way.
    fn told(copy: BodyCopy, end: impl FnOnce(Box<CopiedCall>)) -> (Body, Option<Body>) {
        let effect = Effect {
            service: None,
            method: Method::POST,
            url: "http://bank.test/charges".to_owned(),
            headers: HeaderMap::new(),
            body: Body::TooLarge,
            reply: None,
            number: 0,
            replied_before: None,
        };
        let observer = Arc::new(RecordedEffects::default());
        end(Box::new(CopiedCall::new(
            effect,
            Some(Arc::new(Mutex::new(copy))),
            10,
            observer.clone(),
            Arc::new(Direct),
            Arc::new(AtomicU64::new(7)),
        )));
        assert_eq!(*observer.1.lock().unwrap(), 1, "the observer is told that the call begins");
        let mut told = std::mem::take(&mut *observer.0.lock().unwrap());
        assert_eq!(told.len(), 1, "once");
        let Effect { body, reply, .. } = told.remove(0);
        (body, reply.map(|reply| reply.body))
    }

    fn copy(ended: Option<u64>) -> BodyCopy {
        let mut copy = BodyCopy { bytes_max: 10, ended, ..BodyCopy::default() };
        copy.take(&Bytes::from_static(b"body"));
        copy
    }

    #[test]
    fn a_call_is_reported_once_however_it_ends() {
        let (body, reply) = (Body::Whole(Bytes::from_static(b"body")), Bytes::from_static(b"reply"));
        let end = |skip| {
            let reply = reply.clone();
            move |mut call: Box<CopiedCall>| {
                call.on_reply_head(StatusCode::OK, HeaderMap::new());
                call.end(Some(reply), skip);
            }
        };
        assert_eq!(told(copy(Some(1)), end(None)), (body.clone(), Some(Body::Whole(reply.clone()))));
        // Legacy closed before it had all of the reply, but the service has answered.
        assert_eq!(told(copy(Some(1)), end(Some(SkipReason::ClientWentAway))), (body.clone(), Some(Body::TooLarge)));
        let cut = |mut call: Box<CopiedCall>| call.on_reply_head(StatusCode::CREATED, HeaderMap::new());
        assert_eq!(told(copy(Some(1)), cut), (body.clone(), Some(Body::TooLarge)));
        // Without room for bodies the observer is still told that there was a call.
        assert_eq!(told(copy(Some(1)), end(Some(SkipReason::QueueFull))), (Body::TooLarge, Some(Body::TooLarge)));
        assert_eq!(told(copy(Some(1)), |call| call.end_without_reply()), (body.clone(), None));
        assert_eq!(told(copy(Some(1)), drop), (body, None));
        assert_eq!(told(copy(None), drop), (Body::TooLarge, None), "a body that did not come whole");
    }
}
