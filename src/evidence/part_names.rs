//! The names of the parts of a basis of evidence, each worded as the subject of a sentence, and which changes of parts
//! are more than a change of plans.

/// The rules.
pub const RULES: &str = "`compare:`";
/// Which requests the route matches.
pub const MATCH: &str = "`match:`";
/// The address of legacy.
pub const LEGACY_ADDRESS: &str = "the address of its legacy service";
/// The matches of more specific routes.
pub const OTHER_ROUTES: &str = "which of its requests other routes take";
/// The names of the path parameters that something reads.
pub const READ_PARAMETERS: &str = "the names of the path parameters that are read";
/// The version of the expression language.
pub const LANGUAGE_VERSION: &str = "the version of the expression language";
/// The versions of workflows in force that the files do not have.
pub const OTHER_VERSIONS: &str = "the versions of workflows in force";
/// What a candidate is compared with.
pub const PLAN_IN_FORCE: &str = "the plan in force";
/// How calls by legacy are attributed to requests.
pub const ATTRIBUTION: &str = "`egress.window` or `egress.correlate`";
/// Up to which size bodies are compared.
pub const COMPARED_SIZES: &str = "`body_capture_bytes_max` or `compare_bytes_max`";
/// Whether the engine's reads are answered with legacy's.
pub const REPLAY_READS: &str = "`replay_reads:`";
/// The parts that decide only how replies are compared, and not what the plan in force answers.
pub(super) const COMPARISON_PARTS: [&str; 5] = [RULES, READ_PARAMETERS, ATTRIBUTION, COMPARED_SIZES, REPLAY_READS];
/// The parts that decide which requests legacy gets, and at which address.
pub(super) const LEGACY_PARTS: [&str; 3] = [LEGACY_ADDRESS, MATCH, OTHER_ROUTES];
/// How the name of a part that is a workflow begins.
const WORKFLOW: &str = "the workflow `";
/// How the name of a part that is the address of a service begins.
const SERVICE: &str = "the address of the service `";
/// Follows the name of a part in a list of changes if the part was not there before.
pub(super) const ADDED: &str = " (not used before)";
/// Follows the name of a part in a list of changes if the part is not there any more.
pub(super) const REMOVED: &str = " (not used any more)";

/// The name of a workflow as a part.
pub fn workflow_part(name: &str) -> String {
    format!("{WORKFLOW}{name}`")
}

/// The name of the address of a service as a part.
pub fn service_part(name: &str) -> String {
    format!("{SERVICE}{name}`")
}

/// Whether a list of changed parts shows more than a change of plans or a new version of Pointsman: another thing that
/// is compared, or other rules.
pub(super) fn change_more_than_plans(changed: &[String]) -> bool {
    let of_plans =
        |part: &str| part.starts_with(WORKFLOW) || part.starts_with(OTHER_VERSIONS) || part.starts_with(PLAN_IN_FORCE);
    let is_any_of_plans = changed.iter().any(|part| of_plans(part));
    // These parts may change because a plan did: it may call other services, and read other parameters.
    let may_follow = |part: &str| {
        let comes_or_goes = part.ends_with(ADDED) || part.ends_with(REMOVED);
        part.starts_with(READ_PARAMETERS) || part.starts_with(SERVICE) && comes_or_goes
    };
    let is_of_plans =
        |part: &str| of_plans(part) || part.starts_with(LANGUAGE_VERSION) || is_any_of_plans && may_follow(part);
    changed.iter().any(|part| !is_of_plans(part))
}
