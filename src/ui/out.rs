//! Standard output and error. A reader that has gone away is no error: what is said then is said to nobody.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// How things are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: live where there is a terminal.
    #[default]
    Human,
    /// For people and logs: one line for each thing that happens, nothing moves.
    Plain,
    /// For programs: a JSON document, or a line of JSON for each thing that happens.
    Json,
}

/// Where things are shown.
#[derive(Clone, Debug)]
pub struct Out {
    /// How.
    pub format: Format,
    /// Whether only errors and asked-for data are shown.
    pub quiet: bool,
    closed: Arc<AtomicBool>,
}

impl Out {
    /// The process's own.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self {
            format,
            quiet,
            closed: Arc::default(),
        }
    }

    /// Whether something may move: a terminal, and a person in front of it.
    pub fn is_live(&self) -> bool {
        self.format == Format::Human && !self.quiet && io::stdout().is_terminal()
    }

    /// Whether a question can be asked.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A line of what was asked for.
    pub fn line(&self, text: impl AsRef<str>) {
        let mut stdout = io::stdout().lock();
        if writeln!(stdout, "{}", text.as_ref())
            .and_then(|()| stdout.flush())
            .is_err()
        {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// Text as it is.
    pub fn text(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// A line that a person likes to read and a program does not need.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet && self.format != Format::Json {
            self.line(text);
        }
    }

    /// A JSON document.
    pub fn json(&self, value: &impl Serialize) {
        self.line(serde_json::to_string_pretty(value).unwrap_or_default());
    }

    /// One line of JSON.
    pub fn json_line(&self, value: &impl Serialize) {
        self.line(serde_json::to_string(value).unwrap_or_default());
    }

    /// A line on standard error.
    pub fn error(&self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", text.as_ref());
    }

    /// Asks a question with yes or no on the terminal; anything but yes is no.
    pub fn ask(&self, question: &str) -> bool {
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let _ = io::stderr().flush();
        let mut answer = String::new();
        let _ = io::stdin().read_line(&mut answer);
        matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}
