//! Warnings about steps that a rehearsal cannot perform, in the workflow of a route and in those that it runs.

use super::set::Set;

const ORDER: &str = "\
workflow: create-order
steps:
  pay: { run: payment, undo: 'DELETE ${services.bank}/payments/1' }
  tell: { run: mails, rehearse: {} }
respond: { status: 201 }
";

const PAYMENT: &str = "\
workflow: payment
steps:
  charge: { call: 'POST ${services.bank}/charges' }
  ask: { checkpoint: { question: 'Is ${steps.charge.output.id} right?' } }
  paid: { wait: { signal: paid } }
respond: { status: 200 }
";

const MAILS: &str = "\
workflow: mails
steps: { mail: { call: 'POST ${services.shop}/mails' } }
respond: { status: 200 }
";

#[test]
fn steps_of_child_workflows_cause_the_same_warnings_as_the_routes_own_steps() {
    let set = Set::valid().put("workflows/payment.yaml", PAYMENT).put("workflows/mails.yaml", MAILS);
    let routes = |set: Set| {
        set.edit(
            "routes/orders.yaml",
            "'${intents.charge.body.amount == legacy.body.total}'",
            "'${legacy.status == 201}'",
        )
    };
    let shown = routes(set.put("workflows/create-order.yaml", ORDER)).shown();
    for warning in ["the shared step `charge` has no `rehearse:`", "`ask` asks a person", "`paid` waits for a signal"] {
        assert!(shown.contains(warning), "{warning}\n{shown}");
    }
    assert!(!shown.contains("the shared step `mail` has"), "no run of it is begun in a rehearsal\n{shown}");
}

/// With the egress listener, legacy's own reply is at hand.
#[test]
fn a_step_without_rehearse_is_told_how_to_take_legacys_reply() {
    let steps = "charge: { call: 'POST ${services.bank}/charges' }";
    let text = format!(
        "workflow: create-order\nsteps: {{ {steps} }}\n\
         respond: {{ status: 201, body: '${{steps.charge.output.id}}' }}\n"
    );
    let set = Set::valid().put("workflows/create-order.yaml", text);
    assert!(set.shown().contains("`rehearse: { id: \"${legacy.body.id}\" }`"), "{}", set.shown());
    let egress = "egress: { listen: 127.0.0.1:8090 }\nlisten: 127.0.0.1:8080";
    let shown = set.edit("pointsman.yaml", "listen: 127.0.0.1:8080", egress).shown();
    assert!(shown.contains("`rehearse: legacy` takes the reply") && !shown.contains("legacy.body.id"), "{shown}");
}

#[test]
fn an_error_in_the_yaml_of_one_file_does_not_hide_errors_in_the_others() {
    let set =
        Set::valid().edit("routes/orders.yaml", "${intents.charge.body.amount == ", "${intents.charge.body.amount = ");
    let alone = set.shown();
    let shown = set.edit("pointsman.yaml", "listen: 127.0.0.1:8080", "listen: [127.0.0.1:8080").shown();
    assert!(shown.contains("error: not YAML") && shown.contains("by `==`, not by `=`"), "{shown}");
    assert_eq!(shown.matches("error: ").count(), alone.matches("error: ").count() + 1, "{shown}");
}

#[test]
fn replayed_reads_of_a_route_that_reads_nothing_cause_a_warning() {
    let replaying = |set: Set| {
        let egress = "egress: { listen: 127.0.0.1:8090 }\nlisten: 127.0.0.1:8080";
        let set = set.edit("pointsman.yaml", "listen: 127.0.0.1:8080", egress);
        set.edit("routes/orders.yaml", "    paths: strict", "    paths: strict\n    replay_reads: true")
    };
    let of_create = |set: Set, steps: &str| {
        set.put("workflows/create-order.yaml", format!("workflow: create-order\nsteps:\n  {steps}\n{CHARGE}"))
    };
    let shown = replaying(Set::valid()).shown();
    assert!(shown.contains("neither `create-order` nor a workflow that it runs has a reading step"), "{shown}");
    assert!(shown.contains("flags/routes/orders.yaml:13:"), "{shown}");
    let look = "workflow: look\nsteps: { see: { call: 'GET ${services.bank}/a' } }\nrespond: { status: 200 }\n";
    let below = replaying(Set::valid().put("workflows/look.yaml", look));
    let shown = of_create(below, "look: { run: look }").shown();
    assert!(!shown.contains("replay_reads"), "a step of a child reads\n{shown}");
    for (steps, is_idle) in [
        ("look: { call: 'GET ${services.bank}/a' }", false),
        ("look: { call: 'POST ${services.bank}/search', effect: read }", false),
        ("look: { call: 'GET ${services.bank}/a', rehearse: { a: 1 } }", true),
    ] {
        let shown = of_create(replaying(Set::valid()), steps).shown();
        assert_eq!(shown.contains("nor a workflow that it runs has a reading step"), is_idle, "{steps}\n{shown}");
    }
    let plain = "routes:\n  - { id: plain, match: { method: GET, path: /p }, legacy: shop, replay_reads: true }\n";
    let shown = replaying(Set::valid()).put("routes/plain.yaml", plain).shown();
    assert!(shown.contains("the route has no workflow"), "{shown}");
}

const CHARGE: &str =
    "  charge: { call: 'POST ${services.bank}/charges', rehearse: { id: 1 } }\nrespond: { status: 201 }\n";

#[test]
fn a_read_with_a_call_that_another_step_makes_as_an_effect_causes_a_warning() {
    let look = |path: &str| {
        format!(
            "workflow: look\nsteps: {{ see: {{ call: 'POST ${{services.bank}}{path}', effect: read }} }}\n\
             respond: {{ status: 200 }}\n"
        )
    };
    let shown =
        |path: &str| Set::valid().put("workflows/payment.yaml", PAYMENT).put("workflows/look.yaml", look(path)).shown();
    let warned = shown("/charges");
    let message = "`see` makes the call `POST bank/charges` as `effect: read`, and the step `charge` of";
    assert!(warned.contains(message), "{warned}");
    assert!(warned.contains("flags/workflows/look.yaml:2:"), "{warned}");
    assert!(!shown("/quotes").contains("as `effect: read`, and"));
    let undone = PAYMENT.replace("/charges' }", "/charges', undo: 'POST ${services.bank}/refunds' }");
    assert_ne!(undone, PAYMENT, "the workflow has such a step");
    let refunds =
        Set::valid().put("workflows/payment.yaml", undone).put("workflows/look.yaml", look("/refunds")).shown();
    assert!(refunds.contains("`POST bank/refunds` as `effect: read`, and `charge.undo` of"), "{refunds}");
}
