//! One RBAC rule: whether it allows a request, and whether it covers another rule.
//!
//! Pure. The semantics are those of kubernetes/kubernetes `pkg/apis/rbac/v1/evaluation_helpers.go` and
//! `staging/src/k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go` (v1.36).

use std::collections::BTreeMap;
use std::fmt;

use apimachinery::quote::quote;
use serde_json::{Map, Value, json};

use super::Attributes;

/// A `PolicyRule` of rbac.authorization.k8s.io/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `verbs`.
    pub verbs: Vec<String>,
    /// `apiGroups`.
    pub api_groups: Vec<String>,
    /// `resources`, a subresource as `pods/log`, of every resource as `*/scale`.
    pub resources: Vec<String>,
    /// `resourceNames`; empty means every name, and requests without one.
    pub resource_names: Vec<String>,
    /// `nonResourceURLs`, a prefix if it ends in `*`.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole; `null` and absent fields are empty.
    pub fn list(role: &Value) -> Vec<Self> {
        role["rules"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Self::parse)
            .collect()
    }

    /// One rule. What is not a string in a list of strings is left out: it can match nothing.
    pub fn parse(rule: &Value) -> Self {
        let words = |field: &str| {
            rule[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        Self {
            verbs: words("verbs"),
            api_groups: words("apiGroups"),
            resources: words("resources"),
            resource_names: words("resourceNames"),
            non_resource_urls: words("nonResourceURLs"),
        }
    }

    /// As in a Role; empty fields are left out, `verbs` is always there.
    pub fn to_value(&self) -> Value {
        let mut rule = Map::new();
        rule.insert("verbs".into(), json!(self.verbs));
        for (field, words) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !words.is_empty() {
                rule.insert(field.into(), json!(words));
            }
        }
        Value::Object(rule)
    }

    /// Everything: what only `cluster-admin` holds.
    pub fn everything() -> [Self; 2] {
        let any = || vec!["*".to_owned()];
        [
            Self {
                verbs: any(),
                api_groups: any(),
                resources: any(),
                ..Self::default()
            },
            Self {
                verbs: any(),
                non_resource_urls: any(),
                ..Self::default()
            },
        ]
    }

    /// Whether it allows this request.
    pub fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has(&self.verbs, request.verb) {
            return false;
        }
        if let Some(path) = request.path {
            return self.non_resource_urls.iter().any(|url| url_covers(url, path));
        }
        has(&self.api_groups, request.group)
            && self
                .resources
                .iter()
                .any(|own| resource_matches(own, request.resource, request.subresource))
            && (self.resource_names.is_empty()
                || request
                    .name
                    .is_some_and(|name| self.resource_names.iter().any(|own| own == name)))
    }

    /// Whether it allows everything that `part` does. `part` is one of [`Self::parts`].
    fn covers(&self, part: &Self) -> bool {
        let all = |own: &[String], other: &[String]| other.iter().all(|word| has(own, word));
        let resource = |wanted: &String| match wanted.split_once('/') {
            Some((resource, subresource)) => self
                .resources
                .iter()
                .any(|own| resource_matches(own, resource, Some(subresource))),
            None => self.resources.iter().any(|own| resource_matches(own, wanted, None)),
        };
        let names = self.resource_names.is_empty()
            || (!part.resource_names.is_empty()
                && part
                    .resource_names
                    .iter()
                    .all(|name| self.resource_names.contains(name)));
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(resource)
            && part
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|own| url_covers(own, url)))
            && names
    }

    /// The rule as rules of one verb each, on one resource (and name) or one URL.
    fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        let names: Vec<Vec<String>> = match &*self.resource_names {
            [] => vec![Vec::new()],
            names => names.iter().map(|name| vec![name.clone()]).collect(),
        };
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                let non_resource_urls = vec![url.clone()];
                parts.push(Self {
                    verbs: vec![verb.clone()],
                    non_resource_urls,
                    ..Self::default()
                });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    parts.extend(names.iter().map(|names| Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names: names.clone(),
                        non_resource_urls: Vec::new(),
                    }));
                }
            }
        }
        parts
    }
}

/// What of `wanted` the rules `held` do not allow, in the smallest parts; empty if they allow it all.
pub(super) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::parts);
    parts
        .filter(|part| !held.iter().any(|rule| rule.covers(part)))
        .collect()
}

/// Rules for the same single resource (and name) put into one, their verbs in order of appearance.
pub(super) fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut simple: BTreeMap<(String, String, Vec<String>), Rule> = BTreeMap::new();
    let mut compacted = Vec::new();
    for rule in rules {
        match (&*rule.api_groups, &*rule.resources) {
            ([group], [resource]) if rule.resource_names.len() <= 1 && rule.non_resource_urls.is_empty() => {
                let key = (group.clone(), resource.clone(), rule.resource_names.clone());
                let known = simple.entry(key).or_insert_with(|| Rule {
                    verbs: Vec::new(),
                    ..rule.clone()
                });
                for verb in rule.verbs {
                    if !known.verbs.contains(&verb) {
                        known.verbs.push(verb);
                    }
                }
            }
            _ => compacted.push(rule),
        }
    }
    compacted.extend(simple.into_values());
    compacted
}

/// As upstream prints a rule that somebody does not hold: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        let shown = fields.iter().filter(|(_, words)| !words.is_empty());
        for (index, (field, words)) in shown.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{field}:{}", Quoted(words))?;
        }
        f.write_str("}")
    }
}

/// Words as Go's `%q` prints a slice of them: `["a" "b"]`.
pub(super) struct Quoted<'a>(pub(super) &'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|word| quote(word)).collect();
        write!(f, "[{}]", words.join(" "))
    }
}

fn has(own: &[String], wanted: &str) -> bool {
    own.iter().any(|word| word == "*" || word == wanted)
}

/// `own` is the rule's; `resource` may itself name a subresource, as some clients send it in an access review.
fn resource_matches(own: &str, resource: &str, subresource: Option<&str>) -> bool {
    if own == "*" {
        return true;
    }
    match subresource {
        None => own == resource,
        Some(subresource) => own
            .split_once('/')
            .is_some_and(|(own, own_sub)| own_sub == subresource && (own == "*" || own == resource)),
    }
}

fn url_covers(own: &str, path: &str) -> bool {
    own == "*" || own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}
