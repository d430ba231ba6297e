//! Event notices to Kubernetes Events (K5): the request, its rate limits, and what an error means. It knows no sockets
//! and no clock; the thread is in `events`.
//!
//! Limits as in client-go (`tools/record/events_cache.go`): an object gets a burst of Events and then one now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::percent_encoded;
use super::error::Error;
use super::kinds;
use crate::logging::one_line;
use crate::model::notices::{EventNotice, ObjectRef};

/// The reporter of the Events, as a qualified name.
const CONTROLLER: &str = "aci.haystacknetworks.com/aci-sync";

/// What aci-sync was doing; the API server demands a word for it.
const ACTION: &str = "Sync";

/// The longest note, in bytes.
const MAX_NOTE: usize = 1024;

/// The longest part of an object's name in the name of an Event: 253 bytes without a point and 16 digits.
const MAX_PART: usize = 236;

/// How long nothing is sent to a namespace in which Events are forbidden.
const FORBIDDEN: Duration = Duration::from_secs(3600);

/// The limit of Events about one object.
const PER_OBJECT: Rate = Rate { burst: 25, every: Duration::from_secs(300) };

/// The limit of all requests.
const OVERALL: Rate = Rate { burst: 50, every: Duration::from_millis(100) };

/// The most objects whose limits are tracked. At the rate of [`OVERALL`] there are fewer.
const MAX_OBJECTS: usize = 8192;

/// A POST that creates an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path of the URL.
    pub path: String,
    /// The body.
    pub body: String,
}

/// What follows from an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The same request again, later.
    Retry,
    /// The Event is lost.
    Drop,
}

/// Makes requests of notices within the limits.
#[derive(Debug)]
pub struct Recorder {
    instance: String,
    objects: HashMap<ObjectRef, Bucket>,
    overall: Bucket,
    /// The namespaces in which Events are forbidden, and until when nothing is sent there.
    forbidden: HashMap<Arc<str>, Instant>,
    /// The number in the next Event's name, which makes it unique.
    number: u64,
}

impl Recorder {
    /// A recorder on a host, whose name is no longer than a DNS label. No other recorder may number its Events from a
    /// close number.
    pub fn new(host: &str, number: u64) -> Recorder {
        Recorder {
            instance: format!("aci-sync-{host}"),
            objects: HashMap::new(),
            overall: Bucket::default(),
            forbidden: HashMap::new(),
            number,
        }
    }

    /// The request for a notice; `None` if a limit forbids it. `now` is for the limits, `at` the time of day in the Event.
    pub fn request(&mut self, notice: &EventNotice, now: Instant, at: &str) -> Option<Request> {
        self.drop_expired(now);
        let ObjectRef { kind, key, uid } = &notice.about;
        if self.forbidden.contains_key(&key.namespace) {
            return None;
        }
        self.objects.entry(notice.about.clone()).or_default().take(PER_OBJECT, now).ok()?;
        // Annotations and names from the fabric can hold any character, and a terminal shows an Event.
        let note = one_line(&notice.note);
        // As client-go names them: `{object}.{number}`, a DNS name.
        let event = format!("{}.{:016x}", cut(&key.name, MAX_PART).trim_end_matches(['.', '-']), self.number);
        self.number = self.number.wrapping_add(1);
        let body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event, "namespace": &*key.namespace},
            "eventTime": at,
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance,
            "action": ACTION,
            "reason": notice.reason.to_string(),
            "type": if notice.reason.is_warning() { "Warning" } else { "Normal" },
            "regarding": {
                "apiVersion": kinds::info(*kind).api_version,
                "kind": kind.to_string(),
                "namespace": &*key.namespace,
                "name": &*key.name,
                "uid": uid,
            },
            "note": cut(&note, MAX_NOTE),
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", percent_encoded(&key.namespace));
        Some(Request { path, body: body.to_string() })
    }

    /// Takes a place in the overall limit, or returns how long to wait for one.
    pub fn pace(&mut self, now: Instant) -> Result<(), Duration> {
        self.overall.take(OVERALL, now)
    }

    /// What follows from a failed request.
    pub fn failed(&mut self, notice: &EventNotice, error: &Error, now: Instant) -> Next {
        match error {
            Error::Forbidden { .. } => {
                self.forbidden.insert(notice.about.key.namespace.clone(), now + FORBIDDEN);
                Next::Drop
            }
            Error::Unreachable(_) | Error::Unauthorized | Error::Credentials(_) | Error::Busy { .. } => Next::Retry,
            _ => Next::Drop,
        }
    }

    /// Bounds the memory.
    fn drop_expired(&mut self, now: Instant) {
        if self.objects.len() >= MAX_OBJECTS {
            self.objects.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.objects.len() >= MAX_OBJECTS {
            self.objects.clear();
        }
        self.forbidden.retain(|_, until| *until > now);
    }
}

/// The beginning of a text, at most `longest` bytes.
fn cut(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

/// A burst of tokens, and how often there is one more.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// A token bucket: when it will be full again.
#[derive(Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// Takes a token, or returns how long until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full = self.0.filter(|at| *at > now).unwrap_or(now) + rate.every;
        let wait = full.saturating_duration_since(now + rate.every * rate.burst);
        if wait.is_zero() {
            self.0 = Some(full);
            return Ok(());
        }
        Err(wait)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model::finding::Code;
    use crate::model::kubernetes::{Key, Kind};
    use crate::model::notices::EventReason;

    const AT: &str = "2026-11-23T05:43:51.000000Z";
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/a/events";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn notice(name: &str, note: &str) -> EventNotice {
        let about = ObjectRef { kind: Kind::Deployment, key: Key::new("a", name), uid: format!("uid-{name}").into() };
        EventNotice { about, reason: EventReason::Finding(Code::L3OutNotFound), note: note.to_owned() }
    }

    fn json(request: &Request) -> Value {
        serde_json::from_str(&request.body).unwrap()
    }

    /// K5, G2: what an Event holds. `kubectl describe` finds it by the kind, name, namespace and uid in `regarding`.
    #[test]
    fn events_are_complete() {
        let mut recorder = Recorder::new("node1", 0xff);
        let made = recorder.request(&notice("web", "no L3Out"), Instant::now(), AT).unwrap();
        assert_eq!(made.path, EVENTS);
        let regarding =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a", "name": "web", "uid": "uid-web"});
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.00000000000000ff", "namespace": "a"}, "eventTime": AT,
            "reportingController": "aci.haystacknetworks.com/aci-sync", "reportingInstance": "aci-sync-node1",
            "action": "Sync", "reason": "L3OutNotFound", "type": "Warning", "regarding": regarding, "note": "no L3Out"});
        assert_eq!(json(&made), event);

        // G2: workloads of several kinds may have one name.
        for kind in [Kind::StatefulSet, Kind::DaemonSet] {
            let about = ObjectRef { kind, ..notice("web", "").about };
            let notice = EventNotice { about, ..notice("web", "") };
            let event = json(&recorder.request(&notice, Instant::now(), AT).unwrap());
            let regarding = &event["regarding"];
            assert_eq!((&regarding["kind"], &regarding["apiVersion"]), (&json!(kind.to_string()), &json!("apps/v1")));
        }

        let about = ObjectRef { kind: Kind::Service, ..notice("lb", "").about };
        for (reason, name, sort) in [
            (EventReason::Synced, "Synced", "Normal"),
            (EventReason::Released, "Released", "Normal"),
            (EventReason::Resolved, "Resolved", "Normal"),
            (EventReason::Finding(Code::Paused), "Paused", "Normal"),
            (EventReason::Finding(Code::HostnameOnly), "HostnameOnly", "Warning"),
        ] {
            let notice = EventNotice { about: about.clone(), reason, note: String::new() };
            let event = json(&recorder.request(&notice, Instant::now(), AT).unwrap());
            assert_eq!((&event["reason"], &event["type"]), (&json!(name), &json!(sort)));
            assert_eq!(
                (&event["regarding"]["kind"], &event["regarding"]["apiVersion"]),
                (&json!("Service"), &json!("v1"))
            );
        }
    }

    /// K5, X3: long texts are cut between two characters, and no two Events have the same name.
    #[test]
    fn texts_have_an_end() {
        let mut recorder = Recorder::new("", u64::MAX);
        let long = format!("{}.{}", "x".repeat(235), "y".repeat(17));
        for (name, note, length) in [(&*long, "é".repeat(900), 1024), ("web", format!("-{}", "é".repeat(900)), 1023)]
        {
            let event = json(&recorder.request(&notice(name, &note), Instant::now(), AT).unwrap());
            assert_eq!(event["note"].as_str().unwrap().len(), length);
            let end = if name == "web" { "web.0000000000000000" } else { "xxx.ffffffffffffffff" };
            let event = event["metadata"]["name"].as_str().unwrap();
            assert!(event.ends_with(end) && event.len() <= 253, "{event}");
        }
    }

    /// K5: texts from a cluster or a fabric are shown without line breaks, control characters and marks that change the
    /// direction of the text.
    #[test]
    fn notes_are_one_line() {
        let mut recorder = Recorder::new("", 0);
        for (note, shown) in [
            ("a\nb\r\t\u{1b}[31m\0", r"a\nb\r\t\u{1b}[31m\u{0}"),
            ("\u{202e}x\u{2028}y\u{85}", r"\u{202e}x\u{2028}y\u{85}"),
            ("é \u{1f600}", "é \u{1f600}"),
        ] {
            let event = json(&recorder.request(&notice("web", note), Instant::now(), AT).unwrap());
            assert_eq!(event["note"], shown);
        }
        let note = "\n".repeat(2000);
        let event = json(&recorder.request(&notice("web", &note), Instant::now(), AT).unwrap());
        assert_eq!(event["note"].as_str().unwrap().len(), 1024);
    }

    /// K5: an object gets 25 Events at once and then one in five minutes, whatever the others get. In all there are 50
    /// requests at once, and then ten a second.
    #[test]
    fn rates_have_an_end() {
        let (mut recorder, start) = (Recorder::new("", 0), Instant::now());
        let mut sent = |name: &str, at| recorder.request(&notice(name, ""), start + seconds(at), AT).is_some();
        assert_eq!((0..100).filter(|_| sent("web", 0)).count(), 25);
        assert!(!sent("web", 299) && sent("other", 299));
        assert!(sent("web", 300) && !sent("web", 300) && sent("web", 600));

        let mut now = start;
        assert_eq!((0..100).filter(|_| recorder.pace(now).is_ok()).count(), 50);
        for _ in 0..3 {
            let pause = recorder.pace(now).unwrap_err();
            assert_eq!(pause, Duration::from_millis(100));
            now += pause;
            assert_eq!(recorder.pace(now), Ok(()));
        }
    }

    /// K5: only errors that may pass are retried, and a namespace in which Events are forbidden is left alone for an hour.
    #[test]
    fn what_follows_from_an_error() {
        let (start, web) = (Instant::now(), notice("web", ""));
        let text = String::new;
        for (error, next) in [
            (Error::Unreachable(text()), Next::Retry),
            (Error::Busy { message: text(), after: None }, Next::Retry),
            (Error::Unauthorized, Next::Retry),
            (Error::Forbidden { message: text() }, Next::Drop),
            (Error::Terminating, Next::Drop),
            (Error::Conflict, Next::Drop),
            (Error::Malformed(text()), Next::Drop),
            (Error::NotFound, Next::Drop),
        ] {
            let mut recorder = Recorder::new("", 0);
            recorder.request(&web, start, AT).unwrap();
            assert_eq!(recorder.failed(&web, &error, start), next, "{error:?}");
            let then = recorder.request(&web, start + seconds(3599), AT);
            if matches!(error, Error::Forbidden { .. }) {
                assert_eq!(then, None);
                let about = ObjectRef { key: Key::new("b", "web"), ..web.about.clone() };
                assert!(recorder.request(&EventNotice { about, ..web.clone() }, start, AT).is_some());
                assert!(recorder.request(&web, start + seconds(3600), AT).is_some());
            } else {
                assert!(then.is_some(), "{error:?}");
            }
        }
    }

    /// X3: the memory has a limit.
    #[test]
    fn the_memory_has_an_end() {
        let (mut recorder, start) = (Recorder::new("", 0), Instant::now());
        for n in 0..2 * MAX_OBJECTS {
            assert!(recorder.request(&notice(&n.to_string(), ""), start, AT).is_some());
            assert!(recorder.objects.len() <= MAX_OBJECTS);
        }
    }
}
