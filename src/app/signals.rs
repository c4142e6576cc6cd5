//! The signals that a process handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a running process handles, apart from those that end it. Without a handler, each would end it.
pub struct Signals {
    /// SIGHUP: read the files again.
    pub hangups: Signal,
    /// SIGUSR1: open the access log again.
    pub reopens: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn handle() -> std::io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, reopens: signal(SignalKind::user_defined1())? })
    }
}
