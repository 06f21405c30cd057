//! Reads the part of the Dockerfile language that needs no running container: `FROM scratch`, files, and configuration.
//!
//! Pure. What is beyond that part is refused with its line, and with the name of the tool that can do it.

use std::collections::BTreeMap;

/// A Dockerfile, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// The files, in order.
    pub copies: Vec<Copy>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `USER`.
    pub user: String,
    /// `WORKDIR`.
    pub workdir: String,
    /// `ENV`, in order.
    pub env: Vec<(String, String)>,
    /// `EXPOSE`: `8000/tcp`.
    pub exposed: Vec<String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
}

/// A `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The line it stands in.
    pub line: usize,
    /// The file, as written.
    pub source: String,
    /// The absolute path in the image.
    pub target: String,
    /// The mode, if `--chmod` gives one.
    pub mode: Option<u32>,
}

/// Why a Dockerfile is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DockerfileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
    /// Whether Docker could do it.
    pub docker_could: bool,
}

impl DockerfileError {
    fn wrong(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            docker_could: false,
        }
    }

    fn beyond(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
            docker_could: true,
        }
    }

    /// What to try.
    pub fn hint(&self) -> String {
        if self.docker_could {
            "k8slab assembles images `FROM scratch` without Docker; this one needs `docker build`".to_owned()
        } else {
            "instructions here: FROM scratch, COPY, ENV, LABEL, EXPOSE, USER, WORKDIR, ENTRYPOINT, CMD".to_owned()
        }
    }
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, DockerfileError> {
    let mut file = Dockerfile::default();
    let mut started = false;
    for (line, instruction) in instructions(text) {
        let (name, rest) = instruction
            .split_once(char::is_whitespace)
            .unwrap_or((&instruction, ""));
        let rest = rest.trim();
        let name = name.to_ascii_uppercase();
        match (name.as_str(), started) {
            ("FROM", false) if rest.eq_ignore_ascii_case("scratch") => started = true,
            ("FROM", false) => {
                return Err(DockerfileError::beyond(
                    line,
                    format!("`FROM {rest}` starts from another image"),
                ));
            }
            ("FROM", true) => return Err(DockerfileError::beyond(line, "a second `FROM`: several stages")),
            ("ARG", _) => return Err(DockerfileError::beyond(line, "`ARG`: build arguments")),
            (_, false) => return Err(DockerfileError::wrong(line, format!("`{name}` before `FROM`"))),
            _ => file.take(line, &name, rest)?,
        }
    }
    if !started {
        return Err(DockerfileError::wrong(1, "there is no `FROM`"));
    }
    Ok(file)
}

impl Dockerfile {
    fn take(&mut self, line: usize, name: &str, rest: &str) -> Result<(), DockerfileError> {
        if rest.is_empty() {
            return Err(DockerfileError::wrong(line, format!("`{name}` of nothing")));
        }
        match name {
            "COPY" => self.copies.push(copy(line, rest)?),
            "ENTRYPOINT" => self.entrypoint = command(line, name, rest)?,
            "CMD" => self.cmd = command(line, name, rest)?,
            "USER" => rest.clone_into(&mut self.user),
            "WORKDIR" if rest.starts_with('/') => rest.clone_into(&mut self.workdir),
            "WORKDIR" => {
                return Err(DockerfileError::wrong(
                    line,
                    format!("`WORKDIR {rest}` is not absolute"),
                ));
            }
            "ENV" => {
                for (key, value) in pairs(line, name, rest)? {
                    self.env.retain(|(present, _)| *present != key);
                    self.env.push((key, value));
                }
            }
            "LABEL" => self.labels.extend(pairs(line, name, rest)?),
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    self.exposed.push(exposed(line, port)?);
                }
            }
            "RUN" | "ADD" | "VOLUME" | "SHELL" | "HEALTHCHECK" | "ONBUILD" | "STOPSIGNAL" | "MAINTAINER" => {
                return Err(DockerfileError::beyond(
                    line,
                    format!("`{name}` is not assembled natively"),
                ));
            }
            _ => return Err(DockerfileError::wrong(line, format!("unknown instruction `{name}`"))),
        }
        Ok(())
    }
}

/// Instructions with the number of their first line: comments away, continued lines joined.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (piece, goes_on) = match line.strip_suffix('\\') {
            Some(piece) => (piece.trim_end(), true),
            None => (line, false),
        };
        let (number, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(piece);
        if goes_on {
            open = Some((number, joined));
        } else {
            found.push((number, joined));
        }
    }
    found.extend(open);
    found
}

fn copy(line: usize, rest: &str) -> Result<Copy, DockerfileError> {
    let mut mode = None;
    let mut rest = rest;
    while let Some(flagged) = rest.strip_prefix("--") {
        let (flag, after) = flagged.split_once(char::is_whitespace).unwrap_or((flagged, ""));
        match flag.split_once('=') {
            Some(("chmod", octal)) => {
                let parsed = u32::from_str_radix(octal, 8).ok().filter(|mode| *mode <= 0o7777);
                mode = Some(
                    parsed.ok_or_else(|| DockerfileError::wrong(line, format!("`{octal}` is not an octal mode")))?,
                );
            }
            _ => return Err(DockerfileError::beyond(line, format!("`COPY --{flag}`"))),
        }
        rest = after.trim_start();
    }
    let words: Vec<String> = match json_list(rest) {
        Some(words) => words,
        None => rest.split_whitespace().map(str::to_owned).collect(),
    };
    let [source, target] = &words[..] else {
        return Err(DockerfileError::beyond(
            line,
            "`COPY` of anything but one file to one path",
        ));
    };
    if source.contains(['*', '?', '[']) {
        return Err(DockerfileError::beyond(line, format!("`COPY {source}`: a pattern")));
    }
    if !target.starts_with('/') || target.split('/').any(|part| part == "..") {
        return Err(DockerfileError::wrong(
            line,
            format!("the target `{target}` is not an absolute path"),
        ));
    }
    let name = source.rsplit('/').next().unwrap_or(source);
    let target = if target.ends_with('/') {
        format!("{target}{name}")
    } else {
        target.clone()
    };
    Ok(Copy {
        line,
        source: source.clone(),
        target,
        mode,
    })
}

/// The exec form; the shell form needs a shell, and `scratch` has none.
fn command(line: usize, name: &str, rest: &str) -> Result<Vec<String>, DockerfileError> {
    let words = json_list(rest).filter(|words| !words.is_empty());
    words.ok_or_else(|| {
        DockerfileError::wrong(
            line,
            format!("`{name}` must be a list, [\"program\", …]: an image from scratch has no shell"),
        )
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        serde_json::from_str(text).ok()
    } else {
        None
    }
}

fn exposed(line: usize, port: &str) -> Result<String, DockerfileError> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let valid = number.parse::<u16>().is_ok_and(|number| number > 0) && matches!(protocol, "tcp" | "udp");
    if valid {
        Ok(format!("{number}/{protocol}"))
    } else {
        Err(DockerfileError::wrong(line, format!("`{port}` is not a port")))
    }
}

/// `KEY=value …` with quotes, or the old `KEY value`.
fn pairs(line: usize, name: &str, rest: &str) -> Result<Vec<(String, String)>, DockerfileError> {
    let fail = |what: String| DockerfileError::wrong(line, what);
    if rest.contains('$') {
        return Err(DockerfileError::beyond(line, format!("`{name}` with a variable")));
    }
    let words = words(rest).ok_or_else(|| fail(format!("`{name}`: a quote is not closed")))?;
    if !words[0].contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| fail(format!("`{name} {rest}` has no value")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let split = words
        .iter()
        .map(|word| word.split_once('=').filter(|(key, _)| !key.is_empty()));
    let pairs: Option<Vec<_>> = split
        .map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    pairs.ok_or_else(|| fail(format!("`{name} {rest}`: every word must be KEY=value")))
}

/// Words by the Dockerfile's rules of quotes and backslashes. `None` when a quote stays open; never empty otherwise.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut()?;
        match (c, quote) {
            ('\\', None | Some('"')) => word.extend(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(String::new());
                }
            }
            (c, _) => word.push(c),
        }
    }
    if words.len() > 1 && words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_part_of_the_language_is_read() {
        let file = parse(
            "# syntax=docker/dockerfile:1\nFROM scratch\n\nCOPY --chmod=0755 k8slab /bin/\nCOPY [\"a b\", \"/etc/a b\"]\n\
             ENV A=1 B=\"two words\" \\\n    C=it\\'s\nenv D old form\nLABEL x=y\nEXPOSE 8000 53/udp\nUSER 65532:65532\n\
             WORKDIR /srv\nENTRYPOINT [\"/bin/k8slab\", \"workload\"]\nCMD [\"web\"]\n",
        )
        .unwrap();
        assert_eq!(
            file.copies[0],
            Copy {
                line: 4,
                source: "k8slab".into(),
                target: "/bin/k8slab".into(),
                mode: Some(0o755)
            }
        );
        assert_eq!(file.copies[1].target, "/etc/a b");
        let env: Vec<(&str, &str)> = file.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(env, [("A", "1"), ("B", "two words"), ("C", "it's"), ("D", "old form")]);
        assert_eq!(file.exposed, ["8000/tcp", "53/udp"]);
        assert_eq!((file.user.as_str(), file.workdir.as_str()), ("65532:65532", "/srv"));
        assert_eq!(
            (file.entrypoint.len(), file.cmd.len(), file.labels["x"].as_str()),
            (2, 1, "y")
        );
    }

    #[test]
    fn what_is_beyond_it_names_its_line_and_docker() {
        for (text, said) in [
            (
                "FROM python:3.12\n",
                "line 1: `FROM python:3.12` starts from another image",
            ),
            ("FROM scratch\nRUN make\n", "line 2: `RUN` is not assembled natively"),
            (
                "FROM scratch\nFROM scratch\n",
                "line 2: a second `FROM`: several stages",
            ),
            ("ARG X\nFROM scratch\n", "line 1: `ARG`: build arguments"),
            ("FROM scratch\nCOPY --from=build /a /b\n", "line 2: `COPY --from=build`"),
            ("FROM scratch\nCOPY *.txt /b\n", "line 2: `COPY *.txt`: a pattern"),
            ("FROM scratch\nENV A=$B\n", "line 2: `ENV` with a variable"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.to_string(), said);
            assert!(error.hint().contains("docker build"), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_anywhere_names_its_line() {
        for (text, said) in [
            ("", "line 1: there is no `FROM`"),
            ("COPY a /a\n", "line 1: `COPY` before `FROM`"),
            ("FROM scratch\nCOPPY a /a\n", "line 2: unknown instruction `COPPY`"),
            (
                "FROM scratch\n\nCMD serve\n",
                "line 3: `CMD` must be a list, [\"program\", …]: an image from scratch has no shell",
            ),
            (
                "FROM scratch\nCOPY a b\n",
                "line 2: the target `b` is not an absolute path",
            ),
            (
                "FROM scratch\nCOPY a /b/../c\n",
                "line 2: the target `/b/../c` is not an absolute path",
            ),
            ("FROM scratch\nEXPOSE http\n", "line 2: `http` is not a port"),
            ("FROM scratch\nENV A=\"x\n", "line 2: `ENV`: a quote is not closed"),
            ("FROM scratch\nENV A\n", "line 2: `ENV A` has no value"),
            ("FROM scratch\nUSER\n", "line 2: `USER` of nothing"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), said);
        }
    }
}
