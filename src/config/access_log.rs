//! `access_log:` of `pointsman.yaml`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::access_log::{AccessLogSettings, LineFormat, LogFile};
use crate::problem::{Problems, Site};

/// One line per exchange with a client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLogDraft {
    /// The file, relative to the working directory, or `stdout`.
    pub file: String,
    /// The format of a line: `json` (the default), or `combined`: Apache's Combined Log Format with more fields at its
    /// end.
    #[serde(default)]
    pub format: FormatDraft,
    /// The share of successful exchanges that are logged, from 0 to 1; failed ones are always logged. Default 1.
    pub sample: Option<f64>,
}

/// The format of a line.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatDraft {
    /// A JSON object.
    #[default]
    Json,
    /// Apache's Combined Log Format, and more fields at its end.
    Combined,
    /// The earlier name of `combined`.
    Common,
}

/// Checks a draft. `dir` is the directory of the flag files.
pub(crate) fn check(
    draft: &AccessLogDraft,
    dir: &Path,
    site: &Site,
    problems: &mut Problems,
) -> Option<AccessLogSettings> {
    let AccessLogDraft { file, format, sample } = draft;
    let sample = sample.unwrap_or(1.0);
    let is_share = (0.0..=1.0).contains(&sample);
    if !is_share {
        problems
            .error(&site.key("sample"), format!("`{sample}` is not a share"))
            .hint("a number from 0 to 1: 0.1 logs a tenth of the exchanges that did not fail");
    }
    let is_file = check_file(file, dir, &site.key("file"), problems);
    let format = match format {
        FormatDraft::Json => LineFormat::Json,
        FormatDraft::Combined | FormatDraft::Common => LineFormat::Combined,
    };
    let file = if file == "stdout" { LogFile::Stdout } else { LogFile::Path(PathBuf::from(file)) };
    (is_share && is_file).then_some(AccessLogSettings { file, format, sample })
}

fn check_file(file: &str, dir: &Path, site: &Site, problems: &mut Problems) -> bool {
    if file.is_empty() || file.ends_with('/') {
        problems.error(site, "the access log needs the name of a file").hint("for example `access.log`, or `stdout`");
        return false;
    }
    let parent = Path::new(file).parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real_path = |path: &Path| std::fs::canonicalize(path).ok();
    let watched = [dir.to_owned(), dir.join("routes"), dir.join("workflows")];
    if let Some(parent) = real_path(parent)
        && watched.iter().any(|watched| real_path(watched).as_ref() == Some(&parent))
    {
        problems
            .error(site, "the access log would be in the directory of the flag files, which is watched for changes")
            .hint("the file is relative to the working directory: name one in another directory");
        return false;
    }
    true
}
