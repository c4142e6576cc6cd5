//! Notes who calls a service: a client, legacy, a step or the process itself. The notes are kept until they are taken.
//!
//! The question it answers: "does anything still call this service?" Always true:
//! - A call is noted before it is sent.
//! - Of the calls of clients and of legacy, the first [`NOTED_PER_SECOND_MAX`] of each second are noted. So all calls
//!   to a service that is rarely called are noted; most calls to a busy service cost one read of an atomic counter.
//! - Calls of steps, calls of gates (`alive:`) and messages to webhooks (`notify:`) are all noted; health checks are
//!   not.
//! - While [`WAITING_MAX`] callers wait to be stored, calls of further callers are not noted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use jiff::Timestamp;

use crate::names::ServiceName;
use crate::secret::redact_line;

/// How many calls to a service are noted in one second.
pub const NOTED_PER_SECOND_MAX: u64 = 64;
/// The most different callers of a service whose notes are kept until they are taken.
const WAITING_MAX: usize = 4_096;
/// The longest text, in bytes, of each part of a caller.
const TEXT_MAX: usize = 120;
/// The most segments of a path that are kept.
const SEGMENTS_MAX: usize = 8;

/// Where a noted call came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotedCaller {
    /// One of these:
    /// - The route, the step or the listener: `route orders.create`, `step create-order.price`, `egress`.
    /// - `gate orders.create`: a gate that asks which instances legacy has.
    /// - `notify`: messages to webhooks.
    /// - `under way`: exchanges that have not ended.
    pub source: String,
    /// The address of the client, and its `user-agent` if it sent one; empty for steps.
    pub client: String,
    /// The method and the path, as in [`path_pattern`].
    pub path: String,
}

/// The calls of one caller since they were last taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedCalls {
    /// The service that was called.
    pub service: ServiceName,
    /// Who called it.
    pub caller: NotedCaller,
    /// The first of these calls.
    pub first: Timestamp,
    /// The last of these calls.
    pub last: Timestamp,
}

/// The callers of one service.
#[derive(Debug)]
pub struct ServiceCallers {
    service: ServiceName,
    /// The second of the last noted call, and how many were noted in it (the lowest 16 bits).
    second: AtomicU64,
    /// How many tunnels to the service are open.
    tunnels: AtomicU64,
    waiting: Mutex<HashMap<NotedCaller, (Timestamp, Timestamp)>>,
}

impl ServiceCallers {
    fn new(service: ServiceName) -> Self {
        Self { service, second: AtomicU64::new(0), tunnels: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Whether a call in this second (of any monotonic clock) is to be noted. Counts the call if so.
    pub fn takes(&self, second: u64) -> bool {
        let last = self.second.load(Relaxed);
        if last >> 16 != second {
            self.second.store(second << 16 | 1, Relaxed);
            return true;
        }
        // Because threads may race, the number of noted calls may differ a little from the limit.
        let noted = last & 0xffff;
        if noted < NOTED_PER_SECOND_MAX {
            self.second.store(last + 1, Relaxed);
        }
        noted < NOTED_PER_SECOND_MAX
    }

    /// Counts a tunnel to the service as open until the result is dropped.
    pub fn tunnel(self: &Arc<Self>) -> OpenTunnel {
        self.tunnels.fetch_add(1, Relaxed);
        OpenTunnel(self.clone())
    }

    /// Whether a tunnel to the service is open.
    pub(super) fn has_tunnels(&self) -> bool {
        self.tunnels.load(Relaxed) > 0
    }

    /// Notes a call.
    pub fn note(&self, caller: NotedCaller, at: Timestamp) {
        self.note_all(caller, (at, at));
    }

    fn note_all(&self, caller: NotedCaller, (first, last): (Timestamp, Timestamp)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = waiting.len() >= WAITING_MAX;
        match waiting.entry(caller) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                *known = (known.0.min(first), known.1.max(last));
            }
            Entry::Vacant(new) if !is_full => {
                new.insert((first, last));
            }
            // The store has not taken the notes for a long time: only the times of known callers are updated.
            Entry::Vacant(_) => {}
        }
    }

    fn take(&self) -> Vec<NotedCalls> {
        let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let calls = |(caller, (first, last))| NotedCalls { service: self.service.clone(), caller, first, last };
        taken.into_iter().map(calls).collect()
    }
}

/// A tunnel to a service: a WebSocket, or what legacy opened with CONNECT.
#[derive(Debug)]
pub struct OpenTunnel(Arc<ServiceCallers>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Relaxed);
    }
}

/// The callers of all services of the process, also of those that newer files removed.
#[derive(Debug, Default)]
pub struct CallerLog {
    services: Mutex<HashMap<ServiceName, Arc<ServiceCallers>>>,
}

impl CallerLog {
    /// Returns the callers of a service.
    pub fn of(&self, service: &ServiceName) -> Arc<ServiceCallers> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(ServiceCallers::new(service.clone()));
        services.entry(service.clone()).or_insert_with(new).clone()
    }

    /// Takes all notes.
    pub fn take(&self) -> Vec<NotedCalls> {
        let services: Vec<_> = self.services.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut noted: Vec<_> = services.iter().flat_map(|callers| callers.take()).collect();
        noted.sort_by(|one, other| (&one.service, &one.caller).cmp(&(&other.service, &other.caller)));
        noted
    }

    /// Puts back notes that were taken and could not be stored.
    pub fn put_back(&self, noted: Vec<NotedCalls>) {
        for NotedCalls { service, caller, first, last } in noted {
            self.of(&service).note_all(caller, (first, last));
        }
    }
}

/// The methods that are noted by name.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Returns a method and a path without what is likely an id: `GET /v2/orders/{}` for `/v2/orders/17`. Replaced are
/// segments with a digit (except a version such as `v2`), with an `@`, or of more than 40 bytes. What follows the 8th
/// segment is left out.
#[must_use]
pub fn path_pattern(method: &http::Method, path: &str) -> String {
    // Any token may be a method; a method that a client makes up is not kept.
    let name = if METHODS.contains(method) { method.as_str() } else { "(other)" };
    let mut pattern = format!("{name} ");
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    for segment in segments.by_ref().take(SEGMENTS_MAX) {
        pattern.push('/');
        pattern.push_str(if may_be_id(segment) { "{}" } else { segment });
    }
    if segments.next().is_some() {
        pattern.push_str("/…");
    }
    if pattern.ends_with(' ') {
        pattern.push('/');
    }
    shortened(&pattern)
}

fn may_be_id(segment: &str) -> bool {
    let is_version = segment.strip_prefix(['v', 'V']).is_some_and(|number| {
        !number.is_empty() && number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    !is_version && (segment.len() > 40 || segment.bytes().any(|byte| byte.is_ascii_digit()) || segment.contains('@'))
}

/// Returns the address of a client and its `user-agent`, without secrets and control characters.
#[must_use]
pub fn client_text(address: impl std::fmt::Display, user_agent: Option<&[u8]>) -> String {
    let agent = user_agent.map(String::from_utf8_lossy).unwrap_or_default();
    let agent: String = agent.chars().filter(|letter| !letter.is_control()).collect();
    let text = format!("{address} {}", redact_line(&agent));
    shortened(text.trim_end())
}

/// Returns the longest prefix of a text that has at most [`TEXT_MAX`] bytes.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn caller(source: &str) -> NotedCaller {
        NotedCaller { source: source.into(), client: String::new(), path: "GET /".into() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_calls_of_each_second_are_noted() {
        let callers = ServiceCallers::new("shop".into());
        let noted = (0..200).filter(|_| callers.takes(7)).count();
        assert_eq!(noted as u64, NOTED_PER_SECOND_MAX);
        assert!(callers.takes(8) && callers.takes(8));
    }

    #[test]
    fn calls_are_kept_until_they_are_taken_and_longer_if_the_store_did_not_take_them() {
        let log = CallerLog::default();
        let shop = log.of(&"shop".into());
        shop.note(caller("route a"), at(5));
        shop.note(caller("route b"), at(6));
        shop.note(caller("route a"), at(9));
        let taken = log.take();
        let summary = |noted: &[NotedCalls]| -> Vec<_> {
            noted.iter().map(|one| (one.caller.source.clone(), one.first, one.last)).collect()
        };
        assert_eq!(summary(&taken), [("route a".into(), at(5), at(9)), ("route b".into(), at(6), at(6))]);
        assert!(log.take().is_empty());
        shop.note(caller("route a"), at(11));
        log.put_back(taken);
        assert_eq!(summary(&log.take())[0], ("route a".into(), at(5), at(11)));
    }

    #[test]
    fn callers_beyond_the_bound_are_not_kept() {
        let callers = ServiceCallers::new("shop".into());
        (0..WAITING_MAX + 9).for_each(|n| callers.note(caller(&format!("route {n}")), at(1)));
        callers.note(caller("route 0"), at(2));
        let taken = callers.take();
        assert_eq!(taken.len(), WAITING_MAX);
        assert!(taken.iter().any(|noted| noted.caller == caller("route 0") && noted.last == at(2)));
    }

    #[test]
    fn a_path_has_no_ids_and_is_short() {
        let pattern = |path: &str| path_pattern(&Method::GET, path);
        assert_eq!(pattern("/api/v2/orders/4012/lines/a1b2"), "GET /api/v2/orders/{}/lines/{}");
        assert_eq!(pattern("/users/jo@example.org"), "GET /users/{}");
        assert_eq!(pattern("/"), "GET /");
        assert_eq!(pattern("/a/b/c/d/e/f/g/h/i"), "GET /a/b/c/d/e/f/g/h/…");
        assert!(pattern(&"/é".repeat(200)).len() <= TEXT_MAX);
        assert_eq!(client_text("10.0.0.7", Some(b"curl/8.1\x07")), "10.0.0.7 curl/8.1");
        assert_eq!(client_text("10.0.0.7", None), "10.0.0.7");
        let agent = client_text("10.0.0.7", Some(b"app; card 4111111111111111; password=hunter2"));
        assert!(!agent.contains("4111") && !agent.contains("hunter2") && agent.starts_with("10.0.0.7 app"), "{agent}");
        assert_eq!(path_pattern(&"SECRETWORD".parse().unwrap(), "/a/17"), "(other) /a/{}");
    }
}
