//! What the demo prints: chapters on stdout, live progress on a terminal.
//!
//! Always true: without a terminal nothing is animated or coloured; the same sentences are printed as plain lines.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::OwoColorize;
use tokio::sync::Notify;

/// Without a terminal progress is printed at most this often.
const PLAIN_PAUSE: Duration = Duration::from_secs(2);

/// Prints chapters, sentences and progress.
#[derive(Debug)]
pub struct Console {
    bar: ProgressBar,
    colour: bool,
    live: bool,
    begun: Instant,
    progress_at: Instant,
    closed: Arc<Notify>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// A console that animates only if stderr is a terminal, and colours only if stdout is one and `NO_COLOR` is not
    /// set.
    pub fn new() -> Self {
        let live = std::io::stderr().is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { bar, colour, live, begun: Instant::now(), progress_at: Instant::now(), closed: Arc::default() }
    }
    /// Whether the output is coloured.
    pub fn colour(&self) -> bool {
        self.colour
    }
    /// Prints the heading of a new chapter.
    pub fn chapter(&self, title: &str, text: &str) {
        let at = format!("{:>5.1} s", self.begun.elapsed().as_secs_f64());
        if self.colour {
            self.print(&format!("\n{} {}  {text}", at.dimmed(), title.bold().cyan()));
        } else {
            self.print(&format!("\n{at}  {title}  {text}"));
        }
    }
    /// Prints text within a chapter.
    pub fn say(&self, text: &str) {
        for line in text.lines() {
            self.print(&format!("         {line}"));
        }
    }
    /// Prints a promise that held.
    pub fn promise_held(&self, text: &str) {
        let verdict = if self.colour { "ok".green().to_string() } else { "ok".to_owned() };
        self.print(&format!("    {verdict}   {text}"));
    }
    /// Prints a promise that was broken.
    pub fn promise_broken(&self, text: &str) {
        let verdict = if self.colour { "BROKEN".red().to_string() } else { "BROKEN".to_owned() };
        self.print(&format!("  {verdict} {text}"));
    }
    /// Shows what happens now.
    pub fn progress(&mut self, text: &str) {
        if self.live {
            self.bar.set_message(text.to_owned());
        } else if self.progress_at.elapsed() >= PLAIN_PAUSE {
            self.progress_at = Instant::now();
            self.say(text);
        }
    }
    /// Notified when stdout is closed (a pipe that nobody reads any more).
    pub fn output_closed(&self) -> Arc<Notify> {
        self.closed.clone()
    }
    /// Ends the progress line.
    pub fn end_progress(&self) {
        self.bar.finish_and_clear();
    }
    fn print(&self, line: &str) {
        let printed = self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"));
        if printed.is_err() {
            self.closed.notify_one();
        }
    }
}
