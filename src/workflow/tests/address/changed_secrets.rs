//! Secrets whose value changed between two attempts: a call that may have been done with the old one is not sent with
//! the new one.

use super::*;

fn set_secret(harness: &mut Harness<'_>, value: &str) {
    harness.inputs = harness.inputs.clone().with_secrets([("bank", value)]);
}

#[test]
fn an_unknown_attempt_is_repeated_only_with_the_secrets_that_it_was_sent_with() {
    let cases = CALLS[2..].iter().flat_map(|call| [(call, false, false), (call, true, false), (call, false, true)]);
    for (call, is_crash, comes_back) in cases {
        let plan = plan_of(call, "");
        let mut harness = charging_with(&plan, |harness| set_secret(harness, "one"));
        let first = attempt(&harness);
        assert_eq!(first.1.secrets.len(), 1);
        ends_unknown(&mut harness, is_crash);
        set_secret(&mut harness, "two");
        harness.settle();
        let conflict = harness.run.conflict().expect("a conflict is open");
        assert_eq!((conflict.kind, conflict.step.as_str()), (ConflictKind::OutcomeUnknown, "charge"));
        assert!(conflict.message.contains("the secret `bank` had another value"), "{}", conflict.message);
        assert!(harness.in_flight_names().is_empty() && harness.due().is_empty());
        if comes_back {
            // The files have the old value again: the same request is sent.
            set_secret(&mut harness, "one");
            harness.choose("charge", None, Choice::Retry).unwrap();
            assert_eq!(attempt(&harness), (2, first.1, first.2));
            continue;
        }
        // A person who was told so asks for another attempt: the same request with the new secret.
        harness.choose("charge", None, Choice::Retry).unwrap();
        let (number, request, key) = attempt(&harness);
        assert_eq!((number, &key), (2, &first.2));
        assert_ne!(request.secrets, first.1.secrets);
        assert_eq!(CallRecord { secrets: first.1.secrets.clone(), ..(*request).clone() }, *first.1);
    }
}

#[test]
fn an_attempt_that_was_not_done_is_repeated_with_the_new_secret() {
    let plan = plan_of(CALLS[2], "");
    let mut harness = charging_with(&plan, |harness| set_secret(harness, "one"));
    let first = attempt(&harness);
    set_secret(&mut harness, "two");
    harness.call("charge", AttemptResult::NotSent("refused".into()));
    harness.settle();
    let second = attempt(&harness);
    assert_eq!((second.0, &second.2), (2, &first.2));
    assert_ne!(second.1.secrets, first.1.secrets);
}

#[test]
fn a_probe_with_another_secret_is_not_believed() {
    for service in ["stock", "bank"] {
        let probe = format!(
            "probe: {{ call: 'GET ${{services.{service}}}/charges/${{key}}', after: 5s, \
             headers: {{ authorization: '${{secrets.bank}}' }}, done: '${{output.done}}' }}"
        );
        // The secret is one of the call too, or of the probe alone.
        for call in [CALLS[2], "call: 'POST ${services.bank}/charges'"] {
            let plan = plan_of(call, &probe);
            let mut harness = charging_with(&plan, |harness| set_secret(harness, "one"));
            ends_unknown(&mut harness, false);
            set_secret(&mut harness, "two");
            harness.settle();
            let conflict = harness.run.conflict().unwrap_or_else(|| panic!("{call} {service}: {:?}", harness.kinds()));
            assert_eq!(conflict.kind, ConflictKind::OutcomeUnknown);
            assert!(conflict.message.contains("the secret `bank` had another value"), "{}", conflict.message);
            assert!(harness.in_flight_names().is_empty(), "{call} {service}");
        }
    }
}
