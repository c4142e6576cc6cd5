//! The proxy against real sockets: raw clients, scripted origins, fakes for everything behind the traits.

mod clocks;
mod corpus;
mod crowd;
mod deadlines;
mod drains;
mod retries;
mod rig;
mod states;
mod transparency;
mod wire;
