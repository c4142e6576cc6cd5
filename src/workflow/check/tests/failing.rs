//! Tests of the checks of failure handling.

use super::*;

#[test]
fn every_key_of_failure_handling_is_accepted() {
    let plan = checked_plan(
        r#"
workflow: w
deadline: 3d
steps:
  a:
    call: POST ${services.bank}/a
    deadline: 90s
    on_conflict: fail
    on_failure: pause
    output: { schema: { type: object } }
    not_done: [503]
    fallback: b
    probe: { call: "GET ${services.bank}/a?key=${key}", headers: { authorization: "${secrets.bank}" }, done: "${status == 200}", after: 5s }
    undo: { call: "POST ${services.stock}/a/${output.id}/undo", body: "${status}", timeout: 1s, retry: { attempts: 9 } }
  b: { call: "POST ${services.stock}/b", fallback_only: true, undo: "DELETE ${services.stock}/b/${output.id}" }
  c: { for_each: "${request.body.items}", call: "POST ${services.stock}/c", failures: collect, undo: "DELETE ${services.stock}/c/${item}/${index}" }
  d: { set: "${steps.a.by + string(size(steps.c.errors))}", on_failure: pause }
respond: { status: 200 }
"#,
    );
    let step = |name: &str| plan.step(&StepId::new(name)).unwrap();
    let secs = std::time::Duration::from_secs;
    let (original, a) = step("a");
    let (fallback, b) = step("b");
    assert_eq!((plan.deadline, a.failure_handling.deadline), (Some(secs(259_200)), Some(secs(90))));
    assert_eq!((a.failure_handling.fallback, b.replaces), (Some(fallback), Some(original)));
    assert!(a.probe.as_ref().is_some_and(|probe| probe.after == secs(5) && probe.call.accept.contains(404)));
    assert!(a.undo.as_ref().is_some_and(|undo| undo.retry.attempts == 9 && !undo.accept.contains(404)));
    assert!(b.undo.as_ref().is_some_and(|undo| undo.accept.contains(404) && undo.keyed));
    assert!(step("c").1.for_each.as_ref().is_some_and(|for_each| for_each.collect));
}

#[test]
fn a_fallback_replaces_one_step_and_no_step_needs_it() {
    let call = "call: 'POST ${services.stock}/x', not_done: [503]";
    assert_step_problems(
        &format!("a: {{ {call}, fallback: z }}\nb: {{ {call}, fallback: b }}\nc: {{ {call}, fallback: a }}"),
        &[
            "w.steps.a.fallback: unknown step `z` (did you mean `a`?)",
            "w.steps.b.fallback: a step cannot be its own fallback (`retry` tries it again)",
            "w.steps.c.fallback: `a` runs anyway, so it cannot take the place of `c` (say `fallback_only: true` in `a`)",
        ],
    );
    assert_step_problems(
        &format!(
            "a: {{ {call}, fallback: f }}\nb: {{ {call}, fallback: f }}\nf: {{ {call}, fallback_only: true }}\ng: {{ set: '${{steps.f.output}}' }}\nh: {{ set: 1, fallback_only: true }}"
        ),
        &[
            "w.steps.b.fallback: `f` is the fallback of `a` already (a fallback replaces only one step: declare a second one)",
            "w.steps.g: `f` runs only where it takes the place of `a` (read `steps.a`: if `f` ran, its output is there, and `by` is `f`)",
            "w.steps.h.fallback_only: no step has `h` as its fallback, so it would never run (say `fallback: h` in the step whose place it takes)",
        ],
    );
    let (_, problems) = Environment::new().check(&steps(&format!(
        "a: {{ {call}, fallback: f }}\nb: {{ needs: [a], set: 1 }}\nf: {{ {call}, fallback_only: true, needs: [b] }}\np: {{ {call}, fallback: q, fallback_only: true }}\nq: {{ {call}, fallback: p, fallback_only: true }}"
    )));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("a → f → b → a") && problems[1].contains("p → q → p"), "{problems:#?}");
}

#[test]
fn what_a_503_means_for_a_fallback_is_explained() {
    let problems_of = |step: &str| {
        let by = "b: { call: 'POST ${services.stock}/x', fallback_only: true }";
        Environment::new().check(&steps(&format!("a: {{ {step}, fallback: b }}\n{by}"))).1
    };
    let warned = problems_of("call: 'POST ${services.stock}/x'");
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert!(warned[0].starts_with("warning: w.steps.a.fallback: a 503 does not lead to the fallback"), "{warned:#?}");
    assert!(warned[0].contains("say `not_done: [503]` if every 503 of `stock`"), "{warned:#?}");
    for quiet in [
        "call: 'POST ${services.stock}/x', not_done: [5xx]",
        "call: 'POST ${services.stock}/x', accept: [2xx, 503]",
        "call: 'GET ${services.stock}/x'",
    ] {
        assert_eq!(problems_of(quiet), Vec::<String>::new(), "{quiet}");
    }
}

#[test]
fn an_undo_and_a_probe_name_a_call_that_fits() {
    assert_step_problems(
        "a: { call: 'POST ${services.stock}/x', undo: 'GET ${services.stock}/x', probe: { done: '${true}' } }\nb: { call: 'POST ${services.stock}/x', undo: {}, probe: { call: 'GET ${services.stock}/x' } }",
        &[
            "w.steps.a.undo: a GET undoes nothing (name the call that undoes what the step did)",
            "w.steps.a.probe: `probe` needs a `call` (for example `call: GET ${services.stock}/things?key=${key}`)",
            "w.steps.b.undo: `undo` needs a `call` (for example `undo: DELETE ${services.NAME}/things/${output.id}`)",
            "w.steps.b.probe: `probe` says how to read the answer: `done` is missing (for example `done: ${status == 200}`)",
        ],
    );
}

#[test]
fn only_for_each_steps_and_fallbacks_of_items_read_item() {
    let call = "call: 'POST ${services.stock}/x', not_done: [503]";
    let plan = checked_plan(&steps(&format!(
        "a: {{ for_each: [1], {call}, fallback: b }}\nb: {{ {call}, fallback_only: true, fallback: c, if: '${{item > 0}}', body: '${{index}}', undo: 'DELETE ${{services.stock}}/${{item}}', probe: {{ call: 'GET ${{services.stock}}/${{item}}', done: '${{index == 0}}' }} }}\nc: {{ run: other, input: '${{item}}', fallback_only: true }}\nd: {{ set: '${{steps.a.by[0]}}' }}"
    )));
    let by_item = |name: &str| plan.runs_by_item(plan.step(&StepId::from(name)).unwrap().1);
    assert_eq!(["a", "b", "c", "d"].map(by_item), [true, true, true, false]);
    assert_step_problems(
        &format!(
            "a: {{ {call}, fallback: b }}\nb: {{ {call}, fallback_only: true, body: '${{item}}' }}\nc: {{ for_each: [1], {call}, fallback: d }}\nd: {{ fail: {{ status: 409 }}, fallback_only: true }}\ne: {{ for_each: [1], {call}, fallback: f }}\nf: {{ wait: 1s, fallback_only: true }}\ng: {{ for_each: [1], {call} }}\nh: {{ set: '${{steps.g.by}} ${{steps.c.status}}' }}"
        ),
        &[
            "w.steps.b.body+2: `item` exists only in a step with `for_each`, and in the fallback of one",
            "w.steps.h.set+2: `g` has no `fallback`, and so no `by`",
            "w.steps.h.set+16: `c` is many calls (`for_each`) and has no `status` of its own (steps.c.output is the list of what its items were answered, such as steps.c.output[0]; with `failures: collect` steps.c.errors has the `index`, `status` and `message` of each item that failed)",
            "w.steps.c.fallback: `d` would take the place of single items of a `for_each`: only a `call`, a `set` or a `run` can",
            "w.steps.e.fallback: `f` would take the place of single items of a `for_each`: only a `call`, a `set` or a `run` can",
        ],
    );
}

#[test]
fn the_hint_for_the_status_of_many_calls_says_what_can_be_read() {
    let call = "for_each: [1], call: 'POST ${services.stock}/x', failures: collect";
    assert_step_problems(
        &format!("a-b: {{ {call} }}\nc: {{ set: '${{steps[\"a-b\"].headers[0]}}' }}"),
        &[
            "w.steps.c.set+2: `a-b` is many calls (`for_each`) and has no `headers` of its own (steps[\"a-b\"].output is the list of what its items were answered, such as steps[\"a-b\"].output[0]; steps[\"a-b\"].errors has the `index`, `status` and `message` of each item that failed)",
        ],
    );
}

#[test]
fn keys_that_do_not_belong_together_are_refused_with_a_hint() {
    assert_step_problems(
        "a: { for_each: [1], call: 'POST ${services.stock}/x', not_done: [503], fallback: b, failures: collect, on_failure: pause }\nb: { for_each: [1], set: 1, fallback_only: true }",
        &[
            "w.steps.a.on_failure: a step has either `failures: collect`, or `on_failure: pause`, which has a person decide: not both",
            "w.steps.b.fallback_only: a fallback replaces one call or one item, so it cannot have a `for_each`",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.stock}/x', undo: 'GET ${services.stock}/x', probe: { done: '${true}' }, failures: collect, deadline: soon }\nb: { set: 1, undo: x, on_conflict: fail }",
        &[
            "w.steps.a.deadline: `soon` is not a duration; write 50ms, 2s, 1m, 1h or 3d",
            "w.steps.a.failures: `failures` is allowed only in a step with `for_each`",
            "w.steps.a.undo: a `read` changes nothing, so `undo` has no meaning for it (say `effect: private` or `shared` if it does change something)",
            "w.steps.a.probe: a `read` changes nothing, so `probe` has no meaning for it (say `effect: private` or `shared` if it does change something)",
            "w.steps.b.on_conflict: `on_conflict` belongs to a `call`, not to a `set`",
            "w.steps.b.undo: `undo` belongs to a `call`, not to a `set`",
        ],
    );
    assert_step_problems(
        "a: { call: 'POST ${services.stock}/x', undo: { call: 'DELETE ${services.stock}/${steps.a.output.id}', body: '${secrets.bank}' }, probe: { call: 'PUT ${services.stock}/x', done: '${output.x}' } }\nb: { set: '${steps.a.by} ${steps.a.errors} ${key}' }",
        &[
            "w.steps.a.undo.body+2: `secrets` can be read only in a call's headers or URL (anywhere else it would be stored and shown)",
            "w.steps.a.probe.call: a probe only asks; a PUT changes something (GET, HEAD, or a POST that only searches)",
            "w.steps.a: `undo` and `probe` of `a` cannot read `steps.a` (write `output`: it is what the step gave)",
            "w.steps.b.set+2: `a` has no `fallback`, and so no `by`",
            "w.steps.b.set+16: `a` does not collect what fails (`failures: collect`) and has no `errors`",
            "w.steps.b.set+34: unknown name `key` (names here are request, steps, run, instance, now, services)",
        ],
    );
}
