//! What came of a test run, for people (lines), for CI (JUnit XML) and for programs (JSON).

use serde::Serialize;

/// A scenario's part in a run.
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    /// The scenario, with the number of the round where there are several.
    pub name: String,
    /// In the order in which they were done.
    pub cases: Vec<Case>,
}

/// Something that had to be so.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// `up`, a check, `down`.
    pub name: String,
    /// How long it took.
    pub millis: u64,
    /// Why it is not so; `None` if it is.
    pub failure: Option<String>,
}

impl Suite {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.cases.iter().all(|case| case.failure.is_none())
    }
}

/// The run as JUnit XML, in the form that CI systems read (`testsuites`, `testsuite`, `testcase`, `failure`).
pub fn junit(suites: &[Suite]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"k8slab\">\n");
    for suite in suites {
        let failures = suite.cases.iter().filter(|case| case.failure.is_some()).count();
        let name = escape(&suite.name);
        let millis = suite.cases.iter().map(|case| case.millis).sum();
        text.push_str(&format!(
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\" time=\"{}\">\n",
            suite.cases.len(),
            seconds(millis),
        ));
        for case in &suite.cases {
            let head = format!(
                "    <testcase classname=\"{name}\" name=\"{}\" time=\"{}\"",
                escape(&case.name),
                seconds(case.millis)
            );
            match &case.failure {
                None => text.push_str(&format!("{head}/>\n")),
                Some(why) => {
                    let first = escape(why.lines().next().unwrap_or_default());
                    let why = escape(why);
                    text.push_str(&format!(
                        "{head}>\n      <failure message=\"{first}\">{why}</failure>\n    </testcase>\n"
                    ));
                }
            }
        }
        text.push_str("  </testsuite>\n");
    }
    text + "</testsuites>\n"
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// XML 1.0 knows neither these characters in text nor most control characters at all.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_failures_and_escapes_what_xml_cannot_hold() {
        let suites = [Suite {
            name: "cpu-hpa".to_owned(),
            cases: vec![
                Case {
                    name: "up".to_owned(),
                    millis: 1250,
                    failure: None,
                },
                Case {
                    name: "burn: 5 < 6".to_owned(),
                    millis: 60_000,
                    failure: Some("gave up: \"a & b\"\nlast seen: \u{7}".to_owned()),
                },
            ],
        }];
        assert!(!suites[0].is_good());
        assert_eq!(
            junit(&suites),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"k8slab\">\n  \
             <testsuite name=\"cpu-hpa\" tests=\"2\" failures=\"1\" time=\"61.250\">\n    \
             <testcase classname=\"cpu-hpa\" name=\"up\" time=\"1.250\"/>\n    \
             <testcase classname=\"cpu-hpa\" name=\"burn: 5 &lt; 6\" time=\"60.000\">\n      \
             <failure message=\"gave up: &quot;a &amp; b&quot;\">gave up: &quot;a &amp; b&quot;&#10;last seen: \u{fffd}</failure>\n    \
             </testcase>\n  </testsuite>\n</testsuites>\n"
        );
    }
}
