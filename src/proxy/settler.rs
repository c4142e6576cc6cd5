//! Settles exchanges that were copied, on a thread of its own.
//!
//! What follows a reply (searching it for the id of a created instance, building the observation, offering it to the
//! shadow executor) takes locks that other threads hold and parses bodies, so the threads that serve clients leave it
//! to this thread. Always true: at most [`WAITING_MAX`] exchanges and [`WAITING_BYTES_MAX`] bytes wait here. What finds
//! no room is handled as follows:
//! - An exchange is not compared, and counted as skipped. The thread that served it still searches its reply for an id,
//!   and judges the invariants of an answer of the engine.
//! - A call that legacy made is observed without its bodies if there is no room for their bytes. If too many exchanges
//!   wait, the call is lost: its observer is told so, and it is counted (`pointsman_effects_dropped_total`, `queue`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::after_answer::AfterAnswer;
use super::copied_call::EffectQueue;
use super::copied_exchange::CopiedReply;
use super::noted_instance::AnsweredInstance;
use crate::compare::{Body, Effect};
use crate::exchange::EffectObserver;
use crate::flag::SkipReason;

/// The most exchanges that wait.
pub(super) const WAITING_MAX: usize = 1_024;
/// The most bytes of bodies that wait.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;

/// If a message comes within this time after the queue was empty, the thread handles it, sleeps for as long, and then
/// handles all that have come meanwhile. A sender has to wake the thread only while it waits for a message, and waking
/// it costs the sender more than all else that it does here.
const BATCH_PAUSE: Duration = Duration::from_micros(500);

/// During a drain: the pause after the queue was found full.
const FULL_PAUSE: Duration = Duration::from_millis(1);

enum SettlerMessage {
    /// Settles a copied exchange, as skipped if a reason is given.
    Settle { copied: Box<CopiedReply>, bytes: usize, skip: Option<SkipReason> },
    /// Checks whether an answer of the engine ends its instance.
    Note(Box<AnsweredInstance>),
    /// Does what follows an answer of the engine, whose exchange has ended.
    After { after: Box<AfterAnswer>, bytes: usize },
    /// Tells the observer of a call that legacy made and that got no whole reply.
    Observe { effect: Box<Effect>, observer: Arc<dyn EffectObserver>, bytes: usize },
    /// Replies once all earlier messages have been handled.
    Flush(oneshot::Sender<()>),
}

/// Settles copied exchanges. Its thread ends when this value is dropped.
pub(super) struct Settler {
    messages: SyncSender<SettlerMessage>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Settler {
    /// Starts the thread. If it cannot be started, exchanges are settled by the caller.
    pub(super) fn start() -> Self {
        let (messages, received) = sync_channel(WAITING_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let bytes = waiting_bytes.clone();
        let run = move || settle_all(&received, &bytes);
        if let Err(error) = std::thread::Builder::new().name("settler".into()).spawn(run) {
            tracing::warn!(%error, "the thread that settles comparisons cannot be started; the threads that serve clients do its work");
        }
        Self { messages, waiting_bytes }
    }

    /// Settles a copied exchange, as skipped if a reason is given. Never waits.
    pub(super) fn settle(&self, copied: Box<CopiedReply>, skip: Option<SkipReason>) {
        let bytes = copied.bytes();
        if !self.reserve(bytes) {
            return copied.finish(skip.or(Some(SkipReason::QueueFull)));
        }
        match self.messages.try_send(SettlerMessage::Settle { copied, bytes, skip }) {
            Ok(()) => return,
            Err(TrySendError::Full(SettlerMessage::Settle { copied, skip, .. })) => {
                copied.finish(skip.or(Some(SkipReason::QueueFull)));
            }
            Err(TrySendError::Disconnected(SettlerMessage::Settle { copied, skip, .. })) => copied.finish(skip),
            // No other message was sent.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Checks whether an answer of the engine ends its instance, unless too much waits already. Never waits.
    pub(super) fn note(&self, answered: Box<AnsweredInstance>) {
        let bytes = answered.bytes();
        if self.reserve(bytes) && self.messages.try_send(SettlerMessage::Note(answered)).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
        }
    }

    /// Does what follows an answer of the engine. Never waits if there is room; else the calling thread does it.
    pub(super) fn follow(&self, after: Box<AfterAnswer>) {
        let bytes = after.bytes();
        if !self.reserve(bytes) {
            return after.end_without_room();
        }
        match self.messages.try_send(SettlerMessage::After { after, bytes }) {
            Ok(()) => return,
            Err(TrySendError::Full(SettlerMessage::After { after, .. })) => after.end_without_room(),
            Err(TrySendError::Disconnected(SettlerMessage::After { after, .. })) => after.end(),
            // No other message was sent.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    /// Reserves this many bytes of the bound; `false` if there is no room.
    fn reserve(&self, bytes: usize) -> bool {
        let add = |waiting: usize| waiting.checked_add(bytes).filter(|sum| *sum <= WAITING_BYTES_MAX);
        self.waiting_bytes.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// Waits until everything that was passed to the settler before is settled.
    pub(super) async fn wait_until_settled(&self) {
        let (reply, replied) = oneshot::channel();
        let mut message = SettlerMessage::Flush(reply);
        while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
            message = back;
            sleep(FULL_PAUSE).await;
        }
        let _ = replied.await; // an error says that the thread has ended
    }
}

impl EffectQueue for Settler {
    fn send(&self, mut effect: Effect, observer: &Arc<dyn EffectObserver>) {
        let (mut bytes, number) = (effect.bytes(), effect.number);
        if !self.reserve(bytes) {
            // Without its bodies it is still known that there was a call.
            bytes = 0;
            effect.body = Body::TooLarge;
            effect.reply.iter_mut().for_each(|reply| reply.body = Body::TooLarge);
        }
        let message = SettlerMessage::Observe { effect: Box::new(effect), observer: observer.clone(), bytes };
        match self.messages.try_send(message) {
            Ok(()) => return,
            Err(TrySendError::Disconnected(SettlerMessage::Observe { effect, .. })) => observer.observe(*effect),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                counter!("pointsman_effects_dropped_total", "reason" => "queue").increment(1);
                observer.lose(number);
            }
        }
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }
}

fn settle_all(messages: &Receiver<SettlerMessage>, waiting_bytes: &AtomicUsize) {
    let mut emptied = None;
    while let Ok(message) = messages.recv() {
        let is_frequent = emptied.is_some_and(|at: Instant| at.elapsed() < BATCH_PAUSE);
        handle(message, waiting_bytes);
        if is_frequent {
            #[allow(clippy::disallowed_methods)] // a thread of its own, for so short a time
            std::thread::sleep(BATCH_PAUSE);
        }
        messages.try_iter().for_each(|message| handle(message, waiting_bytes));
        emptied = Some(Instant::now());
    }
}

fn handle(message: SettlerMessage, waiting_bytes: &AtomicUsize) {
    let bytes = match message {
        SettlerMessage::Observe { effect, observer, bytes } => {
            observer.observe(*effect);
            bytes
        }
        SettlerMessage::Note(answered) => {
            let bytes = answered.bytes();
            answered.note();
            bytes
        }
        SettlerMessage::After { after, bytes } => {
            after.end();
            bytes
        }
        SettlerMessage::Settle { mut copied, bytes, skip } => {
            copied.observe_directly();
            copied.finish(skip);
            bytes
        }
        SettlerMessage::Flush(reply) => {
            let _ = reply.send(()); // the receiver may have been dropped
            0
        }
    };
    waiting_bytes.fetch_sub(bytes, Relaxed);
}
