//! What the status server answers: health for probes, the state as a page and as JSON, and metrics. Everything is read
//! from the latest snapshot; no answer changes anything, and none holds a secret (T1, T2).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::request::Request;
use super::server::Response;
use super::snapshot::{Publisher, Snapshot};
use super::{json, metrics, page};

/// One condition of a health endpoint.
struct Check {
    name: &'static str,
    failure: Option<&'static str>,
}

/// A state as JSON is large from this size on, and is then sent to all who ask within this time. Clients that do not read
/// keep it in memory until the server gives them up.
const LARGE: usize = 256 << 10;
const SHARED_FOR: Duration = Duration::from_secs(1);

/// The last large state as JSON, and when it was made.
#[derive(Debug, Default)]
pub struct Large(Mutex<Option<(Instant, Arc<Vec<u8>>)>>);

impl Large {
    /// The last one while it is shared, or another one. One at a time is made.
    fn get_or(&self, make: impl FnOnce() -> String) -> Arc<Vec<u8>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, body)) = last.as_ref().filter(|(made, _)| made.elapsed() < SHARED_FOR) {
            return body.clone();
        }
        let body = Arc::new(make().into_bytes());
        *last = Some((Instant::now(), body.clone())).filter(|_| body.len() >= LARGE);
        body
    }
}

/// Answers one request.
pub fn answer(request: &Request, publisher: &Publisher, large: &Large) -> Response {
    let snapshot = publisher.latest();
    match request.path.as_str() {
        "/livez" | "/healthz" => health(request, "livez", &liveness(publisher)),
        "/readyz" => health(request, "readyz", &readiness(&snapshot)),
        "/" => page::answer(request, publisher),
        "/status.json" => {
            let body = large.get_or(|| json::status(publisher.identity(), &snapshot));
            Response { body, ..Response::new(200, "application/json", Vec::new()) }
        }
        "/metrics" => Response::new(200, metrics::CONTENT_TYPE, metrics::exposition(publisher.identity(), &snapshot)),
        _ => Response::text(404, "not found; there are /, /livez, /healthz, /readyz, /metrics and /status.json\n"),
    }
}

/// A handler for the server.
pub fn handler(publisher: Publisher) -> Arc<super::server::Handler> {
    let large = Large::default();
    Arc::new(move |request| answer(request, &publisher, &large))
}

/// Alive while the event loop makes progress, with or without peers.
fn liveness(publisher: &Publisher) -> [Check; 1] {
    [Check { name: "event-loop", failure: publisher.is_stalled().then_some("no progress for 60 s") }]
}

/// Ready if the view of the cluster is complete and, on the leader, the first full sync of a session is over. A standby is
/// ready, or a rollout would wait for ever.
fn readiness(snapshot: &Snapshot) -> [Check; 3] {
    let kubernetes = (!snapshot.incomplete.is_empty()).then_some("the view of the cluster is incomplete");
    let session = (snapshot.leader && snapshot.controller.is_none()).then_some("no session");
    let is_first = snapshot.leader && !snapshot.synced;
    [
        Check { name: "kubernetes", failure: kubernetes },
        Check { name: "apic", failure: session },
        Check { name: "full-sync", failure: is_first.then_some("the first full sync is not over") },
    ]
}

/// As Kubernetes' own components answer.
fn health(request: &Request, name: &str, checks: &[Check]) -> Response {
    let failed = checks.iter().any(|check| check.failure.is_some());
    let status = if failed { 503 } else { 200 };
    if !failed && request.parameter("verbose").is_none() {
        return Response::text(status, "ok");
    }
    let mut text = String::new();
    for Check { name, failure } in checks {
        text += &match failure {
            None => format!("[+]{name} ok\n"),
            Some(failure) => format!("[-]{name} failed: {failure}\n"),
        };
    }
    text += &format!("{name} check {}\n", if failed { "failed" } else { "passed" });
    Response::text(status, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kubernetes::Kind;
    use crate::status::service_manager::ServiceManager;
    use crate::status::snapshot::Identity;

    fn get(publisher: &Publisher, target: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { path: path.to_owned(), query: query.to_owned(), head_only: false };
        let response = answer(&request, publisher, &Large::default());
        (response.status, String::from_utf8(response.body.to_vec()).unwrap())
    }

    /// T3: liveness depends on no peer, readiness on the views and, for the leader, on the session.
    #[test]
    fn health_endpoints() {
        let identity = Identity { kinds: Kind::DEFAULT.to_vec(), ..Identity::default() };
        let publisher = Publisher::new(identity, ServiceManager::default());
        assert_eq!(get(&publisher, "/livez"), (200, "ok".to_owned()));
        assert_eq!(get(&publisher, "/healthz?verbose"), (200, "[+]event-loop ok\nlivez check passed\n".to_owned()));
        assert_eq!(get(&publisher, "/readyz").0, 503, "nothing was listed yet");
        let snapshot = |leader, controller: Option<&str>, synced, incomplete: &[Kind]| Snapshot {
            leader,
            controller: controller.map(str::to_owned),
            synced,
            incomplete: incomplete.to_vec(),
            ..Snapshot::empty()
        };
        for (snapshot, ready) in [
            (snapshot(false, None, false, &[]), true),
            (snapshot(true, None, true, &[]), false),
            (snapshot(true, Some("apic1"), false, &[]), false),
            (snapshot(true, Some("apic1"), true, &[]), true),
            (snapshot(true, Some("apic1"), true, &[Kind::Pod]), false),
        ] {
            let text = format!("{snapshot:?}");
            publisher.publish(snapshot);
            assert_eq!(get(&publisher, "/readyz").0 == 200, ready, "{text}");
        }
        publisher.set_stalled(true);
        let (status, text) = get(&publisher, "/livez");
        assert_eq!((status, text.as_str()), (503, "[-]event-loop failed: no progress for 60 s\nlivez check failed\n"));
        assert_eq!(get(&publisher, "/../etc/passwd").0, 404);
    }

    /// T2: a large state is made once for all who ask at the same time, a small one for each.
    #[test]
    fn a_large_state_is_shared() {
        let large = Large::default();
        let of = |size: usize, first: &str| large.get_or(|| first.repeat(size));
        assert_eq!((of(LARGE - 1, "a")[0], of(LARGE, "b")[0], of(LARGE, "c")[0]), (b'a', b'b', b'b'));
        assert!(Arc::ptr_eq(&of(1, "d"), &of(1, "e")));
        let made = Instant::now().checked_sub(SHARED_FOR).unwrap();
        large.0.lock().unwrap().as_mut().unwrap().0 = made;
        assert_eq!(of(1, "f")[0], b'f');
        assert!(large.0.lock().unwrap().is_none(), "nothing is kept");
    }
}
