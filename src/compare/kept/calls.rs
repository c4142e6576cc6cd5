//! The calls of a pair, side by side: what each step of the engine would have sent, and legacy's call beside it.

use http::Method;

use super::record::{KeptCall, KeptPair};
use super::rejudge::ReadPair;
use crate::compare::bounds::CompareBounds;
use crate::compare::observation::Intent;
use crate::compare::rules::Rules;
use crate::names::StepId;

/// One call of a pair, of one side or of both.
#[derive(Clone, Debug, PartialEq)]
pub struct CallPair {
    /// The engine's step; `None` if only legacy made the call.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What the engine would have sent, or sent in `dark`.
    pub engine: Option<CallText>,
    /// What legacy sent.
    pub legacy: Option<CallText>,
    /// What the engine's call was compared to.
    pub compared_to: ComparedTo,
}

/// A call as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallText {
    /// Service, method and URL.
    pub request: String,
    /// The body.
    pub body: String,
}

/// What a call of the engine was compared to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedTo {
    /// A call by legacy; or this is a call that only legacy made.
    Legacy,
    /// Legacy's reply or the request, by an `assert:`.
    Assert,
    /// Nothing.
    Nothing,
    /// Nothing: only legacy made the call, and it only reads.
    Read,
    /// It is not known: the pair cannot be compared again.
    Unknown,
}

impl KeptPair {
    /// Whether either side has a call.
    pub fn has_calls(&self) -> bool {
        !self.intents.is_empty() || self.effects.as_ref().is_some_and(|calls| !calls.is_empty())
    }

    /// The calls of both sides: those of the engine in their order, then those that only legacy made.
    pub fn calls(&self, rules: &Rules, bounds: &CompareBounds, expired: &dyn Fn() -> bool) -> Vec<CallPair> {
        // Where only the digest of a reply's body is kept, the calls alone tell which of them correspond.
        let without_bodies =
            || Self { legacy: self.legacy.without_body(), engine: self.engine.without_body(), ..self.clone() };
        let read = ReadPair::of(self).or_else(|_| ReadPair::of(&without_bodies()));
        let comparison = read.and_then(|read| read.compared(rules, bounds, expired));
        let number_of = |n: usize| {
            let calls = &comparison.as_ref().ok()?.calls;
            calls.iter().find(|call| call.intent == n).and_then(|call| call.legacy)
        };
        let legacy = self.effects.as_deref().unwrap_or_default();
        let mut paired = Vec::new();
        let mut pairs: Vec<CallPair> = Vec::new();
        for (n, intent) in self.intents.iter().enumerate() {
            let call = number_of(n).and_then(|number| legacy.iter().find(|call| call.number == number));
            paired.extend(call.map(|call| call.number));
            let compared_to = match (&call, &comparison) {
                (Some(_), _) => ComparedTo::Legacy,
                (None, Err(_)) => ComparedTo::Unknown,
                (None, Ok(_)) if rules.asserts_read(&intent.step) => ComparedTo::Assert,
                (None, Ok(_)) => ComparedTo::Nothing,
            };
            let (step, item) = (Some(intent.step.clone()), intent.item);
            pairs.push(CallPair {
                step,
                item,
                engine: Some(of_intent(intent)),
                legacy: call.map(of_call),
                compared_to,
            });
        }
        let others = legacy.iter().filter(|call| !paired.contains(&call.number));
        let is_read = |call: &KeptCall| {
            let method = call.method.parse::<Method>();
            method.is_ok_and(|method| rules.is_read_without_comparison(call.service.as_ref(), &method, &call.url))
        };
        let only_legacy = |call: &KeptCall| CallPair {
            step: None,
            item: None,
            engine: None,
            legacy: Some(of_call(call)),
            compared_to: match &comparison {
                _ if is_read(call) => ComparedTo::Read,
                Ok(_) => ComparedTo::Legacy,
                Err(_) => ComparedTo::Unknown,
            },
        };
        pairs.extend(others.map(only_legacy));
        pairs
    }
}

fn of_intent(intent: &Intent) -> CallText {
    let service = intent.service.as_ref().map_or(String::new(), |service| format!("{service} "));
    let body = match &intent.body {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    CallText { request: format!("{service}{} {}", intent.method, intent.url), body }
}

fn of_call(call: &KeptCall) -> CallText {
    let service = call.service.as_ref().map_or(String::new(), |service| format!("{service} "));
    CallText { request: format!("{service}{} {}", call.method, call.url), body: call.body.shown().to_owned() }
}
