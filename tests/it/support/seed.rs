//! The random seed of a test, which can be set to repeat it.

/// The seed of this run: `POINTSMAN_SEED`, or a new one.
pub fn seed() -> u64 {
    std::env::var("POINTSMAN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Whether everything is tried that there is (`POINTSMAN_ALL=1`), and not only what a seed picks.
pub fn all() -> bool {
    std::env::var_os("POINTSMAN_ALL").is_some()
}

/// What a fault test says at its end: cases, faults, violations, and the command that repeats it.
pub fn said(test: &str, seed: u64, figures: &str, wrong: &[String]) {
    eprintln!("{test}: {figures}, {} violations", wrong.len());
    eprintln!("again: POINTSMAN_SEED={seed} cargo test --test it {test}");
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}
