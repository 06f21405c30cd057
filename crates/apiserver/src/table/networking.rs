//! networking.k8s.io.

use serde_json::Value;

use super::cell::{NONE, age, name, selector, text_or};
use super::service::load_balancer;
use super::{AGE, Column, NAME, Printer};
use crate::strategy::walk::{at, has, list, text};

pub(super) static INGRESS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Class", "Whose Ingress it is."),
        Column::text("Hosts", "Hosts it is for."),
        Column::text("Address", "Where it can be reached."),
        Column::text("Ports", "On which ports."),
        AGE,
    ],
    cells: |ingress, now| {
        let ports = if has(ingress, &["spec", "tls"]) {
            "80, 443"
        } else {
            "80"
        };
        vec![
            name(ingress),
            text_or(ingress, &["spec", "ingressClassName"], NONE),
            hosts(ingress).into(),
            load_balancer(ingress).into(),
            ports.into(),
            age(ingress, now),
        ]
    },
};

pub(super) static INGRESS_CLASS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Controller", "Who serves the class."),
        Column::text("Parameters", "Where more is said about it."),
        AGE,
    ],
    cells: |class, now| {
        let parameters = at(class, &["spec", "parameters"]).map(|parameters| {
            let group = text(parameters, &["apiGroup"]);
            let dot = if group.is_empty() { "" } else { "." };
            format!(
                "{}{dot}{group}/{}",
                text(parameters, &["kind"]),
                text(parameters, &["name"])
            )
        });
        vec![
            with_default(class, "ingressclass.kubernetes.io/is-default-class"),
            text(class, &["spec", "controller"]).into(),
            parameters.unwrap_or_else(|| NONE.to_owned()).into(),
            age(class, now),
        ]
    },
};

pub(super) static NETWORK_POLICY: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Pod-Selector", "Labels of the Pods it is about."),
        AGE,
    ],
    cells: |policy, now| {
        vec![
            name(policy),
            selector(policy, &["spec", "podSelector"]).into(),
            age(policy, now),
        ]
    },
};

pub(super) static IP_ADDRESS: Printer = Printer {
    columns: &[NAME, Column::text("ParentRef", "Who has the address."), AGE],
    cells: |address, now| {
        let parent = at(address, &["spec", "parentRef"]).map(|parent| {
            let mut path = text(parent, &["resource"]).to_owned();
            let parts = [(".", "group"), ("/", "namespace"), ("/", "name")];
            for (separator, part) in parts.map(|(separator, key)| (separator, text(parent, &[key]))) {
                if !part.is_empty() {
                    path.push_str(separator);
                    path.push_str(part);
                }
            }
            path
        });
        vec![
            name(address),
            parent.unwrap_or_else(|| NONE.to_owned()).into(),
            age(address, now),
        ]
    },
};

pub(super) static SERVICE_CIDR: Printer = Printer {
    columns: &[NAME, Column::text("CIDRs", "Ranges of addresses for Services."), AGE],
    cells: |range, now| {
        let ranges: Vec<&str> = list(range, &["spec", "cidrs"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        vec![name(range), ranges.join(",").into(), age(range, now)]
    },
};

/// The name, marked if the annotation says that it is the default.
pub(super) fn with_default(class: &Value, annotation: &str) -> Value {
    match text(class, &["metadata", "annotations", annotation]) {
        "true" => format!("{} (default)", text(class, &["metadata", "name"])).into(),
        _ => name(class),
    }
}

/// How many rules are looked at for their hosts.
const SHOWN: usize = 3;

fn hosts(ingress: &Value) -> String {
    let rules = list(ingress, &["spec", "rules"]);
    let named: Vec<&str> = rules
        .iter()
        .map(|rule| text(rule, &["host"]))
        .filter(|host| !host.is_empty())
        .collect();
    if named.is_empty() {
        return "*".to_owned();
    }
    let shown = named[..named.len().min(SHOWN)].join(",");
    // Upstream counts rules, named or not, once three hosts are shown.
    let after_third = rules.iter().scan(0, |seen, rule| {
        let full = *seen == SHOWN;
        *seen += usize::from(has(rule, &["host"]));
        Some(full)
    });
    if after_third.into_iter().any(|full| full) {
        format!("{shown} + {} more...", rules.len() - SHOWN)
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::testing::row;

    #[test]
    fn an_ingress_shows_its_hosts() {
        let mut ingress = json!({"metadata": {"name": "i"}, "spec": {"tls": [{}], "rules": [{"host": "a"}, {"host": "b"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
        assert_eq!(
            row(&INGRESS, &ingress)[..5],
            ["i", "<none>", "a,b", "10.0.0.1", "80, 443"]
        );
        ingress["spec"]["rules"] = json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {"host": "e"}]);
        assert_eq!(row(&INGRESS, &ingress)[2], "a,b,c + 2 more...");
        ingress["spec"]["rules"] = json!([{}]);
        assert_eq!(row(&INGRESS, &ingress)[2], "*");
    }

    #[test]
    fn an_empty_selector_selects_everything_and_shows_nothing() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}}});
        assert_eq!(row(&NETWORK_POLICY, &policy)[1], "<none>");
    }

    #[test]
    fn an_address_names_its_owner() {
        let address = json!({"metadata": {"name": "10.96.0.1"}, "spec": {"parentRef": {
            "resource": "services", "namespace": "default", "name": "kubernetes"}}});
        assert_eq!(row(&IP_ADDRESS, &address)[1], "services/default/kubernetes");
    }
}
