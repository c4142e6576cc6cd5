//! Raw requests that servers could interpret differently, with the answer that the documents promise. They are sent to
//! a proxy with three routes in `shadow` that have workflows: `POST /orders`, which creates instances,
//! `GET /orders/{id}`, which follows them, and `GET /plain`.

mod framing;
mod targets;

/// The expected result.
#[derive(Clone, Copy)]
pub enum Expected {
    /// Refused with one of these (0: closed without an answer), the connection closed, nothing forwarded.
    Refused(&'static [u16]),
    /// Forwarded once, with this request line and this body.
    One(&'static str, &'static str),
}

const BAD: Expected = Expected::Refused(&[400]);

/// All raw requests: name, bytes, expected result.
pub fn raw_requests() -> impl Iterator<Item = &'static (&'static str, &'static str, Expected)> {
    framing::REQUESTS.iter().chain(targets::REQUESTS)
}
