//! Requests of verified callers, and of the same callers while their tokens cannot be verified.

use super::*;

/// Who sends a request. All use the same key value.
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
        let keys = RetryKeys { verified_callers: any_caller.map(|key| key.of_verified_callers()), ..scoped.into() };
        match self {
            Verified | OtherVerified => RetryKeys { unverified_retry: any_caller, ..keys },
            Unverified => RetryKeys { any_caller, ..keys },
        }
    }
}

/// Whether the engine takes a request.
fn engine_takes(affinity: &StoreAffinity, keys: RetryKeys, digest: &[u8; 32]) -> bool {
    let none = EarlierKeys::none();
    if affinity.take_request_for_engine(keys.scoped, digest, &none) != KeyTakeResult::First {
        return false;
    }
    if let Some(key) = keys.unverified_retry {
        let took = affinity.take_for_unverified_retries(&key, key.of_verified_request(digest, &keys.scoped));
        assert_eq!(took, KeyTakeResult::First, "nobody else has the key of a verified caller's request");
    }
    let verified_callers = keys.looked_up_verified_callers();
    let take = |key: &RetryKey| {
        affinity.take_for_engine_under_any_credential(key, verified_callers.as_ref(), digest, none.files_version)
    };
    keys.any_caller.is_none_or(|key| take(&key) == KeyTakeResult::First)
}

#[tokio::test]
async fn what_legacy_took_stays_with_legacy_while_tokens_cannot_be_verified() {
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    let (none, digest) = (EarlierKeys::none(), [3; 32]);
    for (n, (first, second, engine_may_take)) in (1..).zip([
        (Verified, Verified, false),
        (Verified, Unverified, false),
        (Unverified, Unverified, false),
        // What nobody verified reserves nothing against a verified caller, nor does one verified caller against
        // another.
        (Unverified, Verified, true),
        (Verified, OtherVerified, true),
    ]) {
        let take = || now(affinity.take_for_legacy(&ROUTE, first.keys(n), &none, KnownBody::Digest(digest)));
        assert_eq!(take(), LegacyTake::FIRST, "{first:?}");
        assert_eq!(take(), LegacyTake::Taken { noted: true, is_retry: true }, "{first:?}");
        assert_eq!(engine_takes(&affinity, second.keys(n), &digest), engine_may_take, "{first:?}, then {second:?}");
    }
    // Of two callers' first tries with one key, none is a retry of the other.
    let takes = [Verified, OtherVerified]
        .map(|caller| now(affinity.take_for_legacy(&ROUTE, caller.keys(9), &none, KnownBody::Unread)));
    assert_eq!(takes, [LegacyTake::FIRST; 2]);
}

/// Earlier files could not verify tokens that were signed with a new key, so for a while each verified request is
/// looked up under its key for any caller too.
#[tokio::test]
async fn verified_callers_reserve_nothing_against_each_other_after_files_that_could_not_verify_them() {
    let affinity = affinity_with_built_sets(&CountingStore::new()).await;
    let digest = [3; 32];
    for (n, (first, engine_may_take)) in (1..).zip([(Verified, true), (OtherVerified, false), (Unverified, false)]) {
        let earlier = EarlierKeys {
            keys: vec![RetryKeys { verified_callers: None, ..Unverified.keys(n) }],
            files_version: 1,
            ..EarlierKeys::none()
        };
        let none = EarlierKeys { files_version: 1, ..EarlierKeys::none() };
        assert_eq!(
            affinity.take_for_legacy(&ROUTE, first.keys(n), &none, KnownBody::Digest(digest)).await,
            LegacyTake::FIRST
        );
        let took = affinity.take_request_for_engine(OtherVerified.keys(n).scoped, &digest, &earlier);
        assert_eq!(took == KeyTakeResult::First, engine_may_take, "{first:?}: {took:?}");
    }
}

/// One verified caller's request is legacy's, another one's with the same key value is the engine's.
#[tokio::test]
async fn a_retry_that_cannot_be_verified_is_not_taken_for_legacy_because_of_another_caller() {
    let affinity = affinity_with_built_sets(&CountingStore::new()).await;
    let (none, digest) = (EarlierKeys::none(), [3; 32]);
    assert!(engine_takes(&affinity, Verified.keys(1), &digest));
    assert_eq!(
        affinity.take_for_legacy(&ROUTE, OtherVerified.keys(1), &none, KnownBody::Unread).await,
        LegacyTake::FIRST
    );
    let take = |body| now(affinity.take_for_legacy(&ROUTE, Unverified.keys(1), &none, body));
    assert_eq!(take(KnownBody::Unread), LegacyTake::NeedsBody);
    assert_eq!(take(KnownBody::Digest(digest)), LegacyTake::HeldUnderAnotherCredential);
    assert_eq!(take(KnownBody::Digest([4; 32])), LegacyTake::FIRST, "the other caller's retry");
}

#[tokio::test]
async fn what_the_engine_gave_back_stays_with_legacy_while_tokens_cannot_be_verified() {
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    assert_eq!(affinity.give_to_legacy(Verified.keys(1), KnownBody::Unread).await, LegacyTake::FIRST);
    assert!(!engine_takes(&affinity, Unverified.keys(1), &[3; 32]));
}

#[tokio::test]
async fn what_the_engine_took_is_not_taken_again_while_tokens_cannot_be_verified() {
    let affinity = affinity_with_built_sets(&CountingStore::new()).await;
    let (none, digest, other_digest) = (EarlierKeys::none(), [3; 32], [4; 32]);
    for (n, (first, second, legacy_gets)) in (1..).zip([
        (Verified, Verified, LegacyTake::HeldByEngine),
        (Verified, Unverified, LegacyTake::HeldUnderAnotherCredential),
        (Unverified, Unverified, LegacyTake::HeldByEngine),
        // What nobody verified reserves nothing against a verified caller, nor what another verified caller did.
        (Unverified, Verified, LegacyTake::FIRST),
        (Verified, OtherVerified, LegacyTake::FIRST),
    ]) {
        let (for_legacy, for_engine) = (n, n + 100);
        let may_take = legacy_gets == LegacyTake::FIRST;
        for n in [for_legacy, for_engine] {
            assert!(engine_takes(&affinity, first.keys(n), &digest), "{first:?}");
        }
        let legacy_takes =
            |digest| now(affinity.take_for_legacy(&ROUTE, second.keys(for_legacy), &none, KnownBody::Digest(digest)));
        assert_eq!(legacy_takes(digest), legacy_gets, "{first:?}, then {second:?}");
        assert_eq!(engine_takes(&affinity, second.keys(for_engine), &digest), may_take, "{first:?}, then {second:?}");
        if legacy_gets == LegacyTake::HeldUnderAnotherCredential {
            let unread = affinity.take_for_legacy(&ROUTE, second.keys(for_legacy), &none, KnownBody::Unread).await;
            assert_eq!(unread, LegacyTake::NeedsBody);
            assert_eq!(legacy_takes(other_digest), LegacyTake::FIRST, "another request");
        }
    }
    // Two verified callers have the same request, and the run of one is not begun: the other's is still found.
    let keys = [Verified, OtherVerified].map(|caller| caller.keys(50));
    assert!(keys.iter().all(|keys| engine_takes(&affinity, *keys, &digest)));
    let release = |keys: RetryKeys| {
        affinity.release(&keys.unverified_retry.unwrap().of_verified_request(&digest, &keys.scoped));
    };
    let take = || now(affinity.take_for_legacy(&ROUTE, Unverified.keys(50), &none, KnownBody::Digest(digest)));
    release(keys[0]);
    assert_eq!(take(), LegacyTake::HeldUnderAnotherCredential);
    release(keys[1]);
    assert_eq!(take(), LegacyTake::FIRST);
}

#[tokio::test]
async fn what_an_earlier_process_took_is_found_while_tokens_cannot_be_verified() {
    let (store, digest) = (CountingStore::new(), [3; 32]);
    let RetryKeys { scoped, unverified_retry, .. } = Verified.keys(1);
    let (any_caller, other) = (unverified_retry.unwrap(), Unverified.keys(2).any_caller.unwrap());
    let of_request = Some(any_caller.of_verified_request(&digest, &scoped));
    let claim = Some(crate::store::Claim {
        key: scoped,
        request: digest,
        of_request,
        legacy_keys: [None; 2],
        decided_in: None,
    });
    store.append(Arc::new(Append { claim, ..append(run_id(1), 1, 1) })).await.unwrap();
    let affinity = affinity_with_built_sets(&store).await;
    let took = async |range| affinity.engine_took_any(range).await;
    for (digest, is_verified, taken) in [(digest, false, true), (digest, true, false), ([4; 32], false, false)] {
        let range = any_caller.range_of_request(&digest, is_verified);
        assert_eq!(took(range).await, Ok(taken), "{digest:?}, {is_verified}");
    }
    assert_eq!(took(any_caller.range()).await, Ok(true), "a body that is too large to compare");
    // Whoever has another key does not wait for the store.
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(took(any_caller.range_of_request(&digest, false)).await, Err(ArmUnknown));
    assert_eq!(took(other.range_of_request(&digest, false)).await, Ok(false));
}

/// Another route's files gave the request another key, under which the engine has it: only the store knows that after a
/// restart. Meanwhile legacy took another caller's request under the present key for any caller.
#[tokio::test]
async fn a_request_that_the_engine_has_under_the_callers_own_key_is_not_legacys_because_of_another_caller() {
    let affinity = affinity_with_built_sets(&CountingStore::new()).await;
    let none = EarlierKeys::none();
    let present = Unverified.keys(1);
    assert_eq!(affinity.take_for_legacy(&ROUTE, present, &none, KnownBody::Unread).await, LegacyTake::FIRST);
    let of_this_caller = RetryKeys { scoped: RetryKey([77; 32]), ..present };
    for (engine_has_own, took) in [(false, KeyTakeResult::OtherArmHasIt), (true, KeyTakeResult::First)] {
        let keys = vec![of_this_caller];
        let earlier = EarlierKeys { keys, files_version: 1, engine_has_own, ..EarlierKeys::none() };
        let by_the_engine = RetryKey([78; 32]);
        assert_eq!(affinity.take_request_for_engine(by_the_engine, &[3; 32], &earlier), took);
    }
    // Its own key says more.
    let earlier = EarlierKeys { keys: vec![present], files_version: 1, engine_has_own: true, ..EarlierKeys::none() };
    let took = affinity.take_request_for_engine(RetryKey([79; 32]), &[3; 32], &earlier);
    assert_eq!(took, KeyTakeResult::OtherArmHasIt);
}
