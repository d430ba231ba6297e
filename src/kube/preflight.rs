//! Questions about the API server and our rights that only `check` asks (T6).

use serde::Deserialize;
use serde_json::json;

use super::client::{Client, Verb, object};
use super::error::Error;
use crate::metrics;
use crate::net::CONNECT_TIMEOUT;

/// The API server's own words about itself.
#[derive(Debug, Clone, Default)]
pub struct ServerVersion {
    /// `gitVersion`, such as `v1.36.0`.
    pub version: String,
    /// The header `Date` of the answer, if there is one.
    pub date: Option<String>,
}

/// One right that a rule of RBAC grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right<'a> {
    /// The verb, such as `list`.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural of the resource.
    pub resource: &'a str,
    /// The namespace; empty for the whole cluster.
    pub namespace: &'a str,
    /// The object; empty for any.
    pub name: &'a str,
}

impl Client {
    /// What `GET /version` answers.
    pub fn version(&self) -> Result<ServerVersion, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let response = self.get(metrics::Verb::Get, "/version", |request| {
            request.config().timeout_global(Some(CONNECT_TIMEOUT)).build()
        })?;
        let date = response.headers().get("date").and_then(|it| it.to_str().ok()).map(str::to_owned);
        let version: Version =
            serde_json::from_slice(&object(response)?).map_err(|error| Error::malformed("version", &error))?;
        Ok(ServerVersion { version: version.git_version, date })
    }

    /// Whether we have a right. The question needs no right of its own (SelfSubjectAccessReview) and changes nothing.
    pub fn has_right(&self, right: &Right<'_>) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Review {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            allowed: bool,
        }
        let Right { verb, group, resource, namespace, name } = right;
        let attributes =
            json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self.put_object(Verb::Create, path, &review.to_string(), CONNECT_TIMEOUT)?;
        let review: Review =
            serde_json::from_slice(&answer).map_err(|error| Error::malformed("access review", &error))?;
        Ok(review.status.allowed)
    }
}
