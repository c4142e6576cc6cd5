use super::*;
use crate::workflow::{Busy, OnReject, OnTimeout, Risk, RiskSource, Until};

#[test]
fn checkpoints_waits_locks_and_sub_runs_are_parsed() {
    let plan = checked_plan(
        r#"
workflow: publish
risks:
  - { effect: shared, method: DELETE, items_over: 100, risk: high }
  - { reversible: false, risk: medium }
steps:
  pick:
    checkpoint:
      question: "Which picture for ${request.body.title}?"
      schema: { type: object, required: [id], properties: { id: { type: string } } }
      who: [ann, bob]
      timeout: 2d
      on_timeout: escalate
      escalate: { who: [eve], timeout: 1h, on_timeout: reject }
    rehearse: { id: "${legacy.body.picture}" }
    on_reject: skip
  calm: { wait: 10m, needs: [pick] }
  paid:
    wait: { signal: paid, where: "${signal.id == steps.pick.output.id}", timeout: 3d, on_timeout: continue }
    rehearse: { sum: 1 }
  print:
    run: print-page
    input: { id: "${steps.pick.output.id}", late: "${steps.paid.timed_out}", by: "${steps.pick.by}" }
    lock: { key: "page:${request.body.page}", busy: ask }
  mail:
    for_each: ${request.body.readers}
    call: POST ${services.mail}/messages
    body: { to: "${item}", at: "${now}", id: '${uuid("mail")}' }
    risk: '${item == "all" ? "high" : "low"}'
    ask: { question: "Send ${size(request.body.readers)} mails?", timeout: 1h, on_timeout: reject }
    reversible: false
    busy_on: [409]
  tell: { set: { ok: "${steps.pick.approved}", out: "${steps.mail.struck}" } }
respond: { status: 200 }
"#,
    );
    let kind = |name: &str| plan.step(&StepId::new(name)).unwrap().1;
    let StepKind::Checkpoint(pick) = &kind("pick").kind else { panic!() };
    assert_eq!((pick.asking.who.len(), pick.asking.on_timeout), (2, Some(OnTimeout::Escalate)));
    assert_eq!((pick.on_reject, pick.asking.escalate.as_ref().map(|e| e.approve)), (OnReject::Skip, Some(false)));
    assert_eq!(pick.complaints(&json!({})), [r#""id" is a required property"#]);
    let StepKind::Wait(paid) = &kind("paid").kind else { panic!() };
    assert!(matches!(&paid.until, Until::Signal { continues: true, filter: Some(_), .. }) && paid.rehearse.is_some());
    assert_eq!(kind("paid").needs.len(), 1, "a filter's reads are needs");
    let StepKind::Run(print) = &kind("print").kind else { panic!() };
    assert_eq!(print.workflow.as_str(), "print-page");
    assert_eq!(kind("print").safeguards.lock.as_ref().map(|lock| lock.busy), Some(Busy::Ask));
    let safeguards = &kind("mail").safeguards;
    assert!(matches!(safeguards.risk, Some(RiskSource::Computed(_))) && safeguards.irreversible);
    assert_eq!(
        (safeguards.busy(409), safeguards.busy(423), safeguards.busy(404)),
        (Some(Busy::Wait), Some(Busy::Wait), None)
    );
    assert_eq!(plan.risks.len(), 2);
    assert_eq!((plan.risks[0].items_over, plan.risks[1].risk), (Some(100), Risk::Medium));
}

#[test]
fn wrong_questions_are_refused() {
    assert_step_problems(
        "a: { checkpoint: {} }",
        &[
            "w.steps.a.checkpoint: a checkpoint needs a `question` (for example `checkpoint: { question: \"Is this picture fit to print?\" }`)",
        ],
    );
    assert_step_problems(
        "a: { checkpoint: { question: ok, who: [], timeout: 1w, on_timeout: escalate, default: 1 } }",
        &[
            "w.steps.a.checkpoint.who: the list is empty, so nobody could answer (name the tokens that may answer, or leave `who` out: then all who may decide can answer)",
            "w.steps.a.checkpoint.timeout: `1w` is not a duration; write 50ms, 2s, 10m, 3h or 2d",
            "w.steps.a.checkpoint.on_timeout: `escalate` is missing: it names who is asked after the time-out (add `escalate: { who: [NAME] }`)",
            "w.steps.a.checkpoint.default: `default` is used only if a time-out approves (add `on_timeout: approve`, or leave `default` out)",
        ],
    );
    assert_step_problems(
        "a: { checkpoint: { question: ok, timeout: 1h, escalate: { who: [a, ''], on_timeout: escalate } } }",
        &[
            "w.steps.a.checkpoint.timeout: `timeout` does not say what happens then (add `on_timeout: reject`, or `approve`, or `escalate`)",
            "w.steps.a.checkpoint.escalate: `escalate` is never used (add `timeout: 30m` and `on_timeout: escalate`)",
            "w.steps.a.checkpoint.escalate.who[1]: a name must not be empty",
            "w.steps.a.checkpoint.escalate.on_timeout: `on_timeout` without a `timeout` (add `timeout: 30m`)",
            "w.steps.a.checkpoint.escalate.on_timeout: a question is escalated only once (`approve` or `reject`)",
        ],
    );
    let schema = "schema: { type: object, required: [x] }";
    assert_step_problems(
        &format!("a: {{ checkpoint: {{ question: ok, {schema}, timeout: 1h, on_timeout: approve }} }}"),
        &[
            "w.steps.a.checkpoint: `schema` requires values, but an approval by time-out has none (give them under `default:`)",
        ],
    );
    assert_step_problems(
        &format!("a: {{ checkpoint: {{ question: ok, {schema}, timeout: 1h, on_timeout: approve, default: {{}} }} }}"),
        &["w.steps.a.checkpoint.default: the value does not fit `schema`: \"x\" is a required property"],
    );
    assert_step_problems(
        "a: { checkpoint: { question: ok }, risk: high, ask: { who: [x] }, for_each: [1], input: 1 }",
        &[
            "w.steps.a.input: `input` belongs to a `run`, not to a `checkpoint`",
            "w.steps.a.risk: `risk` belongs to `call` and `run`, not to a `checkpoint` (a checkpoint is asked in any case)",
            "w.steps.a.ask: `ask` belongs to `call` and `run`, not to a `checkpoint` (a checkpoint is asked in any case)",
            "w.steps.a.for_each: `for_each` belongs to `call`, `set` and `run`, not to a `checkpoint` (`risk: high` on a call with `for_each` reviews each item)",
        ],
    );
}

#[test]
fn wrong_waits_are_refused() {
    assert_step_problems(
        "a: { wait: soon }",
        &["w.steps.a.wait: `soon` is not a duration; write 50ms, 2s, 10m, 3h or 2d"],
    );
    assert_step_problems(
        "a: { wait: {} }",
        &[
            "w.steps.a.wait: a `wait` waits for one of `for`, `until` and `signal` (for example `wait: 10m`, or `wait: { signal: paid, timeout: 2d }`)",
        ],
    );
    assert_step_problems(
        "a: { wait: { for: 1s, signal: x } }",
        &["w.steps.a.wait.signal: a `wait` waits either `for` or `signal`; make it two steps"],
    );
    assert_step_problems(
        "a: { wait: { until: noon, where: '${true}', timeout: 1s } }",
        &[
            "w.steps.a.wait.where: `where` belongs to a `signal`",
            "w.steps.a.wait.timeout: `timeout` belongs to a `signal`",
            "w.steps.a.wait.until: `noon` is not a time: a time is RFC 3339 (2026-01-31T12:00:00Z), or seconds since 1970",
        ],
    );
    assert_step_problems(
        "a: { wait: 1s, rehearse: 1, lock: { key: x } }",
        &[
            "w.steps.a.lock: `lock` belongs to `call` and `run`, not to a `wait`",
            "w.steps.a.rehearse: only a wait for a `signal` is rehearsed (in a rehearsal, a wait for a duration or a time ends at once)",
        ],
    );
    assert_step_problems(
        "a: { wait: { signal: 'a b', on_timeout: fail } }\nb: { set: '${signal.x}' }",
        &[
            "w.steps.a.wait.signal: `a b` cannot be the name of a signal: a letter or `_`, then letters, digits, `-` and `_`, at most 64 in all",
            "w.steps.a.wait.on_timeout: `on_timeout` without a `timeout` (add `timeout: 30m`)",
            "w.steps.b.set+2: `signal` can be read only in `where:` of a `wait` (the payload is the output of the step: steps.NAME.output)",
        ],
    );
}

#[test]
fn wrong_risks_and_locks_are_refused() {
    let call = "call: 'POST ${services.mail}/m'";
    assert_step_problems(
        &format!("a: {{ {call}, risk: big }}"),
        &[
            "w.steps.a.risk: `big` is not a risk level (`low` runs, `medium` asks yes or no, `high` is reviewed item by item)",
        ],
    );
    assert_step_problems(
        &format!("a: {{ {call}, ask: {{ who: [x] }} }}"),
        &[
            "w.steps.a.ask: `ask` without a risk: nobody would be asked (add `risk: medium` or `risk: high`, or `risks:` for the whole workflow)",
        ],
    );
    assert_step_problems(
        &format!("a: {{ {call}, risk: high, ask: {{ timeout: 1h, on_timeout: approve }} }}"),
        &[
            "warning: w.steps.a.ask.on_timeout: a time-out approves this step of high risk, although nobody reviewed it (use `reject`, or `escalate`)",
        ],
    );
    assert_step_problems(
        &format!("a: {{ {call}, lock: {{}} }}"),
        &["w.steps.a.lock: a lock needs a `key` (for example `lock: { key: \"order:${request.body.id}\" }`)"],
    );
    assert_step_problems(
        &format!("a: {{ {call}, lock: {{ key: '' }}, busy_on: [99] }}"),
        &[
            "w.steps.a.lock.key: the name of a lock must not be empty",
            "w.steps.a.busy_on[0]: `99` is not a status; write 402, or 4xx for all of them",
        ],
    );
    assert_step_problems(
        &format!("a: {{ {call}, busy_on: [409, 503] }}"),
        &[
            "warning: w.steps.a.busy_on: a 5xx does not count as busy: a proxy answers it also when the service was cut off after it had the request, so the outcome is unknown (list it under `not_done` too if, from `mail` and each proxy in front of it, it always means that nothing was done)",
        ],
    );
    for quiet in ["busy_on: [4xx]", "busy_on: [503], not_done: [503]", "busy_on: [5xx], effect: read"] {
        assert_step_problems(&format!("a: {{ {call}, {quiet} }}"), &[]);
    }
    assert_step_problems(
        "a: { set: 1, risk: low, reversible: false, on_reject: skip, busy_on: [423], rehearse: 1 }\nb: { run: w, for_each: [1], input: '${item}' }",
        &[
            "w.steps.a.rehearse: `rehearse` belongs to `call`, `checkpoint`, `wait` and `run`, not to a `set`",
            "w.steps.a.risk: `risk` belongs to `call` and `run`, not to a `set`",
            "w.steps.a.reversible: `reversible` belongs to `call` and `run`, not to a `set`",
            "w.steps.a.on_reject: `on_reject` belongs to `call`, `run` and `checkpoint`, not to a `set`",
            "w.steps.a.busy_on: `busy_on` belongs to a `call`, not to a `set`",
        ],
    );
    assert_problems(
        "workflow: w\nrisks: [ { risk: high }, { method: PUSH, risk: low } ]\nsteps: { a: { set: 1 } }\nrespond: { status: 200 }",
        &[
            "warning: w.risks[0]: the rules after this one are never used: its conditions hold for every call (put it last)",
            "w.risks[1].method: unknown method `PUSH` (did you mean `POST`?)",
        ],
    );
    assert_problems(
        "workflow: w\nsteps: { a: { call: 'GET ${services.bank}/x', headers: { x-a: '${secrets.bank}', x-b: '${now}' } } }\nrespond: { status: 200 }",
        &[
            "w.steps.a.call: URL and headers cannot read `now` beside a secret or a credential (compute it in a `set` step before: `stamp: { set: \"${now}\" }`)",
        ],
    );
    assert_step_problems(
        "a: { set: 1 }\nb: { set: '${[steps.a.approved, steps.a.struck, steps.a.timed_out]}' }",
        &[
            "w.steps.b.set+3: `a` is no checkpoint and has no `approved`",
            "w.steps.b.set+21: `a` is neither a `call` nor a `run` and has no `struck`",
            "w.steps.b.set+37: `a` is no `wait` and has no `timed_out`",
        ],
    );
}
