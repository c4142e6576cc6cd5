//! The proxy against real sockets: raw clients, scripted origins, fakes for everything behind the traits.

mod rig;
mod transparency;
mod wire;
