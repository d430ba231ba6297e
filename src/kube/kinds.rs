//! The kinds that can be watched, as the Kubernetes API and the watchers know them. A kind needs a row here, a variant of
//! [`Kind`] in the model, and its fields in `objects`; which of them are watched is a setting (G1).

use crate::model::kubernetes::Kind;

/// What is constant about a kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// `apiVersion` of its objects.
    pub api_version: &'static str,
    /// The path of its API.
    pub api_path: &'static str,
    /// Its plural, as the last part of a path and in messages.
    pub plural: &'static str,
    /// The name of its watcher's thread; the kernel keeps the first 15 bytes.
    pub watcher: &'static str,
}

/// The row of a kind.
pub fn info(kind: Kind) -> KindInfo {
    match kind {
        Kind::Deployment => KindInfo {
            api_version: "apps/v1",
            api_path: "/apis/apps/v1",
            plural: "deployments",
            watcher: "deployment-watcher",
        },
        Kind::StatefulSet => KindInfo {
            api_version: "apps/v1",
            api_path: "/apis/apps/v1",
            plural: "statefulsets",
            watcher: "statefulset-watcher",
        },
        Kind::DaemonSet => KindInfo {
            api_version: "apps/v1",
            api_path: "/apis/apps/v1",
            plural: "daemonsets",
            watcher: "daemonset-watcher",
        },
        Kind::Pod => KindInfo { api_version: "v1", api_path: "/api/v1", plural: "pods", watcher: "pod-watcher" },
        Kind::Service => {
            KindInfo { api_version: "v1", api_path: "/api/v1", plural: "services", watcher: "service-watcher" }
        }
    }
}
