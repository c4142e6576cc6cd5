//! The proxy against real sockets: raw clients, scripted origins, fakes for everything behind the traits.

mod completions;
mod corpus;
mod created_ids;
mod deadlines;
mod drains;
mod many_clients;
mod retries;
mod rig;
mod states;
mod transparency;
mod waits;
mod wire;
