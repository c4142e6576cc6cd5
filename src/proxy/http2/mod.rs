//! HTTP/2 towards clients: one exchange for each stream.
//!
//! The question it answers: "how does an exchange use one of several streams of a connection?" `connection` serves a
//! connection in one task: it accepts streams, drives their exchanges (`stream`, which calls `switch` as HTTP/1.1
//! does), and has one timer for all their waits. `request` turns a head into the equivalent HTTP/1.1 head;
//! `request_stream` is the body. `io` lies between the h2 crate and the socket and reads the headers of the frames that
//! pass (`frames`, `traffic`): this shows when the last byte of an answer was written, why streams were reset, and
//! whether a client floods the connection (`flood`).
//!
//! Always true: waits, record, completion and cut of an exchange belong to its stream; what ends one stream leaves the
//! others alone; the memory of a connection is bounded by its windows, by its number of streams and by their send
//! buffers.

mod connection;
mod flood;
mod frames;
mod io;
mod request;
mod request_stream;
mod settings;
mod stream;
mod stream_deadlines;
mod traffic;
mod waker;

pub(in crate::proxy) use connection::{Accepted, serve};
#[cfg(test)]
pub(in crate::proxy) use flood::PERIOD_MICROS;
pub(in crate::proxy) use request_stream::RequestStream;
pub(in crate::proxy) use traffic::PREFACE;
