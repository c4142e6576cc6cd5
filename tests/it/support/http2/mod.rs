//! HTTP/2 by hand: a writer of frames and header blocks, valid or not, and a connection that sends them and reads what
//! comes back. Nothing here is shared with the HTTP/2 code under test.

pub mod frames;
pub mod hpack;
pub mod peer;
