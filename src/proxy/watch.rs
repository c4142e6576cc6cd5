//! Is this request to be compared, and what is copied for that?
//!
//! Always true: a request that should be compared opens one ticket, before legacy is asked; what can be told to be
//! incomparable by then is settled at once and costs no copy.

use std::sync::{Arc, Mutex};

use http::request;

use super::capture::{RequestCapture, Watched};
use super::exchange::{Exchange, Flagged, length};
use super::upload::Upload;
use crate::exchange::Ticket;
use crate::flag::{Other, SkipReason, State};
use crate::workflow::Mode;

pub(super) type Tees = (Option<Watched>, Option<Arc<Mutex<RequestCapture>>>);

/// Opens the account of a request that should be compared, and the copies that are taken for it.
pub(super) fn watch(
    exchange: &Exchange<'_>,
    flagged: &Flagged,
    head: &request::Parts,
    upload: &Upload,
    rung: State,
    other: Other,
) -> Tees {
    let shared = &exchange.client.shared;
    let bytes_max = usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX);
    let mode = match other {
        Other::None => None,
        Other::Skip(reason) => {
            shared.offer.open(&flagged.flag.route.id).skip(reason);
            None
        }
        Other::Rehearse => Some(Mode::Rehearse),
        Other::Dark => Some(Mode::Dark),
    };
    let compare = mode.and_then(|mode| {
        let mut ticket = shared.offer.open(&flagged.flag.route.id);
        if mode == Mode::Dark {
            ticket.wants_twin();
        }
        let too_large = length(&head.headers).is_some_and(|n| n > bytes_max as u64);
        let why = match () {
            () if !shared.offer.has_room() => SkipReason::QueueFull,
            () if exchange.upgrade.is_some() => SkipReason::Streaming,
            () if too_large => SkipReason::BodyTooLarge,
            () => return Some((ticket, mode)),
        };
        ticket.skip(why);
        None
    });
    // On `off` nothing is looked at, unless legacy could give out an id that the engine owns.
    let creates = flagged.creates() && (rung != State::Off || shared.pins.engine_owns_any(&flagged.flag.family));
    if compare.is_none() && !creates {
        return (None, None);
    }
    let body = (compare.is_some() && !upload.is_empty())
        .then(|| Arc::new(Mutex::new(RequestCapture { bytes_max, ..RequestCapture::default() })));
    let watched = watched(exchange, flagged, head, compare, body.clone());
    (Some(watched), body)
}

/// A reply that is looked at: for the comparison, or only for what it creates.
fn watched(
    exchange: &Exchange<'_>,
    flagged: &Flagged,
    head: &request::Parts,
    compare: Option<(Ticket, Mode)>,
    body: Option<Arc<Mutex<RequestCapture>>>,
) -> Watched {
    let shared = &exchange.client.shared;
    Watched {
        compare,
        flags: exchange.table.set.clone(),
        flag: flagged.flag.clone(),
        request: flagged.copy(exchange.client, head),
        body,
        instance: flagged.instance.clone(),
        retry_key: flagged.retry_key(),
        began: exchange.began,
        bytes_max: usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX),
        offer: shared.offer.clone(),
        pins: shared.pins.clone(),
    }
}

/// A fallback's reply: never compared, looked at for what it creates.
pub(super) fn fallback(exchange: &Exchange<'_>, flagged: &Flagged, head: &request::Parts) -> Option<Watched> {
    flagged.creates().then(|| watched(exchange, flagged, head, None, None))
}
