//! Seeded, time-boxed mutation of a corpus. Also compiled into the tests of the library.
//!
//! `POINTSMAN_SEED` repeats a run; `POINTSMAN_FUZZ_SECONDS` makes it longer.

use std::time::{Duration, Instant};

/// The seconds that one test takes.
const SECONDS: u64 = 2;
/// The longest time that a case may take, on a busy machine too.
const CASE_TIME_MAX: Duration = Duration::from_secs(30);
/// The most bytes of one case.
const CASE_BYTES_MAX: usize = 64 << 10;

/// The cases of one test.
pub struct Mutator {
    pub random: fastrand::Rng,
    seed: u64,
    corpus: Vec<Vec<u8>>,
    /// Pieces with a meaning in the tested syntax.
    words: Vec<Vec<u8>>,
    until: Instant,
    /// When the case before began.
    began: Instant,
    tried: u64,
}

impl Mutator {
    pub fn new<C: AsRef<[u8]>, W: AsRef<[u8]>>(corpus: &[C], words: &[W]) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let seed = number("POINTSMAN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
        let seconds = number("POINTSMAN_FUZZ_SECONDS").unwrap_or(SECONDS);
        Self {
            random: fastrand::Rng::with_seed(seed),
            seed,
            corpus: corpus.iter().map(|one| one.as_ref().to_vec()).collect(),
            words: words.iter().map(|one| one.as_ref().to_vec()).collect(),
            until: Instant::now() + Duration::from_secs(seconds),
            began: Instant::now(),
            tried: 0,
        }
    }

    /// The next case, with its number; `None` when the time is over. The first cases are the unchanged corpus. Fails if
    /// the case before took too long.
    pub fn next(&mut self) -> Option<(u64, Vec<u8>)> {
        let (number, now) = (self.tried, Instant::now());
        let took = now.duration_since(self.began);
        assert!(took < CASE_TIME_MAX, "the case before number {number} of seed {} took {took:?}", self.seed);
        self.began = now;
        // The corpus is tried whole, however slow the machine is.
        let unchanged = usize::try_from(number).ok().and_then(|number| self.corpus.get(number).cloned());
        if unchanged.is_none() && now >= self.until {
            return None;
        }
        self.tried += 1;
        Some((number, unchanged.unwrap_or_else(|| self.mutated())))
    }

    /// Prints what was tried, and how to repeat it.
    pub fn report(&self, test: &str) {
        let Self { tried, seed, .. } = self;
        println!("{test}: {tried} cases, 0 violations; to repeat: POINTSMAN_SEED={seed} cargo test {test}");
    }

    /// What identifies a case in a message.
    pub fn case(&self, number: u64, bytes: &[u8]) -> String {
        let shown = bytes.escape_ascii().to_string();
        format!("case {number} of seed {}: {}", self.seed, &shown[..shown.len().min(4_000)])
    }

    fn mutated(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut case = random.choice(&self.corpus).cloned().unwrap_or_default();
        for _ in 0..=random.u8(0..4) {
            let at = random.usize(0..=case.len());
            let end = (at + random.usize(0..=16)).min(case.len());
            match random.u8(0..9) {
                0 => drop(case.drain(at..end)),
                1 if at < case.len() => case[at] ^= 1 << random.u8(0..8),
                2 if at < case.len() => case[at] = random.u8(..),
                3 => {
                    let piece = case[at..end].to_vec();
                    case.splice(at..at, piece.repeat(random.usize(1..4)));
                }
                4 => case.truncate(at),
                5 => {
                    let other = random.choice(&self.corpus).cloned().unwrap_or_default();
                    let from = random.usize(0..=other.len());
                    case.truncate(at);
                    case.extend_from_slice(&other[from..]);
                }
                6 => {
                    let other = random.choice(&self.corpus).cloned().unwrap_or_default();
                    case.extend(other);
                }
                _ => {
                    let word = random.choice(&self.words).cloned().unwrap_or_default();
                    case.splice(at..at, word);
                }
            }
        }
        case.truncate(CASE_BYTES_MAX);
        case
    }
}
