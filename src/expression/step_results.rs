//! What expressions see under `steps`: the fields of each step that has ended.
//!
//! Always true: an expression gets what it would get from one JSON object with a member for each step, in the order in
//! which they ended. A step's output is parsed when an expression reads that step's output; the whole object, or all
//! fields of a step, are made only for an expression that reads them as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::shared_json::SharedJson;

/// The name of the field that is kept apart from the others.
pub(super) const OUTPUT: &str = "output";

/// The results of the steps that have ended.
#[derive(Debug, Default)]
pub struct StepResults {
    /// By step: its position in the order of their ends, and its fields.
    by_step: BTreeMap<Arc<str>, (usize, Arc<StepFields>)>,
    whole: OnceLock<Value>,
}

/// The fields of a step.
#[derive(Debug)]
pub struct StepFields {
    /// The field `output`, where it is kept apart from the others; it is then the first field.
    output: Option<SharedJson>,
    /// An object with the other fields.
    others: SharedJson,
    whole: OnceLock<Value>,
}

impl StepFields {
    /// The fields of a step, the output first.
    pub fn new(output: Option<SharedJson>, others: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let others: Map<_, _> = others.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { output, others: Value::Object(others).into(), whole: OnceLock::new() }
    }
    /// Fields that were recorded as one value, of any kind.
    pub fn recorded(fields: Arc<Value>) -> Self {
        Self { output: None, others: fields.into(), whole: OnceLock::new() }
    }
    /// All fields.
    pub fn whole(&self) -> &Value {
        let Some(output) = &self.output else { return &self.others };
        self.whole.get_or_init(|| {
            let others = self.others.as_object().into_iter().flatten();
            let others = others.map(|(name, value)| (name.clone(), value.clone()));
            Value::Object([(OUTPUT.to_owned(), (**output).clone())].into_iter().chain(others).collect())
        })
    }
    /// The output.
    pub fn output(&self) -> Option<&Value> {
        self.output.as_deref().or_else(|| self.others.get(OUTPUT))
    }
    /// The output where it is kept apart, unread.
    pub(super) fn separate_output(&self) -> Option<&SharedJson> {
        self.output.as_ref()
    }
    /// The fields that are not kept apart.
    pub(super) fn others(&self) -> &Value {
        &self.others
    }
    /// Whether nothing has parsed the output.
    #[cfg(test)]
    pub fn is_output_unread(&self) -> bool {
        self.output.as_ref().is_some_and(SharedJson::is_unread)
    }
    /// Whether the output is a list without items. Does not parse it.
    pub fn has_empty_list(&self) -> bool {
        match &self.output {
            Some(output) => output.is_empty_list(),
            None => self.others.get(OUTPUT).and_then(Value::as_array).is_some_and(Vec::is_empty),
        }
    }
}

impl StepResults {
    /// The fields of a step.
    pub fn get(&self, step: &str) -> Option<&StepFields> {
        self.by_step.get(step).map(|(_, fields)| &**fields)
    }
    /// Adds a step, or replaces its fields.
    pub fn insert(&mut self, step: &str, fields: StepFields) {
        let position = self.by_step.get(step).map_or(self.by_step.len(), |(position, _)| *position);
        self.by_step.insert(step.into(), (position, Arc::new(fields)));
        self.whole = OnceLock::new();
    }
    /// All steps as one object.
    pub fn whole(&self) -> &Value {
        let member = |(step, fields): (&Arc<str>, &Arc<StepFields>)| (step.to_string(), fields.whole().clone());
        self.whole.get_or_init(|| Value::Object(self.ordered().map(member).collect()))
    }
    fn ordered(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<StepFields>)> {
        let mut all: Vec<_> =
            self.by_step.iter().map(|(step, (position, fields))| (*position, (step, fields))).collect();
        all.sort_unstable_by_key(|(position, _)| *position);
        all.into_iter().map(|(_, step)| step)
    }
}

impl Clone for StepResults {
    fn clone(&self) -> Self {
        Self { by_step: self.by_step.clone(), whole: OnceLock::new() }
    }
}

impl PartialEq for StepFields {
    fn eq(&self, other: &Self) -> bool {
        match (&self.output, &other.output) {
            (Some(output), Some(other_output)) => output == other_output && self.others == other.others,
            (None, None) => self.others == other.others,
            (Some(_), None) | (None, Some(_)) => self.whole() == other.whole(),
        }
    }
}

impl PartialEq for StepResults {
    fn eq(&self, other: &Self) -> bool {
        let fields = |(step, (_, fields)): (&Arc<str>, &(usize, Arc<StepFields>))| other.get(step) == Some(&**fields);
        self.by_step.len() == other.by_step.len() && self.by_step.iter().all(fields)
    }
}

/// The stored form of a step: its name, a list with its output where that is kept apart, its other fields.
#[derive(Serialize, Deserialize)]
struct Row(Arc<str>, Option<(SharedJson,)>, SharedJson);

impl Serialize for StepResults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = |(step, fields): (&Arc<str>, &Arc<StepFields>)| {
            Row(step.clone(), fields.output.clone().map(|output| (output,)), fields.others.clone())
        };
        serializer.collect_seq(self.ordered().map(row))
    }
}

impl<'de> Deserialize<'de> for StepResults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut results = Self::default();
        for Row(step, output, others) in Vec::<Row>::deserialize(deserializer)? {
            let output = output.map(|(output,)| output);
            results.insert(&step, StepFields { output, others, whole: OnceLock::new() });
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expression::{Expression, Scope, ScopeValue};

    fn results() -> StepResults {
        let mut results = StepResults::default();
        let output: SharedJson = serde_json::from_str(r#"{"id":"a-1","items":[{"n":1},{"n":2}],"none":null}"#).unwrap();
        results.insert("pay", StepFields::new(Some(output), [("status", json!(200)), ("skipped", json!(false))]));
        results.insert("book", StepFields::new(None, [("skipped", json!(true)), ("approved", json!(false))]));
        results.insert("alone", StepFields::new(Some(json!("text").into()), []));
        results.insert("taken", StepFields::recorded(Arc::new(json!({ "status": 201, "output": [1] }))));
        results.insert("nothing", StepFields::recorded(Arc::new(Value::Null)));
        results
    }

    fn evaluate(text: &str, steps: impl Into<ScopeValue>) -> Result<Value, String> {
        let mut scope = Scope::new();
        scope.set("steps", steps);
        Expression::parse(text).unwrap().evaluate(&scope).map_err(|error| error.to_string())
    }

    /// Each expression gives the same value or error as with one JSON object that holds all results.
    #[test]
    fn expressions_see_one_object() {
        for text in [
            "steps",
            "steps.pay",
            "steps.pay.output",
            "steps.pay.output.id",
            "steps.pay.output.items[1].n",
            "steps.pay.output.items[2].n",
            "steps.pay.output.id.more",
            "steps.pay.output.none.more",
            "steps.pay.output[0]",
            "steps.pay.output.items.n",
            "steps.pay.status",
            "steps.pay.status.more",
            "steps.pay.headers",
            "steps.pay[0]",
            "steps[0]",
            "steps['pay']['output']['id']",
            "steps['p' + 'ay'].output.id",
            "steps['p' + 'ay']['out' + 'put'].id",
            "steps.none",
            "steps.none.output.id",
            "has(steps.none)",
            "has(steps.pay.output)",
            "has(steps.pay.output.other)",
            "has(steps.book.output)",
            "steps.book.output",
            "steps.book",
            "steps.alone.output.more",
            "steps.taken.output[0]",
            "steps.taken",
            "steps.nothing",
            "steps.nothing.output",
            "size(steps)",
            "'pay' in steps",
            "steps.map(step, step)",
            "[1, 2].map(n, steps.pay.output.items[0].n + n)",
            "steps == steps && steps.pay != steps.book",
        ] {
            assert_eq!(evaluate(text, Arc::new(results())), evaluate(text, results().whole().clone()), "{text}");
        }
    }

    #[test]
    fn only_the_output_that_is_read_is_parsed() {
        let mut results = results();
        results.insert("other", StepFields::new(Some(serde_json::from_str("{\"big\":1}").unwrap()), []));
        let results = Arc::new(results);
        let is_unread = |step: &str| results.get(step).unwrap().is_output_unread();
        evaluate("steps.pay.status + 1", results.clone()).unwrap();
        assert!(evaluate("steps.none.output", results.clone()).is_err());
        assert!(is_unread("pay") && is_unread("other"));
        evaluate("steps.pay.output.id", results.clone()).unwrap();
        assert!(!is_unread("pay") && is_unread("other"));
    }

    #[test]
    fn the_stored_form_is_read_back_with_the_order_of_the_steps() {
        let mut results = results();
        results.insert("pay", StepFields::new(Some(Value::Null.into()), []));
        let text = serde_json::to_string(&results).unwrap();
        let back: StepResults = serde_json::from_str(&text).unwrap();
        assert_eq!(back, results);
        assert_eq!(back.whole().to_string(), results.whole().to_string());
        let steps = back.whole().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(steps, ["pay", "book", "alone", "taken", "nothing"]);
        assert_eq!((back.get("pay").unwrap().output(), back.get("book").unwrap().output()), (Some(&Value::Null), None));
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }
}
