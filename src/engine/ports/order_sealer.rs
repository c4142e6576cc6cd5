//! Seals orders to a run with sensitive values while they are in the store, on their way to the process that executes
//! the run.
//!
//! Always true: values that people entered are sealed like the run's own values, and open only for this run. The sender
//! of the order, its kind and the step that it concerns stay readable.

use serde_json::Value;

use crate::engine::ports::seal::Sealer;
use crate::engine::ports::sealed_values::{open_value, seal_value};
use crate::names::RunId;
use crate::store::OrderRecord;

/// The members of an order that hold values which a person entered.
const ENTERED_MEMBERS: [&str; 6] = ["input", "output", "values", "payload", "note", "reason"];

/// Seals the entered values; `None` if that fails.
pub(in crate::engine) fn seal_order(sealer: &Sealer, run: RunId, order: &mut Value) -> Option<()> {
    match order {
        Value::Object(members) => {
            members.iter_mut().try_for_each(|(name, member)| match ENTERED_MEMBERS.contains(&name.as_str()) {
                true => seal_value(sealer, run, member),
                false => seal_order(sealer, run, member),
            })
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| seal_order(sealer, run, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(()),
    }
}

/// Opens the sealed parts of orders, as far as this process has the key.
pub(in crate::engine) fn open_orders(sealer: &Sealer, run: RunId, mut orders: Vec<OrderRecord>) -> Vec<OrderRecord> {
    for record in &mut orders {
        open_value(sealer, run, &mut record.order);
    }
    orders
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::secret::Secret;
    use crate::workflow::{CheckpointAnswer, Choice, Order};

    #[test]
    fn an_order_is_opened_as_it_was_given_and_shows_nothing_that_was_typed() {
        let (sealer, run) = (Sealer::new(Some(&Secret::new("k"))), RunId(uuid::Uuid::from_u128(1)));
        let typed = || Arc::new(json!({ "pin": "typed-1", "n": 1_234_567, "list": ["typed-2", null, true] }));
        let said =
            CheckpointAnswer { approve: true, values: Some(typed()), approved: vec![1], struck: vec![2], note: None };
        let reason = || Some("typed-3".to_owned());
        let orders = [
            Order::Adjust { step: "s".into(), item: Some(1), input: typed(), reason: reason() },
            Order::Resolve { step: "s".into(), item: None, choice: Choice::Take { output: typed() }, reason: reason() },
            Order::Answer { checkpoint: "chk_1".into(), said },
            Order::Signal { name: "go".to_owned(), payload: typed(), id: None },
        ];
        for order in orders {
            let mut sealed = serde_json::to_value(&order).unwrap();
            seal_order(&sealer, run, &mut sealed).unwrap();
            let text = sealed.to_string();
            assert!(!text.contains("typed") && !text.contains("1234567") && text.contains(order.name()), "{text}");
            let record = OrderRecord {
                id: uuid::Uuid::nil(),
                run,
                order: sealed,
                by: "ann".to_owned(),
                at: jiff::Timestamp::UNIX_EPOCH,
                answer: None,
            };
            let opened = open_orders(&sealer, run, vec![record]).remove(0).order;
            assert_eq!(serde_json::from_value::<Order>(opened).unwrap(), order);
        }
    }
}
