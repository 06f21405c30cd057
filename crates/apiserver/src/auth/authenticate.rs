//! Who sent this request?
//!
//! Owns the order of proofs: a client certificate, then a bearer token, then nobody; and acting as somebody else
//! (`Impersonate-*`). A proof that is wrong is a 401, never anonymous. Must not know what anybody may do, except ask
//! whether they may impersonate.

use std::collections::BTreeMap;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::{
    ANONYMOUS, AUTHENTICATED, Identity, SERVICE_ACCOUNTS, UNAUTHENTICATED, split_service_account_user,
};
use super::pki::Pki;
use super::rbac::{Attributes, Authorizer};
use crate::store::View;

/// Whom the request's proofs show: the peer's certificate, an `Authorization: Bearer` token of a ServiceAccount, or
/// nobody (anonymous). A certificate that our CA did not sign or that has ended, and a token that is not valid, are
/// 401.
pub fn authenticate(
    peer_cert_der: Option<&[u8]>,
    headers: &HeaderMap,
    view: &dyn View,
    pki: &Pki,
    now: Timestamp,
) -> Result<Identity, Status> {
    let certificate = peer_cert_der.map(|der| by_certificate(der, pki, now));
    if let Some(Some(identity)) = certificate {
        return Ok(identity);
    }
    if let Some(token) = bearer_token(headers) {
        return match pki.signer().authenticate(token, &[pki.signer().issuer()], view, now) {
            Ok(authenticated) => Ok(authenticated.identity),
            Err(error) => {
                tracing::debug!(%error, "refused a bearer token");
                Err(Status::unauthorized())
            }
        };
    }
    match certificate {
        Some(_) => Err(Status::unauthorized()),
        None => Ok(Identity::anonymous()),
    }
}

/// The subject of a client certificate: common name = user, organizations = groups.
fn by_certificate(der: &[u8], pki: &Pki, now: Timestamp) -> Option<Identity> {
    let verified = pki
        .certificates()
        .get_or_verify(der, || verify_certificate(der, pki, now));
    match verified {
        Ok(proved) if now <= proved.until => Some(proved.identity.clone()),
        Ok(proved) => {
            tracing::debug!(until = %proved.until, "refused a client certificate that has ended");
            None
        }
        Err(error) => {
            tracing::debug!(error, "refused a client certificate");
            None
        }
    }
}

/// Whom a client certificate of ours proves, until it ends.
#[derive(Debug)]
pub(super) struct Proved {
    identity: Identity,
    until: Timestamp,
}

fn verify_certificate(der: &[u8], pki: &Pki, now: Timestamp) -> Result<Proved, String> {
    let since_1970 = std::time::Duration::from_secs(now.as_second().try_into().unwrap_or_default());
    pki.client_verifier()
        .verify_client_cert(&CertificateDer::from(der), &[], UnixTime::since_unix_epoch(since_1970))
        .map_err(|error| error.to_string())?;
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let user = cert
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    if user.is_empty() {
        return Err("expected a common name".to_owned());
    }
    let groups = cert
        .subject()
        .iter_organization()
        .filter_map(|group| group.as_str().ok());
    let until = Timestamp::from_second(cert.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    Ok(Proved {
        identity: Identity::new(user, groups),
        until,
    })
}

/// The token of `Authorization: Bearer …`; other schemes are none of ours and count as no proof.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// As whom the request is to be handled: `identity` itself, or the one its `Impersonate-*` headers name if `identity`
/// may impersonate each part of it (user or ServiceAccount, groups, uid, extra). The headers mean nothing afterwards.
pub fn impersonate(
    authorizer: &Authorizer,
    view: &dyn View,
    identity: Identity,
    headers: &HeaderMap,
) -> Result<Identity, Status> {
    let Some(wanted) = Wanted::of(headers)? else {
        return Ok(identity);
    };
    let may = |group: &str, resource: &str, subresource, namespace, name: &str| {
        let resource = GroupResource::new(group, resource);
        let request = Attributes {
            subresource,
            ..Attributes::on("impersonate", &resource)
        };
        authorizer.require(view, &identity, &request.in_namespace(namespace).named(Some(name)))
    };
    let service_account = split_service_account_user(&wanted.user);
    match service_account {
        Some((namespace, name)) => may("", "serviceaccounts", None, Some(namespace), name)?,
        None => may("", "users", None, None, &wanted.user)?,
    }
    for group in &wanted.groups {
        may("", "groups", None, None, group)?;
    }
    if let Some(uid) = &wanted.uid {
        may("authentication.k8s.io", "uids", None, None, uid)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may("authentication.k8s.io", "userextras", Some(key), None, value)?;
        }
    }
    let mut acting = Identity {
        user: wanted.user,
        uid: wanted.uid,
        groups: wanted.groups,
        extra: wanted.extra,
    };
    if acting.groups.is_empty()
        && let Some((namespace, _)) = split_service_account_user(&acting.user)
    {
        acting.groups = vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
    }
    let group = if acting.user == ANONYMOUS {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !(acting.is_in(AUTHENTICATED) || acting.is_in(UNAUTHENTICATED)) {
        acting.add_group(group);
    }
    Ok(acting)
}

/// What the `Impersonate-*` headers say.
struct Wanted {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        const EXTRA: &str = "impersonate-extra-";
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let first = |name: &str| headers.get(name).map(text).filter(|value| !value.is_empty());
        let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
        let uid = first("impersonate-uid");
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
                extra.entry(key).or_default().push(text(value));
            }
        }
        match first("impersonate-user") {
            Some(user) => Ok(Some(Self {
                user,
                uid,
                groups,
                extra,
            })),
            None if groups.is_empty() && uid.is_none() && extra.is_empty() => Ok(None),
            None => Err(Status::internal(
                "requested impersonation of a group, a uid or extra, without a user",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::status::Reason;
    use http::{HeaderName, HeaderValue};
    use jiff::SignedDuration;
    use rustls::pki_types::pem::PemObject as _;
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{FakeView, noon};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn certificate(pki: &Pki, user: &str, organizations: &[&str]) -> Vec<u8> {
        let issued = pki.issue_client(user, organizations, noon()).unwrap();
        CertificateDer::from_pem_slice(issued.cert_pem.as_bytes())
            .unwrap()
            .to_vec()
    }

    #[test]
    fn a_certificate_of_our_ca_shows_user_and_groups() {
        let pki = Pki::in_memory(noon()).unwrap();
        let der = certificate(&pki, "system:node:lab", &["system:nodes", "extra"]);
        let identity = authenticate(Some(&der), &HeaderMap::new(), &FakeView::default(), &pki, noon()).unwrap();
        assert_eq!(identity, Identity::new("system:node:lab", ["system:nodes", "extra"]));
    }

    #[test]
    fn a_certificate_of_another_ca_or_past_its_time_or_of_the_server_is_401() {
        let pki = Pki::in_memory(noon()).unwrap();
        let other = Pki::in_memory(noon()).unwrap();
        let foreign = certificate(&other, "ada", &["system:masters"]);
        let own = certificate(&pki, "ada", &[]);
        let serving = CertificateDer::from_pem_slice(pki.serving_pem().as_bytes())
            .unwrap()
            .to_vec();
        let next_year = noon() + SignedDuration::from_hours(366 * 24);
        for (der, now) in [
            (&foreign, noon()),
            (&own, next_year),
            (&serving, noon()),
            (&b"junk".to_vec(), noon()),
        ] {
            let error = authenticate(Some(der), &HeaderMap::new(), &FakeView::default(), &pki, now).unwrap_err();
            assert!(error.is(Reason::Unauthorized));
        }
    }

    #[test]
    fn no_proof_is_anonymous_and_a_bad_token_is_not() {
        let pki = Pki::in_memory(noon()).unwrap();
        let view = FakeView::default();
        let of = |headers: &HeaderMap| authenticate(None, headers, &view, &pki, noon());
        assert_eq!(of(&HeaderMap::new()).unwrap(), Identity::anonymous());
        assert_eq!(
            of(&headers(&[("authorization", "Basic YTpi")])).unwrap(),
            Identity::anonymous()
        );
        for value in ["Bearer nonsense", "bearer a.b.c"] {
            assert!(
                of(&headers(&[("authorization", value)]))
                    .unwrap_err()
                    .is(Reason::Unauthorized)
            );
        }
    }

    fn impersonators() -> FakeView {
        FakeView::new([
            json!({"kind": "ClusterRole", "metadata": {"name": "actor"}, "rules": [
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ada"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"]},
                {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
            ]}),
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "actor"},
                "roleRef": {"kind": "ClusterRole", "name": "actor"}, "subjects": [{"kind": "User", "name": "eve"}]}),
        ])
    }

    #[test]
    fn impersonation_takes_over_user_groups_and_extra() {
        let (view, authorizer) = (impersonators(), Authorizer::default());
        let acting = impersonate(
            &authorizer,
            &view,
            Identity::new("eve", ["x"]),
            &headers(&[
                ("impersonate-user", "ada"),
                ("impersonate-group", "devs"),
                ("impersonate-group", "ops"),
                ("impersonate-extra-scopes", "view"),
            ]),
        )
        .unwrap();
        let mut expected = Identity::new("ada", ["devs", "ops"]);
        expected.extra.insert("scopes".into(), vec!["view".into()]);
        assert_eq!(acting, expected);
    }

    #[test]
    fn impersonation_is_refused_part_by_part() {
        let (view, authorizer) = (impersonators(), Authorizer::default());
        let act = |pairs: &[(&'static str, &str)]| {
            impersonate(&authorizer, &view, Identity::new("eve", ["x"]), &headers(pairs)).map_err(|e| e.message)
        };
        assert_eq!(
            act(&[("impersonate-user", "bob")]).unwrap_err(),
            r#"users "bob" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(
            act(&[("impersonate-user", "system:serviceaccount:shop:web")]).unwrap_err(),
            r#"serviceaccounts "web" is forbidden: User "eve" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "shop""#
        );
        assert!(act(&[("impersonate-user", "ada"), ("impersonate-uid", "7")]).is_err());
        assert!(act(&[("impersonate-group", "devs")]).is_err());
        assert_eq!(act(&[]).unwrap(), Identity::new("eve", ["x"]));
    }

    #[test]
    fn a_master_may_act_as_a_service_account_and_gets_its_groups() {
        let acting = impersonate(
            &Authorizer::default(),
            &FakeView::default(),
            Identity::new("admin", ["system:masters"]),
            &headers(&[("impersonate-user", "system:serviceaccount:shop:web")]),
        );
        assert_eq!(acting.unwrap(), Identity::service_account("shop", "web"));
    }
}
