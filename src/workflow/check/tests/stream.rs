//! Steps that stream their reply: where they are refused, and why.

use super::*;

const FILE: &str = "file: { call: 'GET ${services.stock}/f', stream: true";

/// A workflow with these further keys of the step `file`, further steps and answer.
fn workflow(keys: &str, steps: &str, respond: &str) -> String {
    format!("workflow: w\nsteps:\n  {FILE}{keys} }}\n{steps}respond: {respond}\n")
}

const ANSWER: &str = "{ status: '${steps.file.status}', headers: { etag: '${steps.file.headers.etag}' }, \
                      body: '${ steps.file.output }' }";

#[test]
fn a_step_streams_to_the_whole_body_of_an_answer() {
    let plan = checked_plan(&workflow("", "", ANSWER));
    assert_eq!(plan.streaming_step(), Some(&StepId::new("file")));
    assert_eq!(plan.reason_to_keep(), None);
    for output in ["steps.file.output", "steps[\"file\"].output"] {
        let entries =
            format!("[{{ when: '${{steps.file.skipped}}', status: 404 }}, {{ status: 200, body: '${{{output}}}' }}]");
        checked_plan(&workflow(", if: '${request.method == \"GET\"}'", "", &entries));
    }
    let other = "steps:\n  file: { call: 'GET ${services.stock}/f' }\nrespond: { status: 200 }\n";
    assert_eq!(checked_plan(&format!("workflow: w\n{other}")).streaming_step(), None);
}

#[test]
fn only_a_read_streams_and_nothing_else_may_be_asked_of_its_body() {
    assert_problems(
        &workflow(", effect: private", "", ANSWER).replace("GET", "POST"),
        &["w.steps.file.stream: `file` is private, and only a `read` can stream \
           (a call with an effect is recorded with its reply: leave `stream` out)"],
    );
    for (keys, key, why) in [
        (", output: { schema: { type: object } }", "output", "the body is passed on unread, and meets no schema"),
        (", sensitive: [$.a]", "sensitive", "the body is passed on unread, and is never stored or shown"),
    ] {
        let message = format!(
            "w.steps.file.{key}: a step that streams its reply takes no `{key}`: {why} (leave `stream` or `{key}` out)"
        );
        let (_, problems) = Environment { store_key: true, ..Environment::new() }.check(&workflow(keys, "", ANSWER));
        assert_eq!(problems, [message]);
    }
    let answer = "{ status: 200, body: '${steps.file.output}' }";
    assert_problems(
        &workflow(", for_each: '${[1, 2]}'", "", answer),
        &["w.steps.file.for_each: a step that streams its reply takes no `for_each`: one answer has one body \
           (leave `stream` or `for_each` out)"],
    );
    let other = "  other: { call: 'GET ${services.bank}/o', fallback: file }\n";
    let (_, problems) = Environment::new().check(&workflow(", fallback_only: true", other, answer));
    let message = "w.steps.file.fallback_only: a step that streams its reply takes no `fallback_only`: its output is \
                   read under the name of the step that it replaces (leave `stream` or `fallback_only` out)";
    assert!(problems.iter().any(|problem| problem == message), "{problems:#?}");
    assert_step_problems(
        "a: { set: 1, stream: true }",
        &["w.steps.a.stream: `stream` belongs to a `call`, not to a `set`"],
    );
}

#[test]
fn the_output_of_a_step_that_streams_is_read_nowhere_else() {
    let message = "`file` streams its reply: its output can only be the whole body of an answer (write \
                   `body: ${steps.file.output}` in `respond`; status and headers can be read anywhere. Or leave `stream` \
                   out of `file`)";
    for (steps, at) in [
        ("  b: { set: '${steps.file.output}' }\n", "steps.b.set+2"),
        ("  b: { call: 'GET ${services.bank}/b', if: '${steps.file.output.a == 1}' }\n", "steps.b.if+2"),
        ("  b: { if: '${false}', fail: { status: 400, body: '${steps.file.output}' } }\n", "steps.b.fail.body+2"),
        ("  b: { call: 'POST ${services.bank}/b', effect: read, body: '${steps.file.output}' }\n", "steps.b.body+2"),
    ] {
        assert_problems(&workflow("", steps, ANSWER), &[&format!("w.{at}: {message}")]);
    }
    for (entry, at) in [
        ("{ status: 200, headers: { x-a: '${steps.file.output}' } }", "headers.x-a+2"),
        ("{ status: 200, body: { a: '${steps.file.output}' } }", "body.a+2"),
        ("{ status: 200, body: 'a ${steps.file.output}' }", "body+4"),
        ("{ status: 200, body: '${steps.file.output.a}' }", "body+2"),
        ("{ status: 200, body: '${[steps.file.output]}' }", "body+3"),
        ("{ when: '${steps.file.output == 1}', status: 200 }", "when+2"),
    ] {
        let respond = format!("[{entry}, {ANSWER}]");
        let (_, problems) = Environment::new().check(&workflow("", "", &respond));
        let expected = format!("w.respond[0].{at}: {message}");
        assert!(problems.contains(&expected), "{entry}: {problems:#?}");
    }
    assert_problems(
        &workflow("", "", "{ status: 200, body: '${steps.file.status}' }"),
        &["w.steps.file.stream: `file` streams its reply, and no entry of `respond` has it as its body \
           (write `body: ${steps.file.output}` there, or leave `stream` out)"],
    );
}

#[test]
fn a_call_of_the_same_service_that_may_begin_during_the_stream_is_warned_of() {
    let step = |service: &str, keys: &str| format!("  other: {{ call: 'GET ${{services.{service}}}/o'{keys} }}\n");
    let warning = "warning: w.steps.other: `other` may wait in vain for a call of `stock`: the stream of `file` holds one until it \
                   has ended (let `file` begin last (`needs: [other]`), or call another service)";
    assert_problems(&workflow("", &step("stock", ""), ANSWER), &[warning]);
    assert_problems(&workflow("", &step("stock", ", if: '${steps.file.status == 200}'"), ANSWER), &[warning]);
    for (keys, service) in [(", needs: [other]", "stock"), ("", "bank")] {
        assert_problems(&workflow(keys, &step(service, ""), ANSWER), &[]);
    }
}
