//! The page: what the API shows, for people, in a browser or as a picture.
//!
//! The question it answers: "where does a process stand, why did it stop, and what can I do?" Always true: the page
//! knows the API and its types and nothing deeper, and makes each request to it as the person who looks, so that it
//! shows and does nothing that this person could not have from the API; every text that it inserts is escaped, so that
//! recorded data is never markup; no script, style or picture comes from another host, and none stands in the markup;
//! a form is accepted only from the page itself, in the session that it was made for.
//!
//! Everything works without JavaScript. The one script renews the parts of a page that have changed.
//!
//! When the store is slow or gone, a page that needs it shows the API's error.

mod actions;
mod assets;
mod client;
mod differences;
mod duration;
mod events;
mod failure;
mod html;
mod recorded_text;
mod request;
mod routes;
mod runs;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use differences::difference_words::apart;
pub(crate) use duration::duration_text;
pub use runs::flowchart::svg;
pub use server::router;
