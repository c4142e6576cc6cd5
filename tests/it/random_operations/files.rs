//! The flag files of a walk, and the edits of them.

use fastrand::Rng;

use crate::support::FlagsDir;

pub const ORDERS: &str = "routes/orders.yaml";
const SETTINGS: &str = "pointsman.yaml";
const CREATE: &str = "workflows/create-order.yaml";

/// The ids that the first family may have: creator, reader, canceller.
pub const NAMES: [[&str; 3]; 3] = [
    ["orders.create", "orders.get", "orders.cancel"],
    ["orders.make", "orders.read", "orders.undo"],
    ["sales.create", "sales.read", "sales.undo"],
];
/// The ids of the second family, which has its own host.
pub const SPECIAL: [&str; 3] = ["special.create", "special.get", "special.cancel"];
pub const SPECIAL_HOST: &str = "special.test";

/// The paths that the creator may match; orders are always sent to the first.
const PATHS: [&str; 3] = ["/orders", "\"/{kind}\"", "/purchases"];

/// What an edit changes. After some edits no route may go to `live` for a day, so each walk has only some of the kinds.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    Rename,
    RetryKey,
    Cohort,
    Share,
    Workflow,
    Rules,
    Path,
    SecondFamily,
    Keyed,
}

pub const EDITS: [Edit; 9] = [
    Edit::Rename,
    Edit::RetryKey,
    Edit::Cohort,
    Edit::Share,
    Edit::Workflow,
    Edit::Rules,
    Edit::Path,
    Edit::SecondFamily,
    Edit::Keyed,
];

/// The settings in the files that edits change.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// The current ids: an index of [`NAMES`].
    pub names: usize,
    /// The earlier ids, as indexes of [`NAMES`], the newest first.
    was: Vec<usize>,
    /// The header that the retry key is read from.
    retry_key: &'static str,
    /// The state of the cohort `staff`.
    cohort: &'static str,
    /// The share of `live`, in percent.
    live_share: u64,
    /// Whether the creator has its workflow.
    has_workflow: bool,
    /// A header that is compared; a change makes the evidence start anew.
    compared: &'static str,
    /// The path that the creator matches: an index of [`PATHS`].
    path: usize,
    /// Whether there is a second family, with a host of its own.
    pub has_second: bool,
    /// Whether the bank is declared to honour idempotency keys.
    is_bank_keyed: bool,
}

impl Files {
    /// The files at the start of a walk.
    pub fn first(has_second: bool) -> Self {
        Self {
            names: 0,
            was: Vec::new(),
            retry_key: "idempotency-key",
            cohort: "shadow",
            live_share: 100,
            has_workflow: true,
            compared: "location",
            path: 0,
            has_second,
            is_bank_keyed: true,
        }
    }

    /// The ids of a family: creator, reader, canceller.
    pub fn ids(&self, is_second: bool) -> [&'static str; 3] {
        if is_second && self.has_second { SPECIAL } else { NAMES[self.names] }
    }

    /// These files after an edit of this kind.
    pub fn changed(&self, kind: Edit, random: &mut Rng) -> Self {
        let mut files = self.clone();
        match kind {
            Edit::Rename => {
                let names = random.usize(..NAMES.len());
                if names != self.names {
                    files.was.insert(0, self.names);
                    files.was.retain(|earlier| *earlier != names);
                    files.names = names;
                }
            }
            Edit::RetryKey => {
                files.retry_key = if self.retry_key == "x-request-id" { "idempotency-key" } else { "x-request-id" }
            }
            Edit::Cohort => files.cohort = ["off", "shadow", "dark", "live"][random.usize(..4)],
            Edit::Share => files.live_share = [10, 50, 100][random.usize(..3)],
            Edit::Workflow => files.has_workflow = !self.has_workflow,
            Edit::Rules => files.compared = if self.compared == "location" { "cache-control" } else { "location" },
            Edit::Path => files.path = random.usize(..PATHS.len()),
            Edit::SecondFamily => files.has_second = !self.has_second,
            Edit::Keyed => files.is_bank_keyed = !self.is_bank_keyed,
        }
        files
    }
}

/// The example set, from which the files of a walk are made.
pub struct Example {
    routes: String,
    settings: String,
}

impl Example {
    /// Reads the example set in a directory, and changes its workflow so that people have something to decide: a
    /// refused charge pauses the run, and so does a confirmation that is not sent; a charge may be replaced by an
    /// invoice.
    pub fn prepare(flags: &FlagsDir) -> Self {
        let read = |name: &str| std::fs::read_to_string(flags.file(name)).expect("a readable file");
        let charge =
            "    body: { amount: \"${steps.total.output}\" }\n    rehearse: { id: \"${legacy.body.payment_id}\" }\n";
        let confirm = "total: \"${steps.total.output}\" }\n    rehearse: {}\n";
        flags.edit(CREATE, |text| {
            assert!(text.contains(charge) && text.contains(confirm), "{text}");
            let invoice = "  invoice:\n    fallback_only: true\n    call: POST ${services.bank}/charges\n    headers: { \
                           x-caused-by: \"engine:${run.id}\" }\n";
            text.replace(charge, &format!("{charge}    on_conflict: pause\n    fallback: invoice\n{invoice}{charge}"))
                .replace(confirm, &format!("{confirm}    on_failure: pause\n"))
        });
        Self { routes: read(ORDERS), settings: read(SETTINGS) }
    }

    /// Whether the texts of these files differ.
    pub fn differs(&self, one: &Files, other: &Files) -> bool {
        self.settings(one) != self.settings(other) || self.routes(one) != self.routes(other)
    }

    /// Writes the files that changed, each whole.
    pub fn write(&self, flags: &FlagsDir, files: &Files) {
        for (name, text) in [(SETTINGS, self.settings(files)), (ORDERS, self.routes(files))] {
            if std::fs::read_to_string(flags.file(name)).ok().as_ref() != Some(&text) {
                flags.write(name, &text);
            }
        }
    }

    fn settings(&self, files: &Files) -> String {
        let bank = "/bank\"], keyed: true }";
        assert!(self.settings.contains(bank), "{}", self.settings);
        self.settings.replace(bank, &format!("/bank\"], keyed: {} }}", files.is_bank_keyed))
    }

    fn routes(&self, files: &Files) -> String {
        let mut text = self.routes.replace("follows: orders.create", &format!("follows: {}", NAMES[files.names][0]));
        let cohort = format!(
            "    cohorts: [{{ name: staff, when: '${{request.headers[\"x-staff\"] == \"1\"}}', state: {}, force: {{ \
             reason: a pilot }} }}]\n    percent: {{ live: {} }}\n",
            files.cohort, files.live_share
        );
        for (n, name) in NAMES[files.names].iter().enumerate() {
            let was: Vec<&str> = files.was.iter().map(|names| NAMES[*names][n]).collect();
            let was = if was.is_empty() { String::new() } else { format!("    was: [{}]\n", was.join(", ")) };
            let more = if n == 0 && files.has_workflow { cohort.as_str() } else { "" };
            text = text.replace(&format!("- id: {}\n", NAMES[0][n]), &format!("- id: {name}\n{was}{more}"));
        }
        if !files.has_workflow {
            let (before, of_creator) = text.split_once("    workflow: create-order\n").expect("a workflow");
            let (rules, after) = of_creator.split_once("      assert:").expect("an assertion about its steps");
            let (_, after) = after.split_once('\n').expect("a line");
            text = format!("{before}{rules}{after}");
        }
        text = text
            .replacen("method: POST, path: /orders }", &format!("method: POST, path: {} }}", PATHS[files.path]), 1)
            .replace(r#"request.headers["idempotency-key"]"#, &format!(r#"request.headers["{}"]"#, files.retry_key))
            .replace("headers: [content-type, location]", &format!("headers: [content-type, {}]", files.compared));
        if files.has_second {
            text.push_str(&self.second_family());
        }
        text
    }

    /// The example's family once more, for requests to another host.
    fn second_family(&self) -> String {
        let (_, from_first) = self.routes.split_once("routes:\n").expect("routes");
        let (family, _) = from_first.split_once("  - id: orders.list").expect("a last route");
        family
            .replace("id: orders.", "id: special.")
            .replace("follows: orders.", "follows: special.")
            .replace("match: { ", &format!("match: {{ host: {SPECIAL_HOST}, "))
    }
}
