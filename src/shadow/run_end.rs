//! How a run on a twin has ended, as far as the twin's next requests depend on it.

use super::instance_order::TwinChange;
use crate::exchange::{Answered, RunReport};
use crate::flag::SkipReason;
use crate::names::RunId;
use crate::workflow::Mode;

/// How a run has ended, or that it goes on.
pub(super) enum RunEnd {
    /// It has ended.
    Ended {
        /// The run, if it has made an instance and pinned it: this instance is the twin.
        twin: Option<RunId>,
        /// What it did to the twin.
        change: TwinChange,
    },
    /// The dark run goes on after its answer, or after the time that the answer may take.
    GoesOn {
        /// The run.
        run: RunId,
        /// The run, if it has made an instance and pinned it: this instance is the twin.
        twin: Option<RunId>,
    },
}

impl RunEnd {
    /// Nothing is known of the run.
    pub(super) const UNKNOWN: Self = Self::Ended { twin: None, change: TwinChange::Missed };

    pub(super) fn of(report: &RunReport, is_comparable: bool, answered: &Answered) -> Self {
        let change = |is_made| if is_made { TwinChange::Applied } else { TwinChange::Missed };
        let Some(run) = report.run else {
            // The engine refused the request before a run began. The twin lacks nothing if legacy refused it too.
            let is_made = is_comparable && answered.legacy.status().is_client_error();
            let change = match report.unresolved {
                Some((SkipReason::NoTwin, _)) => TwinChange::NoTwin,
                Some(_) | None => change(is_made),
            };
            return Self::Ended { twin: None, change };
        };
        // Another run had pinned the instance before. Whether that run's twin corresponds to legacy's instance is not
        // known.
        if report.pin_is_taken {
            return Self::Ended { twin: None, change: TwinChange::Missed };
        }
        let twin = report.pinned.is_some().then_some(run);
        match report.status {
            Some(status) if !status.is_final() && answered.mode == Mode::Dark => Self::GoesOn { run, twin },
            Some(_) | None => Self::Ended { twin, change: change(is_comparable) },
        }
    }
}
