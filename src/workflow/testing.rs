//! Builds plans in code, for tests of the core and of the engine.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    Call, CallBody, EffectClass, FailureHandling, ForEach, Plan, Rehearsal, Respond, ResponseTemplate, Retry,
    Safeguards, Statuses, Step, StepIndex, StepKind,
};
use crate::expression::{Expression, ReadPath, Template, UrlTemplate};
use crate::names::{PlanId, ServiceName, WorkflowName};

/// Builds a plan step by step.
pub(crate) struct PlanBuilder {
    steps: Vec<Step>,
    respond: Vec<Respond>,
    reads: Vec<ReadPath>,
    pending: Option<ResponseTemplate>,
    schema: Option<Value>,
}

pub(crate) fn template(value: Value) -> Template {
    Template::parse(&value).unwrap_or_else(|errors| panic!("{value}: {errors:?}"))
}

pub(crate) fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn answer(status: Value, body: Value) -> ResponseTemplate {
    ResponseTemplate { status: template(status), headers: Vec::new(), body: Some(template(body)) }
}

impl PlanBuilder {
    pub fn new() -> Self {
        Self { steps: Vec::new(), respond: Vec::new(), reads: Vec::new(), pending: None, schema: None }
    }
    fn indexes(&self, needs: &[&str]) -> Vec<StepIndex> {
        let index = |need: &&str| {
            StepIndex(self.steps.iter().position(|step| step.id.as_str() == *need).unwrap_or_else(|| panic!("{need}")))
        };
        needs.iter().map(index).collect()
    }
    fn step(mut self, id: &str, needs: &[&str], kind: StepKind) -> Self {
        let needs = self.indexes(needs);
        self.steps.push(Step {
            id: id.into(),
            needs,
            needs_any: false,
            condition: None,
            for_each: None,
            kind,
            safeguards: Safeguards::default(),
            replaces: None,
            failure_handling: FailureHandling::default(),
            output: None,
            undo: None,
            probe: None,
        });
        self
    }
    /// A call: `POST /path` of service `world`.
    pub fn call(self, id: &str, needs: &[&str], line: &str, body: Value) -> Self {
        let (method, path) = line.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let url = UrlTemplate::parse(&format!("${{services.world}}{path}")).unwrap();
        let mut reads = url.reads().to_vec();
        let body = match body {
            Value::Null => CallBody::Empty,
            body => {
                let body = template(body);
                reads.extend_from_slice(body.reads());
                CallBody::Json(body)
            }
        };
        let call = Call {
            effect: EffectClass::of_method(&method),
            method,
            url,
            service: ServiceName::from("world"),
            keyed: false,
            headers: Vec::new(),
            body,
            retry: Retry { attempts: 1, base: Duration::from_millis(2), max: Duration::from_millis(20) },
            timeout: None,
            accept: Statuses(vec![(200, 299)]),
            not_done: Statuses::default(),
            rehearse: None,
            stream: false,
            volatile: false,
        };
        let mut this = self.step(id, needs, StepKind::Call(Box::new(call)));
        this.reads.extend(reads);
        this
    }
    pub fn set(self, id: &str, needs: &[&str], value: Value) -> Self {
        let value = template(value);
        let reads = value.reads().to_vec();
        let mut this = self.step(id, needs, StepKind::Set(value));
        this.reads.extend(reads);
        this
    }
    pub fn fail(self, id: &str, needs: &[&str], status: u16, body: Value) -> Self {
        self.step(id, needs, StepKind::Fail(answer(json!(status), body)))
    }
    fn last(&mut self) -> &mut Step {
        self.steps.last_mut().unwrap()
    }
    fn last_call(&mut self) -> &mut Call {
        match &mut self.last().kind {
            StepKind::Call(call) => call,
            _ => panic!("the last step makes no call"),
        }
    }
    pub fn effect(mut self, effect: EffectClass) -> Self {
        self.last_call().effect = effect;
        self
    }
    pub fn keyed(mut self) -> Self {
        self.last_call().keyed = true;
        self
    }
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.last_call().retry.attempts = attempts;
        self
    }
    /// The longest pause between attempts.
    pub fn retry_pause(mut self, pause: Duration) -> Self {
        let retry = &mut self.last_call().retry;
        (retry.base, retry.max) = (pause, pause);
        self
    }
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        self.last_call().timeout = Some(Duration::from_millis(ms));
        self
    }
    pub fn accept(mut self, low: u16, high: u16) -> Self {
        self.last_call().accept.0.push((low, high));
        self
    }
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = Template::parse_str(value).unwrap();
        self.reads.extend_from_slice(value.reads());
        self.last_call().headers.push((http::HeaderName::from_static(name), value));
        self
    }
    pub fn rehearse(mut self, output: Value) -> Self {
        let output = template(output);
        self.reads.extend_from_slice(output.reads());
        self.last_call().rehearse = Some(Rehearsal::Declared(output));
        self
    }
    pub fn when(mut self, condition: &str) -> Self {
        let condition = expression(condition);
        self.reads.extend_from_slice(condition.reads());
        self.last().condition = Some(condition);
        self
    }
    pub fn needs_any(mut self) -> Self {
        self.last().needs_any = true;
        self
    }
    pub fn for_each(mut self, items: &str, concurrency: usize) -> Self {
        let items = template(json!(items));
        self.reads.extend_from_slice(items.reads());
        self.last().for_each = Some(ForEach { items, concurrency, collect: false });
        self
    }
    pub fn respond(mut self, status: u16, body: Value) -> Self {
        let answer = answer(json!(status), body);
        self.reads.extend_from_slice(answer.body.as_ref().unwrap().reads());
        self.respond.push(Respond { when: None, after: None, answer });
        self
    }
    pub fn respond_header(mut self, name: &'static str, value: &str) -> Self {
        let value = Template::parse_str(value).unwrap();
        self.reads.extend_from_slice(value.reads());
        let answer = &mut self.respond.last_mut().unwrap().answer;
        answer.headers.push((http::HeaderName::from_static(name), value));
        self
    }
    pub fn respond_when(mut self, when: &str) -> Self {
        self.respond.last_mut().unwrap().when = Some(expression(when));
        self
    }
    pub fn respond_after(mut self, steps: &[&str]) -> Self {
        let indexes = self.indexes(steps);
        self.respond.last_mut().unwrap().after = Some(indexes);
        self
    }
    pub fn pending(mut self, status: u16, body: Value) -> Self {
        self.pending = Some(answer(json!(status), body));
        self
    }
    pub fn schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }
    pub fn build(self, name: &str) -> Arc<Plan> {
        let input = self.schema.as_ref().map(|schema| super::schema::Schema::compile(schema).unwrap());
        Arc::new(Plan {
            id: PlanId::from(format!("plan_{name}").as_str()),
            workflow: WorkflowName::from(name),
            source: Arc::new(json!({ "workflow": name })),
            input_schema: self.schema.map(Arc::new),
            steps: self.steps,
            respond: self.respond,
            risks: Vec::new(),
            pending: self.pending,
            reads: self.reads,
            dependents: Vec::new(),
            notify: None,
            deadline: None,
            inject: None,
            adoption: None,
            sensitive: Default::default(),
            reply_headers: Vec::new(),
            input,
        })
    }
}
