//! Up to a thousand changes of the files under load, most of them invalid: a refusal names the place of the error, and
//! changes nothing; an accepted change comes into force as a whole; no request fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::support::seed::{report_violations, seed, tries_everything};
use crate::support::test_system::TestSystem;

/// The number of reloads with `POINTSMAN_ALL=1`; without it, as many as [`TIME`] allows.
const RELOADS: usize = 1_000;
const RELOADS_MIN: usize = 100;
const TIME: Duration = Duration::from_secs(20);
/// After this many reloads it is checked that the refused ones have changed nothing.
const CHECKED_EVERY: usize = 25;

/// The pause between two rounds of requests.
const PAUSE: Duration = Duration::from_millis(25);

const FILES: [&str; 7] = [
    "pointsman.yaml",
    "routes/orders.yaml",
    "routes/campaigns.yaml",
    "workflows/create-order.yaml",
    "workflows/get-order.yaml",
    "workflows/cancel-order.yaml",
    "workflows/create-campaign.yaml",
];

/// The text up to the byte `at`, or up to the start of the character that contains it.
fn cut(text: &str, at: usize) -> &str {
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..at]
}

/// Another version of a file, as a person, an editor, a merge or a disk might leave it.
fn mutate(random: &mut fastrand::Rng, name: &str, good: &str) -> String {
    let lines: Vec<&str> = good.lines().collect();
    let at = random.usize(0..lines.len());
    let with = |new: &[&str]| {
        let mut all = lines.clone();
        all.splice(at..=at, new.iter().copied());
        all.join("\n") + "\n"
    };
    let line = lines[at];
    let indent: String = line.chars().take_while(|c| *c == ' ').collect();
    match random.u8(0..16) {
        // A file that an editor has written half, with the rest of it missing or something else behind it.
        0 => cut(good, random.usize(1..good.len())).to_owned() + "\n  - {",
        1 => cut(good, random.usize(1..good.len())).to_owned() + "\0\0\0\0",
        // Unknown keys.
        2 => with(&[line, &format!("{indent}nobody_reads_this: 1")]),
        3 if line.contains(':') => with(&[&line.replacen(':', "x:", 1)]),
        // Overlaps.
        4 => with(&[line, line]),
        5 => good.replacen("id: orders.get", "id: orders.create", 1).replacen("workflow: g", "workflow: c", 1),
        6 => good.replacen("path: \"/orders/{id}\"", "path: /orders", 1).replacen("method: GET", "method: POST", 1),
        // Links to nothing.
        7 => {
            good.replacen("legacy: shop", "legacy: shopp", 1).replacen("default_legacy: shopp", "default_legacy: x", 1)
        }
        8 => good.replacen("workflow: create-order", "workflow: create-ordr", 1).replacen("needs: [", "needs: [x, ", 1),
        9 => good.replacen("follows: orders.create", "follows: orders.crate", 1).replacen("${steps.", "${stops.", 1),
        // Values of another kind.
        10 => match line.split_once(':') {
            Some((key, _)) => with(&[&format!("{key}: [a, {{ b: 1 }}]")]),
            None => with(&["- ["]),
        },
        11 => good.replacen("state: off", "state: sideways", 1).replacen("effect: ", "effect: no-", 1),
        // What is no YAML.
        12 => with(&[&format!("\t{line}")]),
        13 => with(&[&format!("{indent}*nobody")]),
        14 => with(&[&format!("{line} <<<<<<< HEAD")]),
        // A conflict that somebody has merged by keeping both.
        _ if name.starts_with("routes/") => format!("{good}{}", good.replacen("routes:\n", "", 1)),
        _ => format!("{good}{good}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_files_are_refused_with_their_places_or_taken_as_a_whole() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let system = TestSystem::start().await;
    let good = FILES.map(|name| std::fs::read_to_string(system.flags.file(name)).expect("readable"));
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        while !is_over.load(Ordering::SeqCst) {
            system.create_read_cancel().await;
            answered.fetch_add(1, Ordering::SeqCst);
            // The pause leaves most of the processor time to the reloads.
            tokio::time::sleep(PAUSE).await;
        }
    };
    let reload = async || {
        let reply = system.pointsman.api(Method::POST, "/api/v2/reload", json!({})).await;
        (reply.status.as_u16(), reply.json())
    };
    let reloading = async {
        let (mut wrong, mut refused, mut accepted, mut since_check) = (Vec::new(), 0, 0, 0);
        let begun = Instant::now();
        let mut tried = 0;
        for number in 1..=RELOADS {
            if number > RELOADS_MIN && begun.elapsed() > TIME && !tries_everything() {
                break;
            }
            tried = number;
            let which = random.usize(0..FILES.len());
            let (name, text) = (FILES[which], &good[which]);
            let mut bad = mutate(&mut random, name, text);
            while bad == *text {
                bad = mutate(&mut random, name, text);
            }
            system.flags.write(name, &bad);
            let (status, answer) = reload().await;
            match status {
                200 => {
                    accepted += 1;
                    since_check += 1;
                }
                422 => {
                    refused += 1;
                    if !names_a_place(&answer) {
                        wrong.push(format!("{number}: {name}: no place in {answer}\n{bad}"));
                    }
                }
                other => wrong.push(format!("{number}: {name}: {other} {answer}")),
            }
            system.flags.write(name, text);
            if status == 200 || number % CHECKED_EVERY == 0 {
                let (status, answer) = reload().await;
                // The watcher may have read the files before the command did, with the same result.
                let is_unchanged = since_check > 0 || answer["changed"] == false;
                if status != 200 || !is_unchanged {
                    wrong.push(format!("{number}: the good files again: {status} {answer}"));
                }
                since_check = 0;
            }
        }
        is_over.store(true, Ordering::SeqCst);
        (wrong, tried, refused, accepted, begun.elapsed())
    };
    let ((), (wrong, tried, refused, accepted, took)) = tokio::join!(load, reloading);
    let rounds = answered.into_inner();
    assert!(refused > tried / 2 && rounds > 10, "{refused} refused, {rounds} rounds");
    let figures = format!(
        "{tried} reloads in {took:?}: {refused} refused, {accepted} accepted; {rounds} rounds of requests meanwhile"
    );
    let test = "changes_of_the_files_are_refused_with_their_places_or_taken_as_a_whole";
    report_violations(test, Some(seed), &figures, &wrong);
    system.finish().await;
}

/// Whether a refusal names files and lines, or says what harm the files would do.
fn names_a_place(answer: &Value) -> bool {
    let reasons = answer["reasons"].as_array().cloned().unwrap_or_default();
    let has_place = |reason: &Value| {
        let text = reason.as_str().unwrap_or_default();
        text.split(".yaml:").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_harm = answer["detail"].as_str().is_some_and(|detail| detail.contains("cannot be put in force now"));
    !reasons.is_empty() && (is_harm || reasons.iter().all(has_place))
}
