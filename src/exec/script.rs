//! Commands written down as a bash script, for people who want to learn them.

use std::fmt::Write as _;

use super::command::CommandLine;

/// A script in the making.
#[derive(Clone, Debug)]
pub struct Script(String);

impl Script {
    /// A script that stops at the first error.
    pub fn new(title: &str) -> Self {
        let mut script = Self("#!/usr/bin/env bash\n".to_owned());
        script.comment(title);
        script.0.push_str("set -euo pipefail\n");
        script
    }

    /// A line for the reader.
    pub fn comment(&mut self, text: &str) {
        for line in text.lines() {
            let _ = writeln!(self.0, "# {line}");
        }
    }

    /// The heading of a step.
    pub fn step(&mut self, id: &str, text: &str) {
        let _ = writeln!(self.0, "\n# step {id}: {text}");
    }

    /// A command.
    pub fn run(&mut self, words: &[&str]) {
        let _ = writeln!(self.0, "{}", CommandLine::new(words));
    }

    /// A command that reads `input`.
    pub fn run_with_input(&mut self, words: &[&str], input: &str) {
        let mut end = "END".to_owned();
        while input.lines().any(|line| line == end) {
            end.push('_');
        }
        let _ = writeln!(
            self.0,
            "{} <<'{end}'\n{}\n{end}",
            CommandLine::new(words),
            input.trim_end_matches('\n')
        );
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_a_heredoc_that_nothing_in_it_ends() {
        let mut script = Script::new("a lab");
        script.step("one", "apply");
        script.run_with_input(&["kubectl", "apply", "-f", "-"], "a: 1\nEND\n");
        let text = script.finish();
        assert!(
            text.ends_with("kubectl apply -f - <<'END_'\na: 1\nEND\nEND_\n"),
            "{text}"
        );
    }
}
