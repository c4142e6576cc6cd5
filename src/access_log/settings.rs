//! The `access_log:` settings.

use std::path::PathBuf;

/// The checked `access_log:` settings.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogSettings {
    /// The file to which lines are written.
    pub file: LogFile,
    /// How a line looks.
    pub format: LineFormat,
    /// The share of successful exchanges that are logged, from 0 to 1.
    pub sample: f64,
}

/// The file to which lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// The process's standard output.
    Stdout,
    /// A file, relative to the working directory. Lines are appended to it.
    Path(PathBuf),
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// A JSON object.
    #[default]
    Json,
    /// Apache's Combined Log Format (the Common one with referer and user agent), and more fields at its end.
    Combined,
}
