//! What the engine answered callers, by the hour, so that a rate over the last hours can be judged.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::{AddChange, add_change};
use crate::exchange::Served;

/// The hours that are kept: a week, and the hour that is under way.
const HOURS_MAX: usize = 7 * 24 + 1;
const HOUR_S: i64 = 3_600;

/// The engine's answers to callers of the last week, by the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AnswersByHour(Vec<HourOfAnswers>);

impl AddChange for AnswersByHour {
    fn add_change(&mut self, before: &Self, after: &Self) {
        let by_hour = |hours: &Self| -> BTreeMap<i64, HourOfAnswers> {
            hours.0.iter().map(|of_hour| (of_hour.hour, *of_hour)).collect()
        };
        let mut hours = by_hour(self);
        hours.add_change(&by_hour(before), &by_hour(after));
        self.0 = hours.into_iter().map(|(hour, of_hour)| HourOfAnswers { hour, ..of_hour }).collect();
        let too_many = self.0.len().saturating_sub(HOURS_MAX);
        self.0.drain(..too_many);
    }
}

/// The answers of one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HourOfAnswers {
    /// The hour, counted from 1970.
    pub hour: i64,
    /// Answers without an error, those with 4xx included.
    pub answers: u64,
    /// Of these, those with 4xx.
    pub client_errors: u64,
    /// Errors, fallbacks and unknown outcomes.
    pub errors: u64,
}

add_change!(HourOfAnswers { kept hour, sum answers, sum client_errors, sum errors });

/// The answers of several hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AnswerSums {
    pub(super) answers: u64,
    pub(super) client_errors: u64,
    pub(super) errors: u64,
}

impl AnswersByHour {
    pub(super) fn count(&mut self, served: Served, now: Timestamp) {
        // If the clock was set back, the newest hour goes on.
        let hour = self.0.last().map_or(i64::MIN, |last| last.hour).max(now.as_second().div_euclid(HOUR_S));
        if self.0.last().is_none_or(|last| last.hour != hour) {
            self.0.push(HourOfAnswers { hour, ..HourOfAnswers::default() });
            let too_many = self.0.len().saturating_sub(HOURS_MAX);
            self.0.drain(..too_many);
        }
        let Some(of_hour) = self.0.last_mut() else { return };
        match served {
            Served::Answered => of_hour.answers += 1,
            Served::CallerError => {
                of_hour.answers += 1;
                of_hour.client_errors += 1;
            }
            Served::FellBack | Served::Error | Served::Unknown => of_hour.errors += 1,
        }
    }

    /// The sums over the last `window`, but at least over the last hour. The hour in which the window begins counts
    /// whole.
    pub(super) fn over(&self, window: Duration, now: Timestamp) -> AnswerSums {
        let seconds = i64::try_from(window.as_secs()).unwrap_or(i64::MAX).max(HOUR_S);
        let first = now.as_second().saturating_sub(seconds).div_euclid(HOUR_S);
        self.0.iter().filter(|of_hour| of_hour.hour >= first).fold(AnswerSums::default(), |sums, of_hour| AnswerSums {
            answers: sums.answers + of_hour.answers,
            client_errors: sums.client_errors + of_hour.client_errors,
            errors: sums.errors + of_hour.errors,
        })
    }

    /// Keeps the errors, and sets the answers without an error to zero.
    pub(super) fn only_errors(self) -> Self {
        let only_errors = |of_hour| HourOfAnswers { answers: 0, client_errors: 0, ..of_hour };
        Self(self.0.into_iter().map(only_errors).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_000 * HOUR_S + hours * HOUR_S + 10).unwrap()
    }

    #[test]
    fn answers_are_summed_over_the_window_and_kept_for_a_week() {
        let mut answers = AnswersByHour::default();
        for hour in 0..200 {
            answers.count(Served::Answered, at(hour));
        }
        answers.count(Served::CallerError, at(199));
        answers.count(Served::FellBack, at(199));
        assert_eq!(answers.0.len(), HOURS_MAX);
        let sums = |window| answers.over(Duration::from_secs(window), at(199));
        assert_eq!(sums(3 * 3_600), AnswerSums { answers: 5, client_errors: 1, errors: 1 });
        assert_eq!(sums(0).answers, 3, "this hour and the one before");
        assert_eq!(answers.over(Duration::ZERO, at(300)), AnswerSums::default());
        assert_eq!(answers.only_errors().over(Duration::ZERO, at(199)), AnswerSums { errors: 1, ..Default::default() });
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut answers = AnswersByHour::default();
        answers.count(Served::Answered, at(10));
        answers.count(Served::Answered, at(2));
        assert_eq!(answers.over(Duration::ZERO, at(10)).answers, 2);
    }
}
