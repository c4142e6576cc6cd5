//! Tests of names that do not exist, or may not be used in their context.

use super::*;

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    assert_step_problems(
        "price: { set: 1 }\nb: { set: { x: ['total: ${1 + steps.prcie.output}'] } }",
        &["w.steps.b.set.x[0]+13: unknown step `prcie` (did you mean `price`?)"],
    );
    assert_step_problems(
        "a: { needs: [bb], set: 1 }\nbc: { set: 1 }",
        &["w.steps.a.needs[0]: unknown step `bb` (did you mean `bc`?)"],
    );
    assert_step_problems(
        "a-b: { set: 1 }\nc: { set: '${steps.a-b.output}' }",
        &[
            "w.steps.c.set+10: unknown name `b` (a name with a dash is written in brackets: a[\"b-c\"])",
            "w.steps.c.set+2: unknown step `a` (a name with a dash is written steps[\"a-b\"])",
        ],
    );
    assert_step_problems(
        "a: { set: '${a.output + reqest.body}' }",
        &[
            "w.steps.a.set+2: unknown name `a` (write steps.a.output)",
            "w.steps.a.set+13: unknown name `reqest` (did you mean `request`?)",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.stok}/x' }",
        &["w.steps.a.call+6: unknown service `stok` (did you mean `stock`?)"],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.x}/x' }",
        &[
            "w.steps.a.call+6: unknown service `x` (declare it under `services:` in pointsman.yaml; there are bank, mail, stock)",
        ],
    );
    assert_step_problems(
        "a: { call: 'GET ${services.bank}/x', headers: { x-key: '${secrets.bnak}' } }",
        &["w.steps.a.headers.x-key+2: unknown secret `bnak` (did you mean `bank`?)"],
    );
    assert_step_problems(
        "a: { set: '${request.bdy.x + request.query.q}' }",
        &["w.steps.a.set+2: `request` has no `bdy` (did you mean `body`?)"],
    );
    assert_step_problems(
        "a: { set: '${request.path.id + request.query.q.x + request.body.q.x}' }",
        &[
            "w.steps.a.set+2: `request.path` is a text and has no `id` (did you mean `request.params.id`?)",
            "w.steps.a.set+20: `request.query.q` is a text and has no `x` (did you mean `request.query.q`?)",
        ],
    );
    assert_step_problems(
        "a: { set: '${default(request.peer, 1)}' }",
        &[
            "w.steps.a.set+10: a workflow does not see the address of the caller: `request` has no `peer` (only `key:` of a route and `when:` of a cohort see request.peer)",
        ],
    );
    assert_step_problems(
        "b: { set: 1 }\na: { set: '${[steps.b.outptu, steps.b, steps, steps[\"b\"].body]}' }",
        &[
            "w.steps.a.set+3: name the step that is meant: a step whose name is computed cannot be waited for (write steps.NAME.output)",
            "w.steps.a.set+3: name the part of the step `b` that is meant (write steps.b.output)",
            "w.steps.a.set+3: a step has no `body` (the body is `output`)",
            "w.steps.a.set+3: a step has no `outptu` (did you mean `output`?)",
        ],
    );
    assert_step_problems(
        "b: { set: 1 }\nf: { fail: { status: 400 } }\na: { set: '${[steps.b.status, steps.f.output]}' }",
        &[
            "w.steps.a.set+3: `b` is no call and has no `status`",
            "w.steps.a.set+19: `f` ends the run and has no `output`",
            "warning: w.steps.a: `a` never runs: `f` ends the run, or is skipped, and `a` with it (leave `f` out, and give `a` an `if:` with the opposite condition)",
        ],
    );
}

#[test]
fn names_are_refused_where_they_do_not_belong() {
    let stored = "anywhere else it would be stored and shown";
    assert_step_problems(
        "a: { call: 'POST ${services.bank}/x', body: '${secrets.bank}' }",
        &[&format!("w.steps.a.body+2: `secrets` can be read only in a call's headers or URL ({stored})")],
    );
    assert_step_problems(
        "a: { set: '${item.x}' }\nb: { for_each: '${[index]}', set: '${item}' }",
        &[
            "w.steps.a.set+2: `item` exists only in a step with `for_each`, and in the fallback of one",
            "w.steps.b.for_each+3: `index` exists only in a step with `for_each`, and in the fallback of one",
        ],
    );
    let legacy = "what the engine does must not depend on legacy's reply";
    assert_step_problems(
        "a: { if: '${legacy.status == 200}', set: 1 }",
        &[&format!("w.steps.a.if+2: `legacy` can be read only in `rehearse:` ({legacy})")],
    );
    assert_step_problems(
        "a: { set: '${[failed.step, intents.a]}' }",
        &[
            "w.steps.a.set+3: `failed` can be read only in `respond`",
            "w.steps.a.set+16: `intents` can be read only in a route's `assert` and `invariants`",
        ],
    );
    assert_problems(
        "workflow: w\nsteps: { a: { set: 1 } }\nrespond: { body: '${services.bank}' }",
        &["w.respond.body+2: `services` cannot be read in `respond`: addresses are not for callers"],
    );
}

#[test]
fn credentials_of_callers_need_a_store_key_and_are_read_only_in_headers_and_urls() {
    let pass =
        steps("a: { call: 'GET ${services.bank}/x', headers: { authorization: '${request.headers.Authorization}' } }");
    assert_problems(
        &pass,
        &[
            "w.steps.a.headers.authorization+2: the caller's `authorization` would be stored in clear, because there is no \
         `store_key` to seal it with (declare `store_key: { file: … }` in pointsman.yaml)",
        ],
    );
    let (plan, problems) = Environment { store_key: true, ..Environment::new() }.check(&pass);
    assert_eq!((problems.len(), plan.unwrap().credentials_read().collect::<Vec<_>>()), (0, vec!["authorization"]));
    assert_step_problems(
        "a: { set: '${request.headers[\"cookie\"]}' }\nb: { set: '${request.headers}' }",
        &[
            "w.steps.a.set+2: the caller's `cookie` can be read only in a call's headers or URL \
         (credentials of callers are only passed on to services, and never stored or shown in clear)",
            "w.steps.b.set+2: name the header that is meant: all of them hold the caller's credentials (write request.headers[\"x-name\"])",
        ],
    );
}
