//! The random seed of a test; it can be set to repeat a run.

/// The seed of this run: `POINTSMAN_SEED`, or a new one.
pub fn seed() -> u64 {
    std::env::var("POINTSMAN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Whether every case is tried (`POINTSMAN_ALL=1`), and not only those that a seed picks.
pub fn tries_everything() -> bool {
    std::env::var_os("POINTSMAN_ALL").is_some()
}

/// Ends a fault test: prints cases, faults, violations and the command that repeats the test; fails on violations.
/// `seed` is the one that determined the test; `None` if none did.
pub fn report_violations(test: &str, seed: Option<u64>, figures: &str, wrong: &[String]) {
    let (variable, heading) = match seed {
        Some(seed) => (format!("POINTSMAN_SEED={seed} "), format!("seed {seed}:\n")),
        None => (String::new(), String::new()),
    };
    eprintln!("{test}: {figures}, {} violations", wrong.len());
    eprintln!("to repeat: {variable}cargo test --test it {test}");
    assert!(wrong.is_empty(), "{heading}{}", wrong.join("\n"));
}
