//! API, auth, page. The rest is being written; the shapes that server and clients share stand in [`types`].

pub mod types;
