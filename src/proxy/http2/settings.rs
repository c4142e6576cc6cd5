//! The settings that a client is sent when HTTP/2 begins, and the bounds that the h2 crate enforces.
//!
//! Always true: each bound of the h2 crate that a client can reach is set here, so that none changes with a new version
//! of the crate.

use h2::server::Builder;

use crate::limits::{
    HTTP2_FRAME_BYTES_MAX, HTTP2_KEPT_RESETS_MAX, HTTP2_LOCAL_RESETS_MAX, HTTP2_PENDING_RESETS_MAX, Limits,
};

/// The settings of a connection.
pub(super) fn builder(limits: &Limits) -> Builder {
    let number = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(number(limits.client_http2_streams_max))
        .initial_window_size(number(limits.client_http2_stream_window_bytes_max))
        .initial_connection_window_size(number(limits.client_http2_window_bytes_max))
        .max_send_buffer_size(size(limits.client_http2_send_buffer_bytes_max))
        .max_header_list_size(number(limits.head_bytes_max))
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(HTTP2_LOCAL_RESETS_MAX))
        .max_concurrent_reset_streams(HTTP2_KEPT_RESETS_MAX);
    builder
}
