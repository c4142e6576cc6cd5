//! A flip as it is typed: what a refusal shows.

use std::fmt;

use crate::flag::{Percent, State};
use crate::names::RouteId;

/// One flip, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlipCommand {
    /// The route.
    pub route: RouteId,
    /// Where to.
    pub to: State,
    /// With another share.
    pub percent: Option<Percent>,
    /// The gate is passed by hand, for this reason.
    pub force: Option<String>,
    /// The horizon was read.
    pub acknowledge: bool,
}

impl fmt::Display for FlipCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, to, percent, force, acknowledge } = self;
        write!(f, "pointsman flip {route} {to}")?;
        if let Some(percent) = percent {
            write!(f, " --percent {}", percent.as_f64())?;
        }
        if let Some(reason) = force {
            write!(f, " --force --reason {}", quoted(reason))?;
        }
        if *acknowledge {
            f.write_str(" --yes")?;
        }
        Ok(())
    }
}

/// A text as a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
