//! Connections to services, below the requests that go over them.
//!
//! The question it answers: "is there a connection to this service, and what happened on it?" `stream` has the bytes,
//! plain or over TLS (`tls`), and counts them; `http2` has connections that many requests share, and `http2_stream` one
//! request on them. `addresses` has the addresses of a service; `address`, `balance` and `address_choice` decide which
//! address gets a request, `ejection` and `health_check` which ones get none; `view` shows all of that. Whether a
//! request may be sent again is decided by `proxy` and `engine`.
//!
//! Always true: nothing of a request is sent over a connection whose handshake has not ended; the bytes of a service
//! that hyper has read, or could have read when it gave the connection up, are counted in [`Received`].
//!
//! When a service is slow, the code that opens a connection bounds the time for that. When a service is gone, requests
//! on their way fail, and [`SendError::not_processed`] says which of them the service has certainly not processed.

mod address;
mod address_choice;
mod address_registry;
mod addresses;
mod balance;
mod callers;
mod dialer;
mod ejection;
mod empty_data;
mod frame;
mod handshake_counts;
mod health_check;
mod http2;
mod http2_body;
mod http2_connection;
mod http2_io;
mod http2_stream;
mod interim_scanner;
mod last_failures;
mod resolver;
mod single_get;
mod stream;
mod target;
mod tls;
mod transfer_coding;
mod view;

#[cfg(test)]
#[path = "tests/ending_origin.rs"]
pub(crate) mod ending_origin;

pub use address::{Address, RequestInFlight, TrafficClass, choose_address};
pub use address_choice::AddressChoice;
pub use address_registry::AddressRegistry;
pub use addresses::{ServiceAddresses, ServiceInUse};
pub use callers::{CallerLog, NotedCaller, NotedCalls, ServiceCallers, client_text, path_pattern};
#[cfg(test)]
pub(crate) use dialer::simulated;
pub use dialer::{ConnectError, Dialer};
pub use ejection::EjectionReason;
pub use empty_data::EmptyDataFilter;
pub use http2::Multiplexer;
pub use http2_connection::{Http2Bounds, Http2Connection, Http2Error};
pub use http2_stream::{CutReply, Http2Stream, NotProcessed, SendError, is_http2_violation};
pub use single_get::{WholeReply, get_once};
pub use stream::{Received, SecuredPeer, ServiceStream};
pub use target::Target;
pub use tls::{ClientTls, ConnectionProtocol, TlsError, platform_certificates};
pub use transfer_coding::has_known_coding;
pub use view::{AddressView, AddressesView, EjectedView, FailureView, LookupView};
