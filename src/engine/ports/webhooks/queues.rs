//! The queues of messages to webhooks: which message is sent next, and when. Uses neither store nor network, so that it
//! can be tested alone.
//!
//! Always true: a destination has at most one message in flight, and its messages are sent in the order in which they
//! were recorded (one that is left to another process for now is passed over, so that it may be sent after later ones);
//! a destination that is slow or fails delays no other one, and all that failed together leave a quarter of the
//! deliveries in flight to the others. After a failure the same message is sent again, after a pause that doubles with
//! each failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::names::ServiceName;
use crate::store::WebhookMessage;

/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The bounds of the queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    /// How many messages may wait for one destination; beyond that the oldest is dropped.
    pub waiting_max: usize,
    /// How many times a receiver may refuse a message before it is given up.
    pub refusals_max: u64,
    /// The age at which a message is given up.
    pub age_max: SignedDuration,
    /// How many messages may be in flight at the same time, to different destinations.
    pub in_flight_max: usize,
}

/// The result of sending a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeliveryResult {
    /// The receiver has accepted it.
    Delivered,
    /// The receiver refuses this message (4xx, except 408, 425 and 429), or its URL is invalid.
    Refused(String),
    /// The receiver is unknown, cannot be reached or answers with any other status: it may accept the message later.
    Failed(String),
}

/// What follows from the result of sending a message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct AfterDelivery {
    /// Messages that are not sent again, because they are too old or were refused too often.
    pub given_up: Vec<Arc<WebhookMessage>>,
    /// How many failures there were before, if the destination accepts messages again.
    pub recovered_after: Option<u32>,
    /// The pause after which the message is sent again.
    pub pause: Option<Duration>,
}

/// The destination of a message: `notify:` of the workflow; or the origin of its URL, in messages of an older version
/// that recorded only the URL.
fn destination(message: &WebhookMessage) -> String {
    if !message.destination.is_empty() {
        return message.destination.clone();
    }
    message.url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

/// The messages that wait for one destination.
struct Queue {
    service: Option<ServiceName>,
    /// The messages by number, which is the order in which they were recorded.
    waiting: BTreeMap<u64, Waiting>,
    /// The number of the message in flight.
    sending: Option<u64>,
    /// Failures since a message was last delivered.
    failures: u32,
    /// The end of the pause after a failure.
    next_try: Option<Instant>,
}

struct Waiting {
    message: Arc<WebhookMessage>,
    refusals: u64,
    /// Until this time the message is left to the process that recorded it.
    not_before: Instant,
}

impl Queue {
    fn new(service: Option<ServiceName>) -> Self {
        Self { service, waiting: BTreeMap::new(), sending: None, failures: 0, next_try: None }
    }

    /// The next message in order, and when it is due. A message that is left to another process for now is skipped.
    fn next(&self, now: Instant) -> Option<(Instant, u64)> {
        if self.sending.is_some() {
            return None;
        }
        let earliest = self.next_try.map_or(now, |next_try| next_try.max(now));
        let due = |waiting: &Waiting| self.next_try.map_or(waiting.not_before, |next| next.max(waiting.not_before));
        let first = self.waiting.iter().find(|(_, waiting)| waiting.not_before <= earliest);
        let first =
            first.or_else(|| self.waiting.iter().min_by_key(|(number, waiting)| (waiting.not_before, **number)));
        first.map(|(number, waiting)| (due(waiting), *number))
    }
}

/// All queues.
pub(super) struct Queues {
    bounds: QueueBounds,
    by_destination: BTreeMap<String, Queue>,
    sending: usize,
}

impl Queues {
    pub(super) fn new(bounds: QueueBounds) -> Self {
        Self { bounds, by_destination: BTreeMap::new(), sending: 0 }
    }

    /// Adds a recorded message, unless it is queued already. If too many messages wait, one is dropped and returned.
    pub(super) fn add(&mut self, message: WebhookMessage, not_before: Instant) -> Option<Arc<WebhookMessage>> {
        let queue = self.by_destination.entry(destination(&message));
        let queue = queue.or_insert_with(|| Queue::new(message.service.clone()));
        let number = message.number;
        let waiting = Waiting { message: Arc::new(message), refusals: 0, not_before };
        queue.waiting.entry(number).or_insert(waiting);
        if queue.waiting.len() <= self.bounds.waiting_max.max(1) {
            return None;
        }
        let oldest = queue.waiting.keys().copied().find(|number| Some(*number) != queue.sending)?;
        queue.waiting.remove(&oldest).map(|dropped| dropped.message)
    }

    /// The messages that are due, at most one for each destination; they are in flight from now on.
    pub(super) fn start_due(&mut self, now: Instant) -> Vec<Arc<WebhookMessage>> {
        let mut failed_left = self.failed_left();
        let mut due: Vec<(Instant, u64, &mut Queue)> = self
            .by_destination
            .values_mut()
            .filter_map(|queue| {
                queue.next(now).filter(|(due, _)| *due <= now).map(|(due, number)| (due, number, queue))
            })
            .collect();
        // If not all can be sent, those that have been due the longest go first.
        due.sort_by_key(|(due, number, _)| (*due, *number));
        let free = self.bounds.in_flight_max.saturating_sub(self.sending);
        let may_start = due.into_iter().filter(|(_, _, queue)| {
            let is_left = queue.failures == 0 || failed_left > 0;
            failed_left = failed_left.saturating_sub(usize::from(queue.failures > 0));
            is_left
        });
        let started = may_start.take(free).filter_map(|(_, number, queue)| {
            queue.sending = Some(number);
            Some(queue.waiting.get(&number)?.message.clone())
        });
        let started: Vec<_> = started.collect();
        self.sending += started.len();
        started
    }

    /// Makes messages due at once whose service has a new address, and forgets their failures and refusals: those
    /// concern the old address.
    pub(super) fn retry_now(&mut self, has_moved: impl Fn(&ServiceName) -> bool) {
        let moved = |queue: &&mut Queue| queue.service.as_ref().is_some_and(&has_moved);
        for queue in self.by_destination.values_mut().filter(moved) {
            (queue.failures, queue.next_try) = (0, None);
            queue.waiting.values_mut().for_each(|waiting| waiting.refusals = 0);
        }
    }

    /// When the next message is due; `None` if no message can become due before the delivery of one in flight ends or
    /// another one is added.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.sending >= self.bounds.in_flight_max {
            return None;
        }
        let failed_left = self.failed_left();
        let may_start = |queue: &&Queue| queue.failures == 0 || failed_left > 0;
        let due = |queue: &Queue| queue.next(now).map(|(due, _)| due);
        self.by_destination.values().filter(may_start).filter_map(due).min()
    }

    /// How many more destinations that failed may have a message in flight. Bounded, because each may be slow to fail
    /// again.
    fn failed_left(&self) -> usize {
        let max = self.bounds.in_flight_max;
        let failed = self.by_destination.values().filter(|queue| queue.sending.is_some() && queue.failures > 0);
        (max - max / 4).saturating_sub(failed.count())
    }

    /// Records the result of a message in flight. `time` is the present time, for the ages of messages.
    pub(super) fn record_result(
        &mut self,
        message: &WebhookMessage,
        result: &DeliveryResult,
        now: Instant,
        time: Timestamp,
    ) -> AfterDelivery {
        let (destination, mut after) = (destination(message), AfterDelivery::default());
        let Some(queue) = self.by_destination.get_mut(&destination) else { return after };
        if queue.sending != Some(message.number) {
            return after;
        }
        queue.sending = None;
        self.sending -= 1;
        if *result == DeliveryResult::Delivered {
            queue.waiting.remove(&message.number);
            after.recovered_after = (queue.failures > 0).then_some(queue.failures);
            (queue.failures, queue.next_try) = (0, None);
        } else {
            let pause = PAUSE.saturating_mul(1 << queue.failures.min(16)).min(PAUSE_MAX);
            queue.failures = queue.failures.saturating_add(1);
            (queue.next_try, after.pause) = (Some(now + pause), Some(pause));
            let refused = matches!(result, DeliveryResult::Refused(_));
            if let Some(waiting) = queue.waiting.get_mut(&message.number) {
                waiting.refusals += u64::from(refused);
            }
            let QueueBounds { refusals_max, age_max, .. } = self.bounds;
            let is_over = |waiting: &Waiting| {
                waiting.refusals >= refusals_max.max(1) || time.duration_since(waiting.message.at) > age_max
            };
            let over = queue.waiting.extract_if(.., |_, waiting| is_over(waiting));
            after.given_up = over.map(|(_, waiting)| waiting.message).collect();
        }
        if queue.waiting.is_empty() {
            self.by_destination.remove(&destination);
        }
        after
    }

    /// Removes the messages that are no longer in the store: another process has sent them.
    pub(super) fn keep_only(&mut self, stored: &BTreeSet<u64>) {
        for queue in self.by_destination.values_mut() {
            let sending = queue.sending;
            queue.waiting.retain(|number, _| stored.contains(number) || Some(*number) == sending);
        }
        self.by_destination.retain(|_, queue| !queue.waiting.is_empty());
    }

    /// How many messages wait or are in flight, by service; `None` for messages whose service was not recorded.
    pub(super) fn waiting(&self) -> BTreeMap<Option<ServiceName>, usize> {
        let mut counts = BTreeMap::new();
        for queue in self.by_destination.values() {
            *counts.entry(queue.service.clone()).or_default() += queue.waiting.len();
        }
        counts
    }
}

#[cfg(test)]
mod tests;
