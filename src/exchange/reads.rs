//! The reads of a run, and what the run knows of its instance: recorded for a capture, or answered from one.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use crate::compare::{AnsweredRead, Body, CapturedReads, EffectReply, Intent};
use crate::workflow::RecordedHeaders;

/// What a run knows of the instance that its request follows up.
#[derive(Clone, Debug)]
pub struct KnownInstance {
    /// The value of `instance` in expressions; if the workflow reads nothing of it, only the engine's id of the
    /// instance and legacy's (`id`, `legacy_id`).
    pub value: Arc<Value>,
    /// The same with stars in place of the parts that are sensitive; `None` if none is.
    pub redacted: Option<Value>,
}

/// Sees the reads of one run and of its children, and may answer them.
pub trait Reads: Send + Sync {
    /// Answers a read in place of its service. `headers`: the headers of the reply that the step records. An error says
    /// why there is no answer. `None`: the read is sent.
    fn answer(&self, read: &Intent, headers: &RecordedHeaders) -> Option<Result<EffectReply, String>>;
    /// Records a read that was sent, with its reply.
    fn record(&self, read: AnsweredRead);
    /// Records that the run makes this read now, whether it is sent or answered by [`Self::answer`].
    fn record_asked(&self, _read: &Intent) {}
    /// The reads that were made with a method that is not safe; `None` if not all are known.
    fn unsafe_reads(&self) -> Option<Vec<Intent>> {
        None
    }
    /// What is known of the instance that the request follows up, if the store is not to be asked; `None`: it is asked.
    fn instance(&self) -> Option<&Value> {
        None
    }
    /// Records what is known of the instance that the request follows up.
    fn record_instance(&self, _known: KnownInstance) {}
    /// The time at which the run's clock starts. `None`: it starts at the present time.
    fn started(&self) -> Option<Timestamp> {
        None
    }
    /// Records when the run began.
    fn record_started(&self, _at: Timestamp) {}
    /// Why a read could not be answered; `None` if all could, or were sent. The result of the run is then not compared.
    fn unanswered(&self) -> Option<String> {
        None
    }
    /// Whether the run repeats one that was counted, and sends nothing: it is not counted among the runs.
    fn is_replay(&self) -> bool {
        false
    }
}

/// The most bytes of reads with a method that is not safe that are kept of a run.
const UNSAFE_READS_BYTES_MAX: usize = 256 * 1024;

/// The reads of a run with a method that is not safe; equal ones once.
#[derive(Default)]
struct UnsafeReads {
    reads: Vec<Intent>,
    bytes: usize,
    is_incomplete: bool,
}

impl UnsafeReads {
    fn add(&mut self, read: &Intent) {
        if read.method.is_safe() || self.is_incomplete || self.reads.contains(read) {
            return;
        }
        let bytes = bytes_of(read) + READ_BYTES;
        if self.bytes + bytes > UNSAFE_READS_BYTES_MAX {
            *self = Self { is_incomplete: true, ..Self::default() };
            return;
        }
        self.bytes += bytes;
        self.reads.push(read.clone());
    }
    fn all(&self) -> Option<Vec<Intent>> {
        (!self.is_incomplete).then(|| self.reads.clone())
    }
}

/// The size of a read without its headers.
fn bytes_of(read: &Intent) -> usize {
    read.url.len() + read.bytes.as_ref().map_or_else(|| read.body.to_string().len(), bytes::Bytes::len)
}

/// Records the reads of one run, up to a number of bytes.
pub struct RecordedReads {
    bytes_max: usize,
    recorded: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    reads: Vec<AnsweredRead>,
    instance: Option<KnownInstance>,
    started: Option<Timestamp>,
    bytes: usize,
    is_incomplete: bool,
    unsafe_reads: UnsafeReads,
}

impl RecordedReads {
    /// Records at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, recorded: Mutex::default() }
    }
    /// The recorded reads; `None` if there were more bytes than are recorded.
    pub fn all(&self) -> Option<Vec<AnsweredRead>> {
        let recorded = self.lock();
        (!recorded.is_incomplete).then(|| recorded.reads.clone())
    }
    /// What the run knew of its instance; `None` if its request follows up none.
    pub fn known_instance(&self) -> Option<KnownInstance> {
        self.lock().instance.clone()
    }
    /// When the run began; `None` if none did.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.lock().started
    }
    /// How many bytes are recorded.
    pub fn bytes(&self) -> usize {
        let recorded = self.lock();
        recorded.bytes + recorded.unsafe_reads.bytes
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reads for RecordedReads {
    fn answer(&self, _read: &Intent, _headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        None
    }
    fn record(&self, read: AnsweredRead) {
        let body = match read.reply.as_ref().map(|reply| &reply.body) {
            Some(Body::Whole(bytes)) => bytes.len(),
            Some(Body::TooLarge) | None => 0,
        };
        let bytes = body + bytes_of(&read.asked) + READ_BYTES;
        let mut recorded = self.lock();
        if recorded.bytes + bytes > self.bytes_max {
            recorded.is_incomplete = true;
            return;
        }
        recorded.bytes += bytes;
        recorded.reads.push(read);
    }
    fn record_asked(&self, read: &Intent) {
        self.lock().unsafe_reads.add(read);
    }
    fn unsafe_reads(&self) -> Option<Vec<Intent>> {
        self.lock().unsafe_reads.all()
    }
    fn record_instance(&self, known: KnownInstance) {
        let bytes = known.value.to_string().len() * if known.redacted.is_some() { 2 } else { 1 };
        let mut recorded = self.lock();
        if recorded.bytes + bytes > self.bytes_max {
            recorded.is_incomplete = true;
            return;
        }
        recorded.bytes += bytes;
        recorded.instance = Some(known);
    }
    fn record_started(&self, at: Timestamp) {
        self.lock().started = Some(at);
    }
}

/// About how many bytes a read needs in addition to its bodies and its URL.
const READ_BYTES: usize = 512;

/// Answers the reads of one run from a capture, or from the reads of an earlier run, and sends none.
pub struct ReplayedReads {
    reads: CapturedReads,
    instance: Option<Value>,
    started: Option<Timestamp>,
    unanswered: Mutex<Option<String>>,
    unsafe_reads: Mutex<UnsafeReads>,
}

impl ReplayedReads {
    /// Answers from these reads.
    pub fn new(reads: CapturedReads) -> Self {
        Self { reads, instance: None, started: None, unanswered: Mutex::default(), unsafe_reads: Mutex::default() }
    }
    /// Starts the run's clock at this time. `instance`: what is known of the instance that the request follows up, so
    /// that the store is not asked.
    #[must_use]
    pub fn begun_at(self, started: Timestamp, instance: Option<Value>) -> Self {
        Self { started: Some(started), instance, ..self }
    }
}

impl Reads for ReplayedReads {
    fn answer(&self, read: &Intent, _headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        let answer = self.reads.answer(read);
        if let Err(why) = &answer {
            self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.clone());
        }
        Some(answer)
    }
    fn record(&self, _read: AnsweredRead) {}
    fn record_asked(&self, read: &Intent) {
        self.unsafe_reads.lock().unwrap_or_else(PoisonError::into_inner).add(read);
    }
    fn unsafe_reads(&self) -> Option<Vec<Intent>> {
        self.unsafe_reads.lock().unwrap_or_else(PoisonError::into_inner).all()
    }
    fn instance(&self) -> Option<&Value> {
        self.instance.as_ref()
    }
    fn started(&self) -> Option<Timestamp> {
        self.started
    }
    fn is_replay(&self) -> bool {
        true
    }
    fn unanswered(&self) -> Option<String> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
