//! A command as a value that prints as one would type it.

use std::fmt;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// From words.
    pub fn new(words: &[impl AsRef<str>]) -> Self {
        Self(words.iter().map(|word| word.as_ref().to_owned()).collect())
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{}", quoted(word))?;
        }
        Ok(())
    }
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
}

/// A command that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The command, to be pasted into a shell.
    pub line: CommandLine,
    /// How it ended.
    pub status: String,
    /// The last lines of its standard error.
    pub stderr: Vec<String>,
}

impl std::error::Error for CommandError {}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "running `{}`: {}", self.line, self.status)?;
        self.stderr.iter().try_for_each(|line| write!(f, "\n  stderr: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_one_would_type_it() {
        let line = CommandLine::new(&["echo", "a b", "it's", "--x=1", ""]);
        assert_eq!(line.to_string(), r"echo 'a b' 'it'\''s' --x=1 ''");
    }
}
