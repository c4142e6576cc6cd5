//! Legacy's own share of errors, which the guard and the gates accept from the engine too.
//!
//! Always true: an outage of legacy that is over raises the share only until enough later replies speak against it. The
//! share is that of all known replies; but if the replies since some moment show, with 95 % confidence, that fewer fail
//! now, it is the share of those replies. So it is never above the share of all replies, and chance alone seldom lowers
//! it. For the gate to `only`, an outage that had not ended when legacy's last reply came does not raise the share
//! either: at a share of 100 % in `live`, nobody learns any more that the outage is over. No gate passes by a share
//! that is only assumed.

use jiff::Timestamp;

use super::bound;
use super::gate_text::{duration_text, elapsed};
use super::legacy_replies::{RecentReplies, RepliesOfLegacy};

/// From this many replies on, the observed share of bad ones counts as legacy's share.
pub(super) const LEGACY_REPLIES_MIN: u64 = 100;
/// From this many replies on, a bound of the share with 95 % confidence counts as legacy's share.
const LEGACY_REPLIES_FOR_BOUND: u64 = 20;

/// Which replies of legacy count as bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadReplies {
    ClientErrors,
    ServerErrors,
}

/// The share of legacy's replies that are bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LegacyShare {
    pub(super) bad: u64,
    /// Among how many replies.
    pub(super) of: u64,
    /// Whether these are only the last replies, and not all.
    pub(super) are_last: bool,
    /// How many later replies are left out because a larger share of them is bad.
    pub(super) left_out: u64,
    /// The share, or an upper bound of it with 95 % confidence; `None` if there are too few replies to tell.
    pub(super) at_most: Option<f64>,
    last_reply: Option<Timestamp>,
}

impl RepliesOfLegacy {
    pub(super) fn share(&self, which: BadReplies) -> LegacyShare {
        let (of_all, bad) = match which {
            BadReplies::ClientErrors => (self.replies, self.client_errors),
            BadReplies::ServerErrors => (self.replies, self.server_errors),
        };
        let at_most = at_most(of_all, bad);
        let last_reply = self.last_reply;
        let mut share = LegacyShare { bad, of: of_all, are_last: false, left_out: 0, at_most, last_reply };
        let (mut of, mut bad) = (0, 0);
        for recent in self.recent.iter().rev() {
            of += recent.replies;
            bad += recent.bad(which);
            let is_of_some = of >= LEGACY_REPLIES_FOR_BOUND && of < of_all;
            if is_of_some && share.at_most.is_some_and(|at_most| bound::is_below(of, bad, at_most)) {
                let at_most = Some(bound::upper(of, bad));
                share = LegacyShare { bad, of, are_last: true, left_out: 0, at_most, last_reply };
            }
        }
        share
    }

    /// As [`Self::share`], but without the last replies if significantly more of them are bad than of the replies
    /// before them: as far as anybody knows, that outage was not over when legacy's last reply came.
    pub(super) fn share_without_outage(&self, which: BadReplies) -> LegacyShare {
        let share = self.share(which);
        let mut without = share;
        let (mut of, mut bad) = (0, 0);
        for recent in self.recent.iter().rev() {
            of += recent.replies;
            bad += recent.bad(which);
            let Some(of_before) = share.of.checked_sub(of).filter(|of| *of >= LEGACY_REPLIES_FOR_BOUND) else { break };
            let bad_before = share.bad.saturating_sub(bad);
            let is_worse = bound::lower(of, bad) > bound::upper(of_before, bad_before);
            let is_less = (bad_before as f64) * (without.of as f64) < (without.bad as f64) * (of_before as f64);
            if is_worse && is_less {
                let at_most = at_most(of_before, bad_before);
                let (left_out, last_reply) = (of, Some(recent.since));
                without = LegacyShare { bad: bad_before, of: of_before, left_out, at_most, last_reply, ..share };
            }
        }
        without
    }
}

impl RecentReplies {
    fn bad(&self, which: BadReplies) -> u64 {
        match which {
            BadReplies::ClientErrors => self.client_errors,
            BadReplies::ServerErrors => self.server_errors,
        }
    }
}

/// The share of bad replies, or a bound of it; `None` if there are too few to tell.
fn at_most(of: u64, bad: u64) -> Option<f64> {
    match of {
        LEGACY_REPLIES_MIN.. => Some(bad as f64 / of as f64),
        LEGACY_REPLIES_FOR_BOUND.. => Some(bound::upper(of, bad)),
        _ => None,
    }
}

impl LegacyShare {
    /// The share, or a lower bound of it with 95 % confidence; `None` if there are too few replies to tell.
    pub(super) fn at_least(&self) -> Option<f64> {
        match self.of {
            LEGACY_REPLIES_MIN.. => Some(self.share()),
            LEGACY_REPLIES_FOR_BOUND.. => Some(bound::lower(self.of, self.bad)),
            _ => None,
        }
    }

    /// The observed share, from 0 to 1; 0 without replies.
    pub(super) fn share(&self) -> f64 {
        self.bad as f64 / self.of.max(1) as f64
    }

    /// Which replies these are, and how old: `legacy's last 120 replies (the last one 3 days ago)`.
    pub(super) fn replies_text(&self, now: Timestamp) -> String {
        let replies = match self.are_last {
            true => format!("legacy's last {} replies", self.of),
            false => "legacy's replies".to_owned(),
        };
        let replies = match self.left_out {
            0 => replies,
            left_out => format!("{replies} before its last {left_out}, more of which were errors"),
        };
        match self.last_reply {
            Some(last) => format!("{replies} (the last one {} ago)", duration_text(elapsed(last, now))),
            None => replies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::OfferedRequest;

    /// Legacy's share of 5xx after so many replies with each status, one after the other.
    fn after(replies: &[(u64, u16)]) -> LegacyShare {
        replies_after(replies).share(BadReplies::ServerErrors)
    }

    fn replies_after(replies: &[(u64, u16)]) -> RepliesOfLegacy {
        let mut legacy = RepliesOfLegacy::default();
        for (number, status) in replies {
            let legacy_status = http::StatusCode::from_u16(*status).ok();
            let request = OfferedRequest { legacy_status, ..OfferedRequest::new("orders", 0) };
            (0..*number).for_each(|_| legacy.count(&request, Timestamp::UNIX_EPOCH));
        }
        legacy
    }

    #[test]
    fn an_outage_of_legacy_that_is_over_does_not_widen_what_is_accepted() {
        let during = after(&[(100, 500)]);
        assert_eq!((during.at_most, during.at_least(), during.are_last), (Some(1.0), Some(1.0), false));
        let soon_after = after(&[(100, 500), (120, 200)]);
        assert!(soon_after.are_last && soon_after.of >= 100 && soon_after.bad == 0, "{soon_after:?}");
        assert!(soon_after.at_most.unwrap() < 0.1 && soon_after.at_least() == Some(0.0), "{soon_after:?}");
        let long_after = after(&[(100, 500), (5_000, 200)]);
        assert!(long_after.at_most.unwrap() < 0.01, "{long_after:?}");
    }

    #[test]
    fn an_outage_of_legacy_that_went_on_at_its_last_reply_is_not_accepted_of_the_engine() {
        let without = |replies: &[(u64, u16)]| {
            let share = replies_after(replies).share_without_outage(BadReplies::ServerErrors);
            (share.bad, share.of, share.left_out)
        };
        assert_eq!(without(&[(900, 200), (100, 500)]), (0, 900, 100));
        assert_eq!(without(&[(2_000, 200), (1_000, 500)]), (0, 2_000, 1_000));
        assert_eq!(without(&[(500, 500), (500, 200), (100, 500)]), (0, 500, 100), "after another one that is over");
        assert_eq!(without(&[(1, 500), (49, 200)].repeat(60)), (60, 3_000, 0), "a steady share");
        assert_eq!(without(&[(100, 500)]), (100, 100, 0), "nothing else is known");
        let shown = replies_after(&[(900, 200), (100, 500)]).share_without_outage(BadReplies::ServerErrors);
        let text = shown.replies_text(Timestamp::UNIX_EPOCH);
        assert_eq!(
            text,
            "legacy's replies before its last 100, more of which were errors (the last one 0 seconds ago)"
        );
    }

    #[test]
    fn a_steady_share_is_taken_as_it_is() {
        let steady = after(&[(1, 500), (49, 200)].repeat(60));
        assert_eq!((steady.bad, steady.of, steady.at_most), (60, 3_000, Some(0.02)));
        let now_failing = after(&[(900, 200), (100, 500)]);
        assert_eq!((now_failing.at_most, now_failing.are_last), (Some(0.1), false), "never above that of all");
    }

    #[test]
    fn for_few_replies_the_share_is_a_bound_and_for_fewer_it_is_unknown() {
        let few = after(&[(1, 500), (18, 200)]);
        assert_eq!((few.at_most, few.at_least()), (None, None));
        let more = after(&[(10, 500), (10, 200)]);
        assert!(more.at_least().unwrap() < 0.35 && more.at_most.unwrap() > 0.65, "{more:?}");
    }

    #[test]
    fn the_last_replies_are_bounded_and_stored_ones_without_them_are_readable() {
        let mut legacy = RepliesOfLegacy::default();
        let request = OfferedRequest { legacy_status: Some(http::StatusCode::OK), ..OfferedRequest::new("orders", 0) };
        (0..10_000).for_each(|_| legacy.count(&request, Timestamp::UNIX_EPOCH));
        let last: u64 = legacy.recent.iter().map(|recent| recent.replies).sum();
        assert!(legacy.recent.len() == 20 && (950..=1_000).contains(&last), "{last}");
        let mut stored = serde_json::to_value(&legacy).unwrap();
        stored.as_object_mut().unwrap().retain(|name, _| name != "legacy_recent" && name != "legacy_last_reply");
        let of_earlier_version: RepliesOfLegacy = serde_json::from_value(stored).unwrap();
        assert_eq!((of_earlier_version.replies, of_earlier_version.recent.len()), (10_000, 0));
        assert_eq!(of_earlier_version.share(BadReplies::ServerErrors).at_most, Some(0.0));
    }
}
