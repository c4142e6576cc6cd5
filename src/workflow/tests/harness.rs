//! Makes plans as the files' check does, and runs them with scripted results of calls.

use super::*;
use crate::limits::Limits;
use crate::workflow::{Choice, ControlCommand, DeclaredNames, StepPart};

/// Makes a plan as the files' check does. The service `stock` honours idempotency keys, `bank` does not.
pub(super) fn plan(yaml: &str) -> Plan {
    let source: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    let services = BTreeMap::from([(ServiceName::from("bank"), false), (ServiceName::from("stock"), true)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

impl<'a> Harness<'a> {
    /// A run that a route started.
    pub fn of_route(plan: &'a Plan) -> Self {
        Self::new(plan, Mode::Real, json!({"body": {"items": [1, 2, 3]}}))
    }
    /// A run that the API started.
    pub fn of_api(plan: &'a Plan) -> Self {
        Self::started_with(plan, |started| started.route = None)
    }
    pub fn started_with(plan: &'a Plan, change: impl FnOnce(&mut RunStarted)) -> Self {
        let mut first = started(plan, Mode::Real, json!({"body": {"items": [1, 2, 3]}}));
        change(&mut first);
        Self::of_first_event(plan, Event::RunStarted(Arc::new(first)))
    }
    /// Records the result of a call's attempt, and performs all actions that need no reply.
    pub fn record_result(&mut self, step: &str, item: Option<u32>, part: StepPart, result: AttemptResult) {
        let attempt = self.run.attempt(&step.into(), item, part);
        let attempt = attempt.unwrap_or_else(|| panic!("`{step}` is not under way: {:#?}", self.kinds())).attempt;
        let index = self.plan.step(&step.into()).unwrap().0;
        let command = Command::Record { step: index, item, part, attempt, result, may_be_repeat: false, jitter: 0.5 };
        self.command(command).unwrap();
        self.settle();
    }
    pub fn call(&mut self, step: &str, result: AttemptResult) {
        self.record_result(step, None, StepPart::Do, result);
    }
    pub fn item(&mut self, step: &str, item: u32, result: AttemptResult) {
        self.record_result(step, Some(item), StepPart::Do, result);
    }
    pub fn undo(&mut self, step: &str, result: AttemptResult) {
        self.record_result(step, None, StepPart::Undo, result);
    }
    pub fn give_command(&mut self, command: ControlCommand) -> Result<usize, CommandRefusal> {
        let done = self.command(Command::Control { command, by: "ann".into() });
        self.settle();
        done
    }
    pub fn choose(&mut self, step: &str, item: Option<u32>, choice: Choice) -> Result<usize, CommandRefusal> {
        self.give_command(ControlCommand::Resolve { step: step.into(), item, attempt: None, choice, reason: None })
    }
    pub fn cancel(&mut self, compensate: bool) -> Result<usize, CommandRefusal> {
        self.give_command(ControlCommand::Cancel { compensate, reason: Some("why not".into()), automatic: false })
    }
    /// The calls under way, written as `step`, `step[item]`, `undo step` or `probe step`.
    pub fn in_flight_names(&self) -> Vec<String> {
        let name = |call: &crate::workflow::InFlight| {
            let item = call.item.map_or(String::new(), |item| format!("[{item}]"));
            match call.part {
                StepPart::Do => format!("{}{item}", call.step),
                StepPart::Probe => format!("probe {}{item}", call.step),
                StepPart::Undo => format!("undo {}{item}", call.step),
            }
        };
        self.run.in_flight().iter().map(name).collect()
    }
    pub fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(Event::kind).collect()
    }
    pub fn output(&self, step: &str) -> Value {
        self.run.outputs.whole()[step].clone()
    }
}

pub(super) fn take_output(output: Value) -> Choice {
    Choice::Take { output: Arc::new(output) }
}

pub(super) fn breaker_open(ms: u64) -> AttemptResult {
    AttemptResult::BreakerOpen { service: "bank".into(), retry_after_ms: ms }
}

pub(super) fn timed_out() -> AttemptResult {
    AttemptResult::TimedOut("x".into())
}
