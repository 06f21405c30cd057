//! A container's environment: service variables, `envFrom`, `env`, in that order of precedence.
//!
//! Pure but for asking [`Inputs`] for ConfigMaps and Secrets. Source of the rules: `pkg/kubelet/kubelet_pods.go`
//! `makeEnvironmentVariables`, `pkg/kubelet/envvars` of kubernetes 1.36.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use super::downward::{self, Surroundings};
use super::expand::expand;
use super::objects::{Kind, Payload};

/// ConfigMaps and Secrets by name, as they were when the container is started; `None` where there is none.
pub(crate) type Inputs = HashMap<(Kind, String), Option<Arc<Payload>>>;

/// The variables in the order in which they are set. A name occurs once.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    inputs: &Inputs,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let config_map = source
            .config_map_ref
            .as_ref()
            .map(|from| (Kind::ConfigMap, &from.name, from.optional));
        let secret = source
            .secret_ref
            .as_ref()
            .map(|from| (Kind::Secret, &from.name, from.optional));
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            let Some(payload) = input(inputs, kind, name, optional)? else {
                continue;
            };
            for (key, value) in &payload.data {
                let name = format!("{prefix}{key}");
                if !name.is_empty() && !name.contains(['=', '\0']) {
                    variables.set(name, String::from_utf8_lossy(value).into_owned());
                }
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, |name| {
                variables.get(name).or_else(|| services.get(name)).cloned()
            })),
            (_, Some(source)) => from_source(pod, container, namespace, source, inputs, around)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            variables.set(variable.name.clone(), value);
        }
    }
    let own = |name: &&String| variables.get(name).is_none();
    let rest: Vec<_> = services.keys().filter(own).cloned().collect();
    for name in rest {
        let value = services[&name].clone();
        variables.set(name, value);
    }
    Ok(variables.list)
}

/// Keeps the order of first setting, the value of the last.
#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&String> {
        self.places.get(name).map(|place| &self.list[*place].1)
    }

    fn set(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }
}

fn input(inputs: &Inputs, kind: Kind, name: &str, optional: Option<bool>) -> Result<Option<Arc<Payload>>, String> {
    match inputs.get(&(kind, name.to_owned())).cloned().flatten() {
        Some(payload) => Ok(Some(payload)),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("{} \"{name}\" not found", kind.word())),
    }
}

fn from_source(
    pod: &Pod,
    container: &Container,
    namespace: &str,
    source: &EnvVarSource,
    inputs: &Inputs,
    around: &Surroundings,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return downward::field(pod, selector, around).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward::resource(pod, Some(&container.name), selector, around).map(Some);
    }
    let config_map = source
        .config_map_key_ref
        .as_ref()
        .map(|from| (Kind::ConfigMap, &from.name, &from.key, from.optional));
    let secret = source
        .secret_key_ref
        .as_ref()
        .map(|from| (Kind::Secret, &from.name, &from.key, from.optional));
    let Some((kind, name, key, optional)) = config_map.or(secret) else {
        return Err("an environment variable with a `valueFrom` that this node does not know".into());
    };
    let Some(payload) = input(inputs, kind, name, optional)? else {
        return Ok(None);
    };
    match payload.data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(format!("couldn't find key {key} in {} {namespace}/{name}", kind.name())),
    }
}

/// The variables that describe services: those of the pod's namespace where it wants them, and always the API server's.
pub(crate) fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let (name, of) = (
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
        );
        let api_server = of == "default" && name == "kubernetes";
        // One of the pod's own namespace hides the API server's, were it called `kubernetes` too.
        if links && of == namespace || api_server && !chosen.contains_key(name) {
            chosen.insert(name, service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let Some(first) = spec.ports.iter().flatten().next() else {
            continue;
        };
        let prefix = shout(name);
        variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                variables.insert(format!("{prefix}_SERVICE_PORT_{}", shout(name)), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (lower, number) = (protocol.to_lowercase(), port.port);
            let url = format!("{lower}://{ip}:{number}");
            if index == 0 {
                variables.insert(format!("{prefix}_PORT"), url.clone());
            }
            let long = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            variables.insert(format!("{long}_PROTO"), lower);
            variables.insert(format!("{long}_PORT"), number.to_string());
            variables.insert(format!("{long}_ADDR"), ip.to_owned());
            variables.insert(long, url);
        }
    }
    variables
}

fn shout(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn build(container: Value, inputs: &Inputs) -> Result<Vec<(String, String)>, String> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [container]}});
        let around = Surroundings {
            host_ip: [127, 0, 0, 1].into(),
            pod_ip: None,
            allocatable: Default::default(),
        };
        let services = BTreeMap::from([("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())]);
        environment(
            &serde_json::from_value(pod).unwrap(),
            &container,
            &services,
            inputs,
            &around,
        )
    }

    fn inputs() -> Inputs {
        let payload = |pairs: &[(&str, &str)]| {
            let data = pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()))
                .collect();
            Some(Arc::new(Payload {
                data,
                binary: BTreeMap::new(),
            }))
        };
        HashMap::from([
            (
                (Kind::ConfigMap, "cm".into()),
                payload(&[("COLOUR", "red"), ("SIZE", "1")]),
            ),
            ((Kind::Secret, "s".into()), payload(&[("SIZE", "2")])),
            ((Kind::ConfigMap, "gone".into()), None),
        ])
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn later_sources_win_and_values_refer_to_earlier_ones() {
        let container = json!({
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}}, {"prefix": "P_", "secretRef": {"name": "s"}}, {"secretRef": {"name": "s"}}],
            "env": [
                {"name": "GREETING", "value": "$(COLOUR)/$(SIZE)/$(LATER) at $(KUBERNETES_SERVICE_HOST)"},
                {"name": "COLOUR", "value": "blue"},
                {"name": "LATER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "SIZE"}}},
            ],
        });
        assert_eq!(
            build(container, &inputs()).unwrap(),
            pairs(&[
                ("COLOUR", "blue"),
                ("SIZE", "2"),
                ("P_SIZE", "2"),
                ("GREETING", "red/2/$(LATER) at 10.96.0.1"),
                ("LATER", "p"),
                ("KEY", "1"),
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ])
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let key = |source: Value| json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]});
        let error = |container: Value| build(container, &inputs()).unwrap_err();
        assert_eq!(
            error(key(json!({"configMapKeyRef": {"name": "cm", "key": "k"}}))),
            "couldn't find key k in ConfigMap d/cm"
        );
        assert_eq!(
            error(key(json!({"secretKeyRef": {"name": "none", "key": "k"}}))),
            "secret \"none\" not found"
        );
        assert_eq!(
            error(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]})),
            "configmap \"gone\" not found"
        );
        for source in [
            json!({"configMapKeyRef": {"name": "cm", "key": "k", "optional": true}}),
            json!({"secretKeyRef": {"name": "none", "key": "k", "optional": true}}),
        ] {
            assert_eq!(build(key(source), &inputs()).unwrap().len(), 1);
        }
    }

    #[test]
    fn services_are_described_as_docker_links_were() {
        let service = |name: &str, namespace: &str, ip: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}))
            .unwrap()
        };
        let all = [
            service("kubernetes", "default", "10.96.0.1"),
            service("my-db", "d", "10.96.0.7"),
            service("headless", "d", "None"),
        ];
        let linked = service_variables(all.iter(), "d", true);
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_DNS", "53"),
            ("MY_DB_PORT", "tcp://10.96.0.7:80"),
            ("MY_DB_PORT_53_UDP", "udp://10.96.0.7:53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_80_TCP_ADDR", "10.96.0.7"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ] {
            assert_eq!(linked.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!linked.keys().any(|name| name.starts_with("HEADLESS")));
        let alone = service_variables(all.iter(), "d", false);
        assert!(alone.keys().all(|name| name.starts_with("KUBERNETES_")));
    }
}
