//! Decisions, refusals and escalation over a small cluster.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::*;
use crate::auth::bootstrap_policy;
use crate::auth::testing::FakeView;

fn role(kind: &str, namespace: Option<&str>, name: &str, rules: Value) -> Value {
    let mut role = json!({"kind": kind, "metadata": {"name": name}, "rules": rules});
    if let Some(namespace) = namespace {
        role["metadata"]["namespace"] = json!(namespace);
    }
    role
}

fn binding(namespace: Option<&str>, name: &str, role: (&str, &str), subject: (&str, &str)) -> Value {
    let kind = if namespace.is_some() {
        "RoleBinding"
    } else {
        "ClusterRoleBinding"
    };
    let mut binding = json!({
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1},
        "subjects": [{"kind": subject.0, "name": subject.1}],
    });
    if let Some(namespace) = namespace {
        binding["metadata"]["namespace"] = json!(namespace);
    }
    binding
}

/// Ada holds `rules` everywhere.
fn ada_with(rules: Value) -> FakeView {
    FakeView::new([
        role("ClusterRole", None, "r", rules),
        binding(None, "b", ("ClusterRole", "r"), ("User", "ada")),
    ])
}

fn ada() -> Identity {
    Identity::new("ada", ["devs"])
}

fn pods(verb: &str) -> Attributes<'_> {
    Attributes {
        verb,
        resource: "pods",
        ..Attributes::default()
    }
}

fn allowed(view: &FakeView, request: Attributes<'_>) -> bool {
    authorize(view, &ada(), &request).is_allowed()
}

#[test]
fn a_rule_allows_its_verbs_on_its_resources_in_its_groups() {
    let view =
        ada_with(json!([{"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "pods/log"]}]));
    assert!(allowed(&view, pods("get").in_namespace(Some("shop")).named(Some("x"))));
    assert!(allowed(&view, pods("list")));
    assert!(allowed(
        &view,
        Attributes {
            subresource: Some("log"),
            ..pods("get")
        }
    ));
    assert!(allowed(
        &view,
        Attributes {
            group: "apps",
            ..pods("get")
        }
    ));
    assert!(!allowed(&view, pods("watch")));
    assert!(!allowed(
        &view,
        Attributes {
            subresource: Some("exec"),
            ..pods("get")
        }
    ));
    assert!(!allowed(
        &view,
        Attributes {
            group: "batch",
            ..pods("get")
        }
    ));
    assert!(!allowed(
        &view,
        Attributes {
            resource: "secrets",
            ..pods("get")
        }
    ));
    assert!(!authorize(&view, &Identity::new("bob", ["devs"]), &pods("get")).is_allowed());
}

#[test]
fn stars_match_everything_and_a_resource_does_not_match_its_subresources() {
    let everything = ada_with(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
    assert!(allowed(
        &everything,
        Attributes {
            subresource: Some("exec"),
            group: "any",
            ..pods("create")
        }
    ));
    assert!(!allowed(&everything, Attributes::on_path("get", "/metrics")));
    let scales = ada_with(json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}]));
    assert!(allowed(
        &scales,
        Attributes {
            subresource: Some("scale"),
            group: "apps",
            ..pods("get")
        }
    ));
    assert!(!allowed(&scales, pods("get")));
    assert!(!allowed(
        &scales,
        Attributes {
            subresource: Some("status"),
            ..pods("get")
        }
    ));
    // As prometheus-operator asks.
    let literal = ada_with(json!([{"verbs": ["update"], "apiGroups": [""], "resources": ["pods/status"]}]));
    assert!(allowed(
        &literal,
        Attributes {
            resource: "pods/status",
            ..pods("update")
        }
    ));
}

#[test]
fn names_narrow_a_rule_to_requests_that_have_one() {
    let view = ada_with(json!([{
        "verbs": ["get", "list", "create"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"],
    }]));
    assert!(allowed(&view, pods("get").named(Some("x"))));
    assert!(allowed(&view, pods("list").named(Some("x"))));
    assert!(!allowed(&view, pods("get").named(Some("y"))));
    assert!(!allowed(&view, pods("list")));
    assert!(!allowed(&view, pods("create")));
}

#[test]
fn paths_match_exactly_or_by_prefix() {
    let view = ada_with(json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/apis/*"]}]));
    assert!(allowed(&view, Attributes::on_path("get", "/metrics")));
    assert!(allowed(&view, Attributes::on_path("get", "/apis/apps")));
    assert!(!allowed(&view, Attributes::on_path("get", "/metrics/slis")));
    assert!(!allowed(&view, Attributes::on_path("get", "/apis")));
    assert!(!allowed(&view, Attributes::on_path("post", "/metrics")));
}

#[test]
fn a_role_binding_counts_in_its_namespace_only() {
    let rules = json!([
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["get"], "nonResourceURLs": ["*"]},
    ]);
    let view = FakeView::new([
        role("Role", Some("shop"), "r", rules.clone()),
        role("ClusterRole", None, "c", rules),
        binding(Some("shop"), "b", ("Role", "r"), ("Group", "devs")),
        binding(Some("bank"), "b", ("ClusterRole", "c"), ("User", "ada")),
    ]);
    assert!(allowed(&view, pods("get").in_namespace(Some("shop"))));
    assert!(allowed(&view, pods("get").in_namespace(Some("bank"))));
    assert!(!allowed(&view, pods("get").in_namespace(Some("park"))));
    assert!(!allowed(&view, pods("get")));
    assert!(!allowed(&view, Attributes::on_path("get", "/metrics")));
}

#[test]
fn a_service_account_subject_is_in_the_bindings_namespace_unless_it_says_another() {
    let mut elsewhere = binding(Some("shop"), "b2", ("ClusterRole", "c"), ("ServiceAccount", "job"));
    elsewhere["subjects"][0]["namespace"] = json!("bank");
    let view = FakeView::new([
        role(
            "ClusterRole",
            None,
            "c",
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
        ),
        binding(Some("shop"), "b", ("ClusterRole", "c"), ("ServiceAccount", "web")),
        elsewhere,
    ]);
    let request = pods("get").in_namespace(Some("shop"));
    assert!(authorize(&view, &Identity::service_account("shop", "web"), &request).is_allowed());
    assert!(authorize(&view, &Identity::service_account("bank", "job"), &request).is_allowed());
    assert!(!authorize(&view, &Identity::service_account("bank", "web"), &request).is_allowed());
}

#[test]
fn an_allowed_request_knows_why() {
    let view = ada_with(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
    let Decision::Allow { reason } = authorize(&view, &ada(), &pods("get")) else {
        panic!("expected Allow")
    };
    assert_eq!(
        reason,
        r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "ada""#
    );
}

#[test]
fn a_refusal_is_worded_as_upstreams() {
    let view = FakeView::new([binding(None, "b", ("ClusterRole", "gone"), ("User", "ada"))]);
    let refuse = |request: Attributes<'_>| {
        Authorizer::default()
            .require(&view, &ada(), &request)
            .unwrap_err()
            .message
    };
    let why = r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(
        refuse(pods("get").in_namespace(Some("shop")).named(Some("x"))),
        format!(
            r#"pods "x" is forbidden: User "ada" cannot get resource "pods" in API group "" in the namespace "shop": {why}"#
        )
    );
    let bob = Identity::new("<bob>", [""; 0]);
    let refuse = |request: Attributes<'_>| {
        Authorizer::default()
            .require(&view, &bob, &request)
            .unwrap_err()
            .message
    };
    assert_eq!(
        refuse(Attributes {
            group: "apps",
            resource: "deployments",
            subresource: Some("scale"),
            ..pods("list")
        }),
        r#"deployments.apps is forbidden: User "&lt;bob&gt;" cannot list resource "deployments/scale" in API group "apps" at the cluster scope"#
    );
    assert_eq!(
        refuse(Attributes::on_path("get", "/metrics")),
        r#"forbidden: User "&lt;bob&gt;" cannot get path "/metrics""#
    );
}

#[test]
fn masters_may_do_everything_in_a_cluster_without_roles() {
    let admin = Identity::new("admin", ["system:masters"]);
    assert!(authorize(&FakeView::default(), &admin, &pods("delete")).is_allowed());
}

#[test]
fn an_aggregated_role_has_the_rules_of_the_roles_it_selects() {
    let mut view = FakeView::new(bootstrap_policy());
    view.put(binding(Some("shop"), "b", ("ClusterRole", "admin"), ("User", "ada")));
    let widgets = Attributes {
        group: "example.org",
        resource: "widgets",
        ..pods("list")
    }
    .in_namespace(Some("shop"));
    assert!(allowed(&view, pods("delete").in_namespace(Some("shop"))));
    assert!(!allowed(&view, widgets));
    // A chart brings a role that `view` collects, which `edit` collects, which `admin` collects.
    let mut part = role(
        "ClusterRole",
        None,
        "widgets-view",
        json!([{"verbs": ["list"], "apiGroups": ["example.org"], "resources": ["widgets"]}]),
    );
    part["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    view.put(part);
    assert!(allowed(&view, widgets));
}

#[test]
fn roles_that_collect_each_other_end() {
    let collecting = |name: &str, other: &str| {
        json!({"kind": "ClusterRole", "metadata": {"name": name, "labels": {"l": name}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"l": other}}]}})
    };
    let view = FakeView::new([collecting("a", "b"), collecting("b", "a")]);
    assert_eq!(aggregated_rules(&view, &collecting("a", "b")), Some(Vec::new()));
}

#[test]
fn the_policy_is_read_again_only_after_a_change() {
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    let mut view = ada_with(rules).counting();
    let authorizer = Authorizer::default();
    assert!(authorizer.authorize(&view, &ada(), &pods("get")).is_allowed());
    let lists = view.lists.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert!(!authorizer.authorize(&view, &ada(), &pods("list")).is_allowed());
    }
    assert_eq!(view.lists.load(Ordering::Relaxed), lists);
    view.put(role(
        "ClusterRole",
        None,
        "r",
        json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]),
    ));
    assert!(authorizer.authorize(&view, &ada(), &pods("list")).is_allowed());
    assert!(!authorizer.authorize(&view, &ada(), &pods("get")).is_allowed());
}

#[test]
fn a_view_that_does_not_count_is_compared() {
    let mut view = ada_with(json!([]));
    let authorizer = Authorizer::default();
    assert!(!authorizer.authorize(&view, &ada(), &pods("get")).is_allowed());
    view.put(role(
        "ClusterRole",
        None,
        "r",
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
    ));
    assert!(authorizer.authorize(&view, &ada(), &pods("get")).is_allowed());
}

mod escalation {
    use super::*;

    fn cluster_roles() -> GroupResource {
        GroupResource::new("rbac.authorization.k8s.io", "clusterroles")
    }

    fn role_bindings() -> GroupResource {
        GroupResource::new("rbac.authorization.k8s.io", "rolebindings")
    }

    fn write(view: &FakeView, role: &Value, old: Option<&Value>) -> Result<(), String> {
        check_role(&Authorizer::default(), view, &ada(), &cluster_roles(), role, old).map_err(|error| error.message)
    }

    #[test]
    fn what_you_hold_you_may_give() {
        let view = ada_with(json!([{"verbs": ["get", "list"], "apiGroups": ["*"], "resources": ["pods", "*/scale"]}]));
        for rules in [
            json!([{"verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods"]}]),
            json!([{"verbs": ["list"], "apiGroups": ["apps"], "resources": ["deployments/scale"]}]),
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x", "y"]}]),
            json!([]),
        ] {
            assert_eq!(write(&view, &role("ClusterRole", None, "new", rules), None), Ok(()));
        }
    }

    #[test]
    fn what_you_do_not_hold_is_named() {
        let view = ada_with(json!([
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]},
        ]));
        let rules = json!([
            {"verbs": ["get", "list", "delete"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        ]);
        assert_eq!(
            write(&view, &role("ClusterRole", None, "new", rules), None).unwrap_err(),
            "clusterroles.rbac.authorization.k8s.io \"new\" is forbidden: user \"ada\" (groups=[\"devs\" \
             \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"delete\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
    }

    #[test]
    fn unchanged_rules_and_the_verb_escalate_need_no_holding() {
        let more = role(
            "ClusterRole",
            None,
            "new",
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
        );
        let mut relabelled = more.clone();
        relabelled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(write(&ada_with(json!([])), &relabelled, Some(&more)), Ok(()));
        let escalate = json!([{
            "verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        }]);
        assert_eq!(write(&ada_with(escalate), &more, None), Ok(()));
        assert!(write(&ada_with(json!([])), &more, None).is_err());
    }

    #[test]
    fn an_aggregated_role_is_for_who_holds_everything() {
        let mut collecting = role("ClusterRole", None, "new", json!([]));
        collecting["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        let resources = json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"]}]);
        let error = write(&ada_with(resources), &collecting, None).unwrap_err();
        assert!(
            error.ends_with("must have cluster-admin privileges to use the aggregationRule"),
            "{error}"
        );
        let everything = Rule::everything().map(|rule| rule.to_value());
        assert_eq!(write(&ada_with(json!(everything)), &collecting, None), Ok(()));
    }

    #[test]
    fn a_binding_gives_what_its_role_holds() {
        let held = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let more = json!([{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}]);
        let view = ada_with(held.clone())
            .with(role("ClusterRole", None, "same", held))
            .with(role("Role", Some("shop"), "more", more.clone()))
            .with(role("ClusterRole", None, "bindable", more))
            .with(role(
                "ClusterRole",
                None,
                "binder",
                json!([{
                    "verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
                    "resourceNames": ["bindable"],
                }]),
            ))
            .with(binding(
                Some("shop"),
                "binder",
                ("ClusterRole", "binder"),
                ("User", "ada"),
            ));
        let check = |binding: &Value, old| {
            check_binding(&Authorizer::default(), &view, &ada(), &role_bindings(), binding, old)
                .map_err(|error| (error.code, error.message))
        };
        let to_bob = |role| binding(Some("shop"), "bob", role, ("User", "bob"));
        assert_eq!(check(&to_bob(("ClusterRole", "same")), None), Ok(()));
        assert_eq!(check(&to_bob(("ClusterRole", "bindable")), None), Ok(()));
        let refused = to_bob(("Role", "more"));
        let (code, message) = check(&refused, None).unwrap_err();
        assert_eq!(code, 403);
        assert!(
            message.ends_with(r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#),
            "{message}"
        );
        assert_eq!(check(&refused, Some(&refused)), Ok(()));
        let (code, message) = check(&to_bob(("ClusterRole", "gone")), None).unwrap_err();
        assert_eq!(
            (code, &*message),
            (404, r#"clusterroles.rbac.authorization.k8s.io "gone" not found"#)
        );
    }
}
