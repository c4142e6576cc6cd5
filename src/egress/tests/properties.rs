//! Random requests and calls against a model that looks at every request.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    /// A request begins. Its trace and its header come from small sets, so that calls often carry the same ones.
    Begin { trace: u8, span: u8, id: Option<u8>, is_compared: bool },
    /// One of those in flight ends.
    End(prop::sample::Index),
    /// So many milliseconds pass.
    Pass(u16),
    /// Legacy makes a call.
    Call { trace: Option<u8>, span: u8, id: Option<u8> },
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = || prop::option::of(0..4_u8);
    prop_oneof![
        3 => (0..6_u8, 0..3_u8, id(), prop::bool::weighted(0.7))
            .prop_map(|(trace, span, id, is_compared)| Operation::Begin { trace, span, id, is_compared }),
        2 => any::<prop::sample::Index>().prop_map(Operation::End),
        1 => (0..40_000_u16).prop_map(Operation::Pass),
        4 => (prop::option::of(0..8_u8), 0..4_u8, id()).prop_map(|(trace, span, id)| Operation::Call { trace, span, id }),
    ]
}

fn trace(trace: u8, span: u8) -> TraceContext {
    TraceContext { trace_id: u128::from(trace) + 1, span_id: u64::from(span) + 1, is_sampled: true }
}

/// A request as the model knows it.
struct Known {
    trace: u8,
    span: u8,
    id: Option<u8>,
    is_compared: bool,
    watch: Option<TestWatch>,
    effects: crate::exchange::RequestEffects,
    /// In milliseconds.
    ended: Option<u64>,
}

#[derive(Clone, Copy)]
enum Rule {
    Header,
    Value,
}

/// Performs the operations, and compares each attribution with the one that the model expects.
fn check_against_model(operations: Vec<Operation>, rule: Rule) {
    let test = TestAttribution::new(match rule {
        Rule::Header => "header.x-id",
        Rule::Value => "${call.body.id == request.body.id}",
    });
    let (mut all, mut now, mut observed): (Vec<Known>, u64, u64) = (Vec::new(), 0, 0);
    let json = |id: Option<u8>| id.map_or_else(|| "{}".to_owned(), |id| format!("{{\"id\":\"i{id}\"}}"));
    for operation in operations {
        match operation {
            Operation::Begin { trace: of, span, id, is_compared } => {
                let (sent, header) = (value(trace(of, span)), id.map(|id| format!("i{id}")));
                let mut fields = vec![("traceparent", sent.as_str())];
                let sending = Arc::new(Sending::default());
                match rule {
                    Rule::Header => fields.extend(header.as_deref().map(|id| ("x-id", id))),
                    Rule::Value => sending.end(json(id)),
                }
                let watch = test.watch_as(is_compared.then_some(ROUTE), &fields, Some(sending)).unwrap();
                let effects = watch.effects();
                all.push(Known { trace: of, span, id, is_compared, watch: Some(watch), effects, ended: None });
            }
            Operation::End(which) => {
                let mut open: Vec<_> = all.iter_mut().filter(|known| known.watch.is_some()).collect();
                if !open.is_empty() {
                    let which = which.index(open.len());
                    (open[which].watch, open[which].ended) = (None, Some(now));
                }
            }
            Operation::Pass(millis) => {
                now += u64::from(millis);
                test.pass(Duration::from_millis(millis.into()));
            }
            Operation::Call { trace: of, span, id } => {
                let before: Vec<_> = all.iter().map(|known| known.effects.len()).collect();
                let (sent, header) = (of.map(|of| value(trace(of, span))), id.map(|id| format!("i{id}")));
                let mut fields: Vec<_> = sent.as_deref().map(|sent| ("traceparent", sent)).into_iter().collect();
                match rule {
                    Rule::Header => fields.extend(header.as_deref().map(|id| ("x-id", id))),
                    Rule::Value => {}
                }
                test.call(&fields, &json(id));
                observed += 1;
                let got: Vec<usize> = (0..all.len()).filter(|n| all[*n].effects.len() > before[*n]).collect();
                assert!(got.len() <= 1, "one call for two requests");
                let is_current = |known: &&Known| known.ended.is_none_or(|ended| now - ended <= 10_000);
                let current: Vec<&Known> = all.iter().filter(is_current).collect();
                let of_trace: Vec<&Known> = current.iter().copied().filter(|known| Some(known.trace) == of).collect();
                let of_span: Vec<&Known> = of_trace.iter().copied().filter(|known| known.span == span).collect();
                let over: Vec<&Known> = all.iter().filter(|known| !is_current(known)).collect();
                let in_trace = over.iter().any(|known| Some(known.trace) == of);
                let is_late =
                    of_span.is_empty() && over.iter().any(|known| Some(known.trace) == of && known.span == span);
                let is_recent = |known: &Known| match rule {
                    Rule::Header => true,
                    Rule::Value => known.ended.is_none_or(|ended| now - ended <= 100_000),
                };
                let has_earlier = over.iter().any(|known| id.is_some() && known.id == id && is_recent(known));
                // The span decides, if one request has it. So does the trace, if one request ever was in it. Else the
                // id decides, among the requests of the trace or, if there are none, among all.
                let is_named = of_span.len() == 1 && !over.iter().any(|k| Some(k.trace) == of && k.span == span);
                let is_alone = of_span.is_empty() && of_trace.len() == 1 && !in_trace;
                let pool = if of_trace.is_empty() { current.clone() } else { of_trace.clone() };
                let of_id: Vec<_> = pool.into_iter().filter(|known| id.is_some() && known.id == id).collect();
                let only = match (is_named, is_alone) {
                    (true, _) => Some(of_span[0]),
                    (_, true) => Some(of_trace[0]),
                    (false, false) => None,
                };
                let contradicts = matches!(rule, Rule::Header)
                    && only.is_some_and(|known| id.is_some() && known.id.is_some() && known.id != id);
                let expected = match (only, &of_id[..]) {
                    (Some(only), _) => only.is_compared && !contradicts,
                    (None, [only]) => only.is_compared && !is_late && !has_earlier,
                    (None, _) => false,
                };
                assert_eq!(
                    got.len(),
                    usize::from(expected),
                    "{} in the trace, {} with the id",
                    of_trace.len(),
                    of_id.len()
                );
                if let [got] = got[..] {
                    assert!(current.iter().any(|known| std::ptr::eq(*known, &all[got])), "it is not current any more");
                }
            }
        }
    }
    let (attributed, ambiguous, unattributed) = test.outcomes();
    let not_compared = test.attribution.report(&ROUTE.into()).total.not_compared;
    assert_eq!(attributed + ambiguous + unattributed + not_compared, observed);
    let kept: usize = all.iter().map(|known| known.effects.len()).sum();
    assert_eq!(kept as u64, attributed, "each call is kept once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_call_is_guessed_by_header(operations in prop::collection::vec(operation(), 1..60)) {
        check_against_model(operations, Rule::Header);
    }

    #[test]
    fn no_call_is_guessed_by_value(operations in prop::collection::vec(operation(), 1..60)) {
        check_against_model(operations, Rule::Value);
    }
}

/// Requests and calls from many threads: each call is attributed at most once, and the counts agree.
#[test]
fn many_threads_lose_and_double_nothing() {
    let test = TestAttribution::new("header.x-id");
    let attributed: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let test = &test;
                scope.spawn(move || {
                    (0..500_u64)
                        .map(|n| {
                            let id = format!("{thread}-{n}");
                            let watch = test.watch(&[("x-id", &id)], None).unwrap();
                            test.call(&[("x-id", &id)], "");
                            watch.reply_passed_on();
                            watch.effects().len() as u64
                        })
                        .sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((attributed, test.outcomes()), (2_000, (2_000, 0, 0)));
}
