//! The proxy against real sockets: raw clients, scripted origins, fakes for everything behind the traits.

mod addresses;
mod completions;
mod corpus;
mod created_ids;
mod deadlines;
mod drains;
mod listeners;
mod many_clients;
mod origin;
mod proxied_connections;
mod retries;
mod rig;
mod room;
mod states;
mod tls;
mod tls_clients;
mod tls_handshakes;
mod transparency;
mod turns;
mod upstreams;
mod waits;
mod wire;
