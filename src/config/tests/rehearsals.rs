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
