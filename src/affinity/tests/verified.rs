//! Requests of verified callers, and of the same callers while their tokens cannot be verified.

use super::*;

/// The first request of an arm, and a second one with the same key and body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Caller {
    Verified,
    OtherVerified,
    Unverified,
}

use Caller::{OtherVerified, Unverified, Verified};

impl Caller {
    fn keys(self, n: u32) -> RetryKeys {
        let (scoped, any_caller) = (numbered(n * 10 + self as u32), Some(numbered(n * 10 + 9)));
        match self {
            Verified | OtherVerified => RetryKeys { unverified_retry: any_caller, ..scoped.into() },
            Unverified => RetryKeys { any_caller, ..scoped.into() },
        }
    }
}

/// Whether the engine takes a request.
fn engine_takes(pins: &StoreAffinity, keys: RetryKeys, digest: &[u8; 32]) -> bool {
    let none = EarlierKeys::none();
    pins.take_request_for_engine(keys.scoped, digest, &none) == Took::Fresh
        && keys.any_caller.is_none_or(|key| {
            pins.take_for_engine_under_any_credential(&key, digest, none.files_version) == Took::Fresh
        })
}

#[tokio::test]
async fn what_legacy_took_stays_with_legacy_while_tokens_cannot_be_verified() {
    let pins = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    let (none, digest) = (EarlierKeys::none(), [3; 32]);
    for (n, (first, second, engine_may_take)) in (1..).zip([
        (Verified, Verified, false),
        (Verified, Unverified, false),
        (Unverified, Unverified, false),
        // What nobody verified reserves nothing against a verified caller, nor does one verified caller against another.
        (Unverified, Verified, true),
        (Verified, OtherVerified, true),
    ]) {
        let take = || pins.take_for_legacy(first.keys(n), &none, KnownBody::Digest(digest));
        assert_eq!(take(), LegacyTake::FIRST, "{first:?}");
        assert_eq!(take(), LegacyTake::Taken { noted: true, again: true }, "{first:?}");
        assert_eq!(engine_takes(&pins, second.keys(n), &digest), engine_may_take, "{first:?}, then {second:?}");
    }
    // Of two callers' first tries with one key, none is a retry of the other.
    let takes = [Verified, OtherVerified].map(|caller| pins.take_for_legacy(caller.keys(9), &none, KnownBody::Unread));
    assert_eq!(takes, [LegacyTake::FIRST; 2]);
}

#[tokio::test]
async fn what_the_engine_gave_back_stays_with_legacy_while_tokens_cannot_be_verified() {
    let pins = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    assert_eq!(pins.give_to_legacy(Verified.keys(1)), LegacyTake::FIRST);
    assert!(!engine_takes(&pins, Unverified.keys(1), &[3; 32]));
}
