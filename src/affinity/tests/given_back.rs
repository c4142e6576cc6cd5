//! A request that goes back to legacy, while the engine may take it under another credential.

use super::*;

/// One credential's request goes back to legacy because of what another process noted, while the engine takes it under
/// another one.
#[tokio::test]
async fn a_request_is_given_back_or_taken_by_the_engine_under_another_credential() {
    const ROUNDS: u32 = 2_000;
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    for n in 0..ROUNDS {
        let any_caller = numbered(n);
        let keys = RetryKeys { any_caller: Some(any_caller), ..numbered(1_000_000 + n).into() };
        let range = [any_caller.range_of_request(&[8; 32], false)];
        let together = std::sync::Barrier::new(2);
        let (is_given, took) = std::thread::scope(|scope| {
            let given = scope.spawn(|| {
                together.wait();
                affinity.give_to_legacy_unless_held(keys, &range)
            });
            together.wait();
            let took = affinity.take_for_engine_under_any_credential(&any_caller, None, &[8; 32], 1);
            (given.join().unwrap(), took)
        });
        assert_eq!(is_given, took == KeyTakeResult::OtherArmHasIt, "{n}: {took:?}");
        assert!(is_given || took == KeyTakeResult::First, "{n}: {took:?}");
    }
}
