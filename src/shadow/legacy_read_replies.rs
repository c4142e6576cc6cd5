//! Answers the reads of a shadow run from legacy's own (`replay_reads: true`).
//!
//! The engine runs after legacy has acted, so that a read which is sent sees what legacy has changed. Where legacy
//! itself made the same read through the egress listener, the reply to it shows what was there before.
//!
//! Always true: a read is answered only from legacy's read with the same service, method, path, query and body. Equal
//! reads are answered in legacy's order; the last reply is repeated if the run reads more often. Every other read is
//! sent. Where legacy's reads are not all known, reads are sent, so that a dark run goes on, and the pair is skipped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::byte_budget::{ByteBudget, ReservedBytes};
use crate::compare::{AnsweredRead, CapturedReads, Effect, EffectReply, Intent, Rules};
use crate::exchange::{Answered, KnownInstance, Reads, RecordedReads, RequestEffects};
use crate::workflow::RecordedHeaders;

/// Whether the reads of this request's run are answered from legacy's.
pub(super) fn replays_reads(answered: &Answered) -> bool {
    answered.flag.route.replay_reads && answered.reads.is_none()
}

/// The reads of one run, answered from legacy's calls as they are when the run begins.
pub(super) struct LegacyReadReplies {
    /// An error says why not all of legacy's calls are known.
    of_legacy: Result<CapturedReads, &'static str>,
    recorded: Option<Arc<RecordedReads>>,
    has_sent: AtomicBool,
    /// The first reason why it is not known which reply a read should have got.
    not_known: OnceLock<String>,
    /// The memory of the calls. A run that goes on holds them longer than its request does.
    _reserved: Option<ReservedBytes>,
}

impl LegacyReadReplies {
    /// `calls` are legacy's; `None` where they were not watched. All reads are recorded in `recorded`, those that are
    /// answered here included. Returns `None` if there is no memory for the calls.
    pub(super) fn new(
        calls: Option<&RequestEffects>,
        rules: &Rules,
        memory: &Arc<ByteBudget>,
        recorded: Option<Arc<RecordedReads>>,
    ) -> Option<Self> {
        let reads = known_calls(calls).map(|calls| calls.into_iter().filter(|call| rules.may_be_read(call)).collect());
        let reads: Result<Vec<Effect>, _> = reads;
        let bytes = reads.iter().flatten().map(Effect::bytes).sum();
        let reserved = if bytes == 0 { None } else { Some(memory.reserve(bytes)?) };
        Some(Self {
            of_legacy: reads.map(|reads| CapturedReads::of_legacy(&reads)),
            recorded,
            has_sent: AtomicBool::new(false),
            not_known: OnceLock::new(),
            _reserved: reserved,
        })
    }

    /// Whether at least one read was sent.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }

    /// The reply to legacy's equal read; `None` if legacy made none.
    ///
    /// # Errors
    /// It is not known whether legacy made one, or what it was answered.
    fn reply_to_legacy(&self, read: &Intent) -> Result<Option<EffectReply>, String> {
        let reads = self.of_legacy.as_ref().map_err(|why| (*why).to_owned())?;
        match reads.answer(read) {
            Ok(reply) => Ok(Some(reply)),
            Err(_) if reads.may_have_made(read) => {
                Err(format!("the reply that legacy got to the read of `{}` was not kept (`replay_reads`)", read.step))
            }
            Err(_) => Ok(None),
        }
    }
}

/// All calls that legacy made for the request.
///
/// # Errors
/// Why some are not known.
fn known_calls(calls: Option<&RequestEffects>) -> Result<Vec<Effect>, &'static str> {
    let Some(so_far) = calls.map(RequestEffects::so_far) else {
        return Err("what legacy read is not known (`replay_reads`): its calls for this request were not watched");
    };
    match (so_far.gaps, so_far.open) {
        (0, 0) => Ok(so_far.calls),
        (0, _) => Err("what legacy read is not known (`replay_reads`): a call had not ended when the run began"),
        _ => {
            Err("what legacy read is not known (`replay_reads`): some calls could be this request's or another's, or \
                  were not kept")
        }
    }
}

impl Reads for LegacyReadReplies {
    fn answer(&self, read: &Intent, _headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        let reply = match self.reply_to_legacy(read) {
            Ok(reply) => reply,
            Err(why) => {
                self.not_known.get_or_init(|| why);
                None
            }
        };
        let Some(reply) = reply else {
            self.has_sent.store(true, Ordering::Relaxed);
            return None;
        };
        self.record(AnsweredRead { asked: read.clone(), reply: Some(reply.clone()) });
        Some(Ok(reply))
    }
    fn record(&self, read: AnsweredRead) {
        self.recorded.iter().for_each(|recorded| recorded.record(read.clone()));
    }
    fn record_asked(&self, read: &Intent) {
        self.recorded.iter().for_each(|recorded| recorded.record_asked(read));
    }
    fn record_instance(&self, known: KnownInstance) {
        self.recorded.iter().for_each(|recorded| recorded.record_instance(known.clone()));
    }
    fn record_started(&self, at: Timestamp) {
        self.recorded.iter().for_each(|recorded| recorded.record_started(at));
    }
    fn unanswered(&self) -> Option<String> {
        self.not_known.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode};
    use serde_json::Value;

    use super::*;
    use crate::compare::Body;
    use crate::exchange::{OpenCallsView, UnattributedWrites};

    /// Reports this number of calls under way.
    struct FakeOpenCalls(u64);

    impl OpenCallsView for FakeOpenCalls {
        fn count(&self) -> u64 {
            self.0
        }
        fn unattributed_writes(&self) -> UnattributedWrites {
            UnattributedWrites::default()
        }
    }

    fn read_by_legacy(number: u64, path: &str, body: Body, reply: Body) -> Effect {
        Effect {
            service: Some("bank".into()),
            method: Method::GET,
            url: format!("http://bank{path}"),
            headers: HeaderMap::new(),
            body,
            reply: Some(EffectReply::new(StatusCode::OK, HeaderMap::new(), reply)),
            number,
            replied_before: None,
        }
    }

    fn whole(text: &'static str) -> Body {
        Body::Whole(Bytes::from_static(text.as_bytes()))
    }

    fn known(calls: Vec<Effect>) -> RequestEffects {
        let known = RequestEffects::new(Duration::ZERO);
        calls.into_iter().for_each(|call| known.add(call, Box::new(())));
        known
    }

    fn reads(calls: Option<&RequestEffects>, bytes_max: u64) -> Option<LegacyReadReplies> {
        LegacyReadReplies::new(calls, &Rules::default(), &ByteBudget::new(bytes_max), None)
    }

    /// The body with which a read of this path is answered; `None` if it is sent.
    fn answer(reads: &LegacyReadReplies, path: &str) -> Option<Body> {
        let asked = Intent {
            step: "look".into(),
            item: None,
            method: Method::GET,
            url: format!("http://bank{path}"),
            headers: Vec::new(),
            body: Value::Null,
            service: Some("bank".into()),
            bytes: None,
            taken_from: None,
        };
        reads.answer(&asked, &RecordedHeaders::Only(BTreeSet::new())).map(|reply| reply.expect("a reply").body)
    }

    #[test]
    fn equal_reads_are_answered_in_legacys_order_and_others_are_sent() {
        let of = |number, reply| read_by_legacy(number, "/account", whole(""), whole(reply));
        let reads = reads(Some(&known(vec![of(1, "one"), of(2, "two")])), 1 << 20).unwrap();
        let answers = [0; 3].map(|_| answer(&reads, "/account"));
        assert_eq!(answers, ["one", "two", "two"].map(|text| Some(whole(text))));
        assert!(!reads.has_sent());
        assert_eq!(answer(&reads, "/rates"), None);
        assert!(reads.has_sent());
        assert_eq!(reads.unanswered(), None, "legacy certainly made no such read");
    }

    #[test]
    fn where_legacys_calls_are_not_all_known_each_read_is_sent_and_the_pair_is_skipped() {
        let of_account = || known(vec![read_by_legacy(1, "/account", whole(""), whole("one"))]);
        let with_gap = of_account();
        with_gap.add_gap();
        let with_open = of_account().with_open_calls(Arc::new(FakeOpenCalls(1)));
        let ended = of_account().with_open_calls(Arc::new(FakeOpenCalls(0)));
        for (calls, why) in [
            (None, "were not watched"),
            (Some(&with_gap), "could be this request's or another's"),
            (Some(&with_open), "had not ended"),
        ] {
            let reads = reads(calls, 1 << 20).unwrap();
            assert_eq!(reads.unanswered(), None, "a run that reads nothing is compared");
            assert_eq!(answer(&reads, "/account"), None, "{why}");
            assert!(reads.has_sent() && reads.unanswered().unwrap().contains(why), "{why}");
        }
        assert_eq!(answer(&reads(Some(&ended), 1 << 20).unwrap(), "/account"), Some(whole("one")));
    }

    #[test]
    fn a_read_of_legacy_that_was_not_kept_whole_is_not_taken_for_one_that_it_did_not_make() {
        let without_reply = read_by_legacy(1, "/account", whole(""), Body::TooLarge);
        let without_body = read_by_legacy(2, "/search", Body::TooLarge, whole("one"));
        let calls = known(vec![without_reply, without_body]);
        for (path, is_known) in [("/account", false), ("/search", false), ("/rates", true)] {
            let reads = reads(Some(&calls), 1 << 20).unwrap();
            assert_eq!(answer(&reads, path), None, "{path}");
            assert_eq!(reads.unanswered().is_none(), is_known, "{path}");
        }
    }

    #[test]
    fn the_memory_of_the_calls_is_reserved_until_the_run_drops_them() {
        let large = "x".repeat(10_000);
        let large: &'static str = Box::leak(large.into_boxed_str());
        let calls = known(vec![read_by_legacy(1, "/account", whole(""), whole(large))]);
        assert!(reads(Some(&calls), 10_000).is_none(), "their heads take some too");
        let memory = ByteBudget::new(20_000);
        let reads = LegacyReadReplies::new(Some(&calls), &Rules::default(), &memory, None).unwrap();
        assert!(memory.used() > 10_000);
        drop(reads);
        assert_eq!(memory.used(), 0);
        // A call that changes something answers no read.
        let write = Effect { method: Method::POST, ..read_by_legacy(1, "/credits", whole(""), whole(large)) };
        assert!(LegacyReadReplies::new(Some(&known(vec![write])), &Rules::default(), &memory, None).is_some());
        assert_eq!(memory.used(), 0);
    }
}
