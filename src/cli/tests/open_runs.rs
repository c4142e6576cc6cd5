//! `check --against-open-runs` with runs that cannot be read, and with more runs than its bounds allow.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::types::EventRow;
use crate::app::{OpenRun, OpenRunPage, ReplayFiles};
use crate::cli::client::CallError;
use crate::cli::format::Formatter;
use crate::cli::open_runs::{CheckBounds, check_runs};
use crate::cli::run_source::{OpenRuns, ReadError};

/// A fake source of runs, in pages of two. Each entry is the workflow of a run. The events of `damaged` cannot be read,
/// the source does not answer for `gone`, and the plan of `later` is one that this version cannot read. Every other
/// workflow calls the service `bank`, which the files do not have.
struct Runs(Vec<&'static str>);

fn run_id(place: usize) -> String {
    format!("run_{place:032x}")
}

impl OpenRuns for Runs {
    fn page(&self, before: Option<&str>) -> Result<OpenRunPage, CallError> {
        let from = before.map_or(0, |last| (0..).position(|place| run_id(place) == last).expect("a run") + 1);
        let run = |place: usize| OpenRun {
            run_id: run_id(place),
            workflow: self.0[place].into(),
            plan: format!("plan_{}", self.0[place]).as_str().into(),
        };
        let to = (from + 2).min(self.0.len());
        Ok(((from..to).map(run).collect(), (to < self.0.len()).then(|| run_id(to - 1))))
    }
    fn events(&self, run: &OpenRun, most: u64) -> Result<Vec<EventRow>, ReadError> {
        assert_eq!(most, CheckBounds::default().events);
        match run.workflow.as_str() {
            "damaged" => return Err(ReadError::Run("its events are damaged".to_owned())),
            "gone" => return Err(ReadError::Source(CallError::Failed("nobody is there".into(), String::new()))),
            _ => {}
        }
        let started = json!({ "run_started": {
            "run": run.run_id.trim_start_matches("run_"), "workflow": run.workflow, "plan": run.plan, "mode": "real",
            "route": null, "started": "2027-01-15T08:00:00Z", "request": {}, "credentials": [], "sealed": null,
            "legacy": null, "instance": null, "creates": null, "traceparent": null,
        }});
        let at = "2027-01-15T08:00:00Z".parse().expect("a time");
        Ok(vec![EventRow { seq: 1, at, kind: "run_started".to_owned(), event: started }])
    }
    fn plan(&self, run: &OpenRun) -> Result<Value, ReadError> {
        Ok(match run.workflow.as_str() {
            "later" => json!({ "workflow": 7 }),
            name => json!({
                "workflow": name,
                "steps": { "pay": { "call": "POST ${services.bank}/payments" } },
                "respond": { "status": 200 },
            }),
        })
    }
}

fn files() -> ReplayFiles {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("routes")).expect("a directory");
    let files = "services: { shop: 'http://127.0.0.1:9' }\ndefault_legacy: shop\nlimits: { items_max: 7 }\n";
    std::fs::write(dir.path().join("pointsman.yaml"), files).expect("written");
    let files = ReplayFiles::read(dir.path(), None, None).unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    assert_eq!(files.limits().items_max, 7, "those of the files");
    files
}

#[test]
fn a_run_that_cannot_be_read_is_named_and_the_others_are_looked_at() {
    let runs = Runs(vec!["damaged", "later", "old", "later", "old"]);
    let found = check_runs(&runs, &files(), &CheckBounds::default()).expect("the source answers");
    let json = found.json();
    assert_eq!((&json["looked_at"], &json["left_out"]), (&json!(5), &Value::Null), "{json}");
    let why = |place: usize| json["reported"][place]["why"].as_str().unwrap_or_default().to_owned();
    assert!(why(0).contains("its events are damaged"), "{json}");
    assert!(why(1).contains("its plan cannot be read by this version") && why(1) == why(3), "{json}");
    assert_eq!(json["reported"][2]["misses"], json!(["`pay` needs the service `bank`"]), "{json}");
    let text = found.text(Formatter(false));
    for named in [
        run_id(0),
        run_id(4),
        "`pay` needs the service `bank`: with these files in force the run will pause at this step".to_owned(),
    ] {
        assert!(text.contains(&named), "{named}: {text}");
    }
    assert!(text.contains("5 open runs looked at: 5 of them do not fit the files"), "{text}");
    assert!(
        check_runs(&Runs(vec!["old", "gone"]), &files(), &CheckBounds::default()).is_err(),
        "nobody answers any more"
    );
}

#[test]
fn runs_beyond_the_bounds_are_left_out_and_the_report_says_so() {
    let (runs, files) = (Runs(vec!["old"; 5]), files());
    let bounded = |bounds: CheckBounds| {
        let found = check_runs(&runs, &files, &bounds).expect("the source answers");
        (found.json(), found.text(Formatter(false)))
    };
    let (json, text) = bounded(CheckBounds { runs: 3, shown: 2, ..CheckBounds::default() });
    assert_eq!((&json["looked_at"], &json["reported_unlisted"]), (&json!(3), &json!(1)), "{json}");
    assert!(text.contains("older open runs were not looked at: the check looks at no more than 3 runs"), "{text}");
    assert!(text.contains("and 1 more, which are not listed"), "{text}");
    let (json, text) = bounded(CheckBounds { time: Duration::ZERO, ..CheckBounds::default() });
    assert_eq!(json["looked_at"], json!(0), "{json}");
    assert!(text.contains("took longer"), "{text}");
    let (json, _) = bounded(CheckBounds { runs: 5, ..CheckBounds::default() });
    assert_eq!(
        (&json["looked_at"], &json["left_out"]),
        (&json!(5), &Value::Null),
        "as many runs as the bound: none is left out"
    );
}
