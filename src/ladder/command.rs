//! The command line of a flip, as a refusal shows it.

use std::fmt;

use crate::flag::{Percent, State};
use crate::names::RouteId;

/// The command line of one flip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlipCommand {
    /// The route.
    pub route: RouteId,
    /// The new state.
    pub to: State,
    /// The new share, if it changes.
    pub percent: Option<Percent>,
    /// The reason, if the gate is overridden (`--force`).
    pub force: Option<String>,
    /// The person has read what follows from the move (the *horizon*, see `horizon.rs`; `--yes`).
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
            // After a space, the CLI would take a reason that begins with `-` for an option.
            let separator = if reason.starts_with('-') { '=' } else { ' ' };
            write!(f, " --force --reason{separator}{}", quoted(reason))?;
        }
        if *acknowledge {
            f.write_str(" --yes")?;
        }
        Ok(())
    }
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_word_of_the_command_line_and_no_option() {
        let command = |reason: &str| {
            let force = Some(reason.to_owned());
            FlipCommand { route: "a".into(), to: State::Live, percent: None, force, acknowledge: false }.to_string()
        };
        assert_eq!(command("it's late"), r"pointsman flip a live --force --reason 'it'\''s late'");
        assert_eq!(command("-x"), "pointsman flip a live --force --reason='-x'");
    }
}
