//! Rules whose calls are all `unseen`.

use serde_json::{Map, json};

use super::CallRole;
use super::tests::{rules, templates};

#[test]
fn calls_that_are_all_unseen_are_not_compared() {
    let effects = templates().into_iter().filter(|call| matches!(call.role, CallRole::Shared | CallRole::Private));
    let mut steps: Vec<String> = effects.filter_map(|call| Some(call.step?.to_string())).collect();
    steps.retain(|step| !step.ends_with(".undo"));
    let unseen = |steps: &[String]| {
        let of = |step: &String| (step.clone(), json!({"unseen": "seen elsewhere"}));
        rules(json!({"effects": steps.iter().map(of).collect::<Map<_, _>>()})).compare_calls()
    };
    assert!(steps.len() > 1 && !unseen(&steps));
    assert!(unseen(&steps[1..]), "one is left");
}
