//! Tests of the checks of single steps, calls and answers.

use super::*;

#[test]
fn the_shape_of_a_step_is_checked() {
    assert_step_problems(
        "a: {}",
        &[
            "w.steps.a: a step has one of `call`, `set`, `checkpoint`, `wait`, `run` and `fail` (for example `call: GET ${services.NAME}/path`)",
        ],
    );
    assert_step_problems(
        "a: { set: 1, fail: { status: 400 } }",
        &["w.steps.a.fail: a step is either a `set` or a `fail`; make it two steps"],
    );
    assert_step_problems(
        "a: { set: 1, retry: { attempts: 2 }, volatile: true }",
        &[
            "w.steps.a.retry: `retry` belongs to a `call`, not to a `set`",
            "w.steps.a.volatile: `volatile` belongs to a `call`, not to a `set`",
        ],
    );
    assert_step_problems(
        "a: { fail: { status: 400 }, body: 1 }",
        &[
            "w.steps.a.body: `body` belongs to a `call`, not to a `fail` (write it under `fail:`: `fail: { status: …, body: … }`)",
        ],
    );
    assert_step_problems(
        "a: { fail: { status: 99 } }\nb: { fail: {} }\nc: { fail: { status: 'a${1}' } }",
        &[
            "w.steps.a.fail.status: 99 is not a status; it is a number from 200 to 599",
            "w.steps.b.fail: `fail` needs a `status` (for example `fail: { status: 409 }`)",
            "w.steps.c.fail.status: a status is a number or one `${ … }`",
        ],
    );
    assert_step_problems(
        "a b: { set: 1 }",
        &[
            "w.steps.a b: `a b` cannot be the name of a step: a letter or `_`, then letters, digits, `-` and `_`, at most 64 in all",
        ],
    );
    assert_step_problems(
        "a: { set: 1, concurrency: 2 }\nb: { for_each: '${[1]}', concurrency: 0, set: 1 }\nc: { for_each: x, set: 1 }",
        &[
            "w.steps.a.concurrency: `concurrency` is allowed only in a step with `for_each`",
            "w.steps.b.concurrency: with a concurrency of 0 no item would ever begin (1 takes one item after the other)",
            "w.steps.c.for_each: `for_each` takes a list or one `${ … }` that gives one",
        ],
    );
    assert_step_problems(
        "a: { set: 1, needs_any: true }",
        &[
            "warning: w.steps.a.needs_any: `a` needs no other step (name steps under `needs:`, or leave `needs_any` out)",
        ],
    );
    assert_step_problems(
        "a: { fail: { status: 409 }, if: '${request.body.x == 1}' }\nb: { set: 1, needs: [a] }",
        &[
            "warning: w.steps.b.needs[0]: `b` never runs: `a` ends the run, or is skipped, and `b` with it (leave `a` out, and give `b` an `if:` with the opposite condition)",
        ],
    );
    for needs_alone in ["needs: [a], needs_any: true", "set: '${steps.a.skipped}', needs_any: true"] {
        let set = if needs_alone.contains("set") { "" } else { "set: 1, " };
        let steps =
            format!("a: {{ fail: {{ status: 409 }}, if: '${{request.body.x == 1}}' }}\nb: {{ {set}{needs_alone} }}");
        let place = if set.is_empty() { "" } else { ".needs[0]" };
        assert_step_problems(
            &steps,
            &[&format!(
                "warning: w.steps.b{place}: `b` never runs: `a` ends the run, or is skipped, and `b` with it (leave `a` out, and \
                 give `b` an `if:` with the opposite condition)"
            )],
        );
    }
    assert_step_problems(
        "a: { fail: { status: 409 }, if: '${request.body.x == 1}' }\nc: { set: 1 }\nb: { set: 1, needs: [a, c], needs_any: true }",
        &[],
    );
    assert_step_problems("a: { set: '${1 +}' }", &["w.steps.a.set+5: not a CEL expression: it ends too early"]);
    assert_step_problems("a: { if: 'true', set: 1 }", &["w.steps.a.if: `true` is not one expression; write `${ … }`"]);
    assert_problems("workflow: w\nsteps: {}\nrespond: { status: 200 }", &["w.steps: a workflow has at least one step"]);
}

#[test]
fn calls_are_checked() {
    assert_step_problems(
        "a: { call: 'post ${services.bank}/x' }\nb: { call: '${services.bank}/x' }\nc: { call: BREW }\nd: { call: GET }",
        &[
            "w.steps.a.call: unknown method `post` (did you mean `POST`?)",
            "w.steps.b.call: a call is a method and a URL (write `call: GET ${services.bank}/x`)",
            "w.steps.c.call: unknown method `BREW` (methods are GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS)",
            "w.steps.d.call: a call is a method and a URL (write `GET ${services.NAME}/path`)",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET http://bank:80/x' }\nb: { call: 'GET ${request.body.url}/x' }",
        &[
            "w.steps.a.call+4: a call has to go to a declared service, not to an address \
         (declare `http://bank:80` under `services:` in pointsman.yaml and write `${services.NAME}`)",
            "w.steps.b.call+4: a URL begins with `${services.NAME}`; a computed host is not allowed",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.bank}/x', timeout: 0s, retry: { attempts: 0, base: '5', max: 2d } }\n\
         b: { call: 'GET ${services.bank}/x', retry: { base: 2s, max: 1s }, accept: [2xx, 99, x], not_done: [204] }",
        &[
            "w.steps.a.retry.base: `5` is not a duration: it has no unit; write 5s",
            "w.steps.a.retry.max: `2d` is not a duration; write 50ms, 2s, 1m or 1h",
            "w.steps.a.timeout: a duration is longer than 0",
            "w.steps.b.retry.max: `max` is shorter than `base`",
            "w.steps.b.accept[1]: `99` is not a status; write 402, or 4xx for all of them",
            "w.steps.b.accept[2]: `x` is not a status; write 402, or 4xx for all of them",
            "w.steps.b.not_done: a status cannot be both a result (`accept`) and `not_done`",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.bank}/x', retry: { attempts: 0 } }",
        &["w.steps.a.retry.attempts: 0 attempts would never call (`attempts` counts the first one too: 1 is no retry)"],
    );
    assert_step_problems(
        "a: { call: 'POST ${services.stock}/x', body: 1, text: x, headers: { Host: x, 'a b': x, x-a: \"a\\nb\" } }",
        &[
            "w.steps.a.headers.Host: `host` cannot be set here: the engine or the protocol sets it",
            "w.steps.a.headers.a b: `a b` is not a header's name",
            "w.steps.a.headers.x-a: a header's value has no line breaks or control characters",
            "w.steps.a.text: a call has one body: either `body` or `text`",
        ],
    );
    assert_step_problems(
        "a: { call: 'POST ${services.stock}/x', raw: '${request.body}' }",
        &[
            "w.steps.a.raw: `raw` passes the bytes of the request on, and nothing else (write `raw: ${request.raw}`; use `text:` or `body:` for anything else)",
        ],
    );
}

#[test]
fn a_wait_may_be_declared_as_zero_like_a_computed_one() {
    checked_plan(&steps("a: { wait: 0s }\nb: { wait: { for: 0 } }\nc: { wait: '${\"0s\"}' }"));
    assert_step_problems(
        "a: { wait: soon }",
        &["w.steps.a.wait: `soon` is not a duration; write 50ms, 2s, 10m, 3h or 2d"],
    );
}

#[test]
fn what_is_allowed_but_probably_unintended_is_a_warning() {
    let with_body = ["204", "205", "'304'", "200"].map(|status| (status, ", body: 1"));
    for (status, declared) in with_body.into_iter().chain([("204", "")]) {
        let (_, problems) = Environment::new()
            .check(&format!("workflow: w\nsteps: {{ a: {{ set: 1 }} }}\nrespond: {{ status: {status}{declared} }}"));
        let expected = format!(
            "warning: w.respond.body: a reply with status {} has no content: the body is not sent to the caller (only the \
             API, and a run above this one, see it; leave it out, or answer with 200)",
            status.trim_matches('\'')
        );
        let warns = status != "200" && !declared.is_empty();
        assert_eq!(problems, if warns { vec![expected] } else { Vec::new() }, "{status}{declared}");
    }
    assert_step_problems(
        "a: { call: 'DELETE ${services.bank}/x', effect: read }",
        &[
            "warning: w.steps.a.effect: a DELETE that is declared `read` is sent in shadow, in addition to legacy's own (`read` means that it changes nothing at all)",
        ],
    );
    assert_step_problems(
        "a: { call: 'POST ${services.bank}/x', retry: { attempts: 3 } }\nb: { call: 'POST ${services.stock}/x', retry: { attempts: 3 } }",
        &[
            "warning: w.steps.a.retry: after an unknown outcome (a timeout, a cut connection) this POST is not tried again: doing it twice could do harm \
         (declare `bank` as `keyed: true` if it honours Idempotency-Key; else `retry` holds only for attempts that certainly did nothing)",
        ],
    );
    assert_step_problems(
        "a: { call: 'POST ${services.bank}/x', volatile: true }\nb: { call: 'GET ${services.bank}/x', body: 1 }",
        &[
            "warning: w.steps.a.volatile: `volatile` means something only for a `read`",
            "warning: w.steps.b.call: a GET with a body is not understood by every service",
        ],
    );
}

#[test]
fn respond_is_checked() {
    let with = |respond: &str| {
        format!("workflow: w\nsteps: {{ a: {{ set: 1 }}, b: {{ needs: [a], set: 2 }} }}\nrespond: {respond}\n")
    };
    assert_problems(
        "workflow: w\nsteps: { a: { set: 1 } }",
        &[
            "w: a workflow says what the caller gets: `respond` is missing (for example `respond: { status: 200, body: \"${steps.NAME.output}\" }`)",
        ],
    );
    assert_problems(
        &with("[{ after: [a, c], body: '${steps.b.output}' }, { status: 200 }]"),
        &[
            "w.respond[0].after[1]: unknown step `c` (did you mean `a`?)",
            "w.respond[0].after: the answer reads `steps.b`, which may not have ended after a, c (add `b` to `after`)",
        ],
    );
    assert_problems(
        &with("[{ status: 200 }, { when: '${true}' }]"),
        &[
            "warning: w.respond[1]: this entry is never taken: an entry above it has neither `when` nor `after` (put the entries with `when` and `after` first)",
        ],
    );
    assert_problems(
        &with("[{ when: '${input_error != null}', status: 422 }]"),
        &[
            "warning: w.respond: if the conditions of no entry hold, the caller gets an error (end the list with an entry without `when` and `after`)",
        ],
    );
    assert_problems(
        &with("[{ status: 200, pending: { body: '${steps.a.output}' } }, { pending: {} }]"),
        &[
            "w.respond[0].pending: `pending` reads `steps.a`, which may not have ended (`pending` can always read `request` and `run`)",
            "w.respond[1].pending: `pending` is declared twice; there is one answer while a run goes on",
        ],
    );
    assert_problems(&with("[]"), &["w.respond: `respond` is empty"]);
    let plan = checked_plan(&with("{ status: 201, pending: { status: 202 } }"));
    assert!(plan.respond.len() == 1 && plan.pending.is_some());
    // The steps under `after` have ended, and so have all steps that they need.
    checked_plan(&with("[{ after: [b], body: '${steps.a.output}' }, { status: 200 }]"));
}

#[test]
fn the_json_schema_accepts_what_the_check_accepts() {
    let schema = schemars::schema_for!(crate::workflow::WorkflowDraft).to_value();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors = |yaml: &str| -> Vec<String> {
        let value: Value = serde_saphyr::from_str(yaml).unwrap();
        validator.iter_errors(&value).map(|error| error.instance_path().to_string()).collect()
    };
    assert_eq!(errors(ORDER), Vec::<String>::new());
    assert_eq!(
        errors(&steps("a: { set: null, undo: x, lock: { key: k } }\nb: { for_each: [1], fail: { status: 400 } }")),
        Vec::<String>::new()
    );
    assert_eq!(errors(&steps("a: { cal: x }")), ["/steps/a"]);
    assert_eq!(errors(&steps("a: { call: x, timeout: 5, accept: 2xx, headers: { a: [] } }")).len(), 3);
    assert_eq!(errors(&steps("a: { call: x, retry: { attempts: '3', bas: 1s } }")), ["/steps/a/retry"]);
}

#[test]
fn the_reason_why_runs_have_to_be_kept_is_named() {
    let reason = |step: &str, more: &str| {
        let text = format!("workflow: w\n{more}\nsteps:\n  s: {step}\nrespond: {{ status: 200 }}\n");
        let (plan, problems) = Environment::new().check(&text);
        plan.unwrap_or_else(|| panic!("{step}: {problems:#?}")).reason_to_keep()
    };
    let read = "call: 'GET ${services.stock}/x'";
    for (step, more) in [
        (format!("{{ {read} }}"), ""),
        (format!("{{ {read}, risk: low, busy_on: [409] }}"), ""),
        (format!("{{ {read} }}"), "risks: [{ effect: shared, risk: high }, { risk: low }]"),
        (format!("{{ for_each: [1], {read}, on_conflict: fail }}"), ""),
        ("{ set: 1 }".to_owned(), ""),
        ("{ fail: { status: 404 } }".to_owned(), ""),
    ] {
        assert_eq!(reason(&step, more), None, "{step}");
    }
    for (step, more, named) in [
        ("{ call: 'POST ${services.stock}/x' }".to_owned(), "", "the shared step `s`"),
        ("{ call: 'POST ${services.stock}/x', effect: private }".to_owned(), "", "the private step `s`"),
        ("{ wait: 1s }".to_owned(), "", "the wait `s`"),
        ("{ checkpoint: { question: sure } }".to_owned(), "", "the checkpoint `s`"),
        ("{ run: other }".to_owned(), "", "`s`, which runs another workflow"),
        (format!("{{ {read}, on_failure: pause }}"), "", "`s`, over which a person may have to decide"),
        (
            "{ set: '${request.body.x}', on_failure: pause }".to_owned(),
            "",
            "`s`, over which a person may have to decide",
        ),
        (format!("{{ {read}, lock: {{ busy: ask }} }}"), "", "`s`, over which a person may have to decide"),
        (format!("{{ {read}, lock: {{ key: a }} }}"), "", "the lock of `s`"),
        (format!("{{ {read}, risk: medium }}"), "", "`s`, about which people may be asked (`risk`)"),
        (
            format!("{{ {read} }}"),
            "risks: [{ method: GET, risk: high }]",
            "`s`, about which people may be asked (`risk`)",
        ),
    ] {
        assert_eq!(reason(&step, more).as_deref(), Some(named), "{step}");
    }
    let pending = "workflow: w\nsteps: { s: { set: 1 } }\nrespond: [{ status: 200 }, { pending: { status: 202 } }]\n";
    let plan = checked_plan(pending);
    assert_eq!(plan.reason_to_keep().as_deref(), Some("`respond.pending`, for runs that go on"));
}

/// A replaced step has its fallback's output.
#[test]
fn a_step_that_reads_the_replaced_step_reads_its_fallback() {
    let plan = checked_plan(
        "
workflow: w
steps:
  quote: { call: 'GET ${services.stock}/q', fallback: ask }
  ask: { fallback_only: true, call: 'POST ${services.stock}/ask', fallback: guess, not_done: [503] }
  guess: { fallback_only: true, call: 'POST ${services.stock}/guess' }
  other: { call: 'POST ${services.stock}/other' }
respond: { status: 200, body: '${steps.quote.output}' }
",
    );
    let read: Vec<_> = plan.steps.iter().filter(|step| plan.is_read(step)).map(|step| step.id.as_str()).collect();
    assert_eq!(read.len(), 3, "{read:?}");
    assert!(!read.contains(&"other"));
    let mut unrehearsed: Vec<_> = plan.unrehearsed().map(|step| step.id.as_str()).collect();
    unrehearsed.sort_unstable();
    assert_eq!(unrehearsed, ["ask", "guess"]);
    assert!(
        plan.reason_to_keep().is_some_and(|what| what.starts_with("the shared step")),
        "the fallback of a read may be a shared step"
    );
}
