//! News into Kubernetes Events (K5): which requests they become, how many, and what an answer means. It knows no
//! sockets and no clock; the thread around it is `events`'.
//!
//! As client-go does it: the same notices again within a few minutes are a series of one Event, an object has a burst of
//! Events and then one now and then, and what is refused is not tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Verb, percent_encoded};
use super::error::Error;
use super::kinds;
use crate::logging::one_line;
use crate::model::notices::{EventNotice, EventReason, ObjectRef};

/// Who reports, as a qualified name.
const CONTROLLER: &str = "aci.haystacknetworks.com/aci-sync";

/// What was being done; the API server wants a word for it.
const ACTION: &str = "Sync";

/// The longest note, in bytes.
const MAX_NOTE: usize = 1024;

/// The longest part of an object's name in an Event's, which is 253 at most with a point and 16 digits.
const MAX_PART: usize = 236;

/// After so long without the same notices again a series is over.
const SERIES: Duration = Duration::from_secs(360);

/// How long nothing is sent into a namespace where we may not write Events.
const FORBIDDEN: Duration = Duration::from_secs(3600);

/// How many Events one object gets at once, and how often one more.
const PER_OBJECT: Rate = Rate { burst: 25, every: Duration::from_secs(300) };

/// How many requests there are at once, and how often one more.
const OVERALL: Rate = Rate { burst: 50, every: Duration::from_millis(100) };

/// The most objects, and the most series, that are kept in mind. At [`OVERALL`]'s rate there are fewer.
const MAX_TOTAL: usize = 8192;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// An Event is made, or its series goes on.
    pub verb: Verb,
    /// The path of the URL.
    pub path: String,
    /// The body.
    pub body: String,
}

/// What follows from an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The Event has expired: the notices are to be told anew.
    Anew,
    /// The same request again, later.
    Again,
    /// Nothing: these notices are lost.
    Drop,
}

/// What was sent, as far as it matters for what comes.
#[derive(Debug)]
pub struct Recorder {
    instance: String,
    series: HashMap<(ObjectRef, EventReason), Series>,
    objects: HashMap<ObjectRef, Bucket>,
    overall: Bucket,
    forbidden: HashMap<Arc<str>, Instant>,
    /// The number in the next Event's name. No two have the same.
    number: u64,
}

#[derive(Debug)]
struct Series {
    event: String,
    note: String,
    count: u32,
    last: Instant,
}

impl Recorder {
    /// A recorder on a host, whose name is no longer than a DNS label; its Events are numbered from a number on that no other recorder uses.
    pub fn new(host: &str, number: u64) -> Recorder {
        Recorder {
            instance: format!("aci-sync-{host}"),
            series: HashMap::new(),
            objects: HashMap::new(),
            overall: Bucket::default(),
            forbidden: HashMap::new(),
            number,
        }
    }

    /// What the notices become, if anything: `now` is for the rates, `at` the time of day for people.
    pub fn request(&mut self, notices: &EventNotice, now: Instant, at: &str) -> Option<Request> {
        self.forget(now);
        let ObjectRef { kind, key, uid } = &notices.about;
        if self.forbidden.get(&key.namespace).is_some_and(|until| *until > now) {
            return None;
        }
        let series = (notices.about.clone(), notices.reason);
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", percent_encoded(&key.namespace));
        // Annotations and names from the fabric can hold anything, and a terminal shows an Event.
        let note = one_line(&notices.note);
        let note = cut(&note, MAX_NOTE);
        let has_token = self.objects.entry(notices.about.clone()).or_default().take(PER_OBJECT, now).is_ok();
        // A note cannot be changed, and an old one would mislead: another note is another Event.
        let known = self.series.get_mut(&series).filter(|it| it.note == note && now < it.last + SERIES);
        if let Some(Series { event, count, last, .. }) = known {
            (*count, *last) = (count.saturating_add(1), now);
            let body = json!({"series": {"count": *count, "lastObservedTime": at}}).to_string();
            let request = Request { verb: Verb::Patch, path: format!("{path}/{}", percent_encoded(event)), body };
            return has_token.then_some(request);
        }
        if !has_token {
            return None;
        }
        // As client-go names them: `{object}.{number}`, a DNS name.
        let event = format!("{}.{:016x}", cut(&key.name, MAX_PART).trim_end_matches(['.', '-']), self.number);
        self.number = self.number.wrapping_add(1);
        let regarding = json!({"apiVersion": kinds::info(*kind).api_version,
            "kind": kind.to_string(), "namespace": &*key.namespace, "name": &*key.name, "uid": uid});
        let body = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": event, "namespace": &*key.namespace}, "eventTime": at,
            "reportingController": CONTROLLER, "reportingInstance": self.instance, "action": ACTION,
            "reason": notices.reason.to_string(), "type": if notices.reason.is_warning() { "Warning" } else { "Normal" },
            "regarding": regarding, "note": note});
        self.series.insert(series, Series { event, note: note.to_owned(), count: 1, last: now });
        Some(Request { verb: Verb::Create, path, body: body.to_string() })
    }

    /// How long to wait before a request is sent; without a wait its place is taken.
    pub fn pace(&mut self, now: Instant) -> Result<(), Duration> {
        self.overall.take(OVERALL, now)
    }

    /// What follows where a request failed.
    pub fn failed(&mut self, notices: &EventNotice, verb: Verb, error: &Error, now: Instant) -> Next {
        match error {
            Error::NotFound if verb == Verb::Patch => {
                self.series.remove(&(notices.about.clone(), notices.reason));
                Next::Anew
            }
            Error::Forbidden { .. } => {
                self.forbidden.insert(notices.about.key.namespace.clone(), now + FORBIDDEN);
                Next::Drop
            }
            Error::Unreachable(_) | Error::Unauthorized | Error::Credentials(_) | Error::Busy { .. } => Next::Again,
            _ => Next::Drop,
        }
    }

    /// Bounds what is kept in mind.
    fn forget(&mut self, now: Instant) {
        if self.series.len() >= MAX_TOTAL {
            self.series.retain(|_, it| now < it.last + SERIES);
        }
        if self.objects.len() >= MAX_TOTAL {
            self.objects.retain(|_, it| !it.is_full(now));
        }
        if self.series.len() >= MAX_TOTAL || self.objects.len() >= MAX_TOTAL {
            self.series.clear();
            self.objects.clear();
        }
        self.forbidden.retain(|_, until| *until > now);
    }
}

/// A text without what is too much of it.
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

/// A bucket of tokens: when it will be full again.
#[derive(Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// Takes a token, or tells how long until there is one.
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

    const AT: &str = "2026-11-23T05:43:51.000000Z";
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/a/events";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn notices(name: &str, note: &str) -> EventNotice {
        let about = ObjectRef { kind: Kind::Deployment, key: Key::new("a", name), uid: format!("uid-{name}").into() };
        EventNotice { about, reason: EventReason::Finding(Code::L3OutNotFound), note: note.to_owned() }
    }

    fn json(request: &Request) -> Value {
        serde_json::from_str(&request.body).unwrap()
    }

    /// K5: what an Event holds. `kubectl describe` finds it by the kind, name, namespace and uid in `regarding`.
    #[test]
    fn events_are_whole() {
        let mut recorder = Recorder::new("node1", 0xff);
        let made = recorder.request(&notices("web", "no L3Out"), Instant::now(), AT).unwrap();
        assert_eq!((made.verb, made.path.as_str()), (Verb::Create, EVENTS));
        let regarding =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a", "name": "web", "uid": "uid-web"});
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.00000000000000ff", "namespace": "a"}, "eventTime": AT,
            "reportingController": "aci.haystacknetworks.com/aci-sync", "reportingInstance": "aci-sync-node1",
            "action": "Sync", "reason": "L3OutNotFound", "type": "Warning", "regarding": regarding, "note": "no L3Out"});
        assert_eq!(json(&made), event);

        let about = ObjectRef { kind: Kind::Service, ..notices("lb", "").about };
        for (reason, name, sort) in [
            (EventReason::Synced, "Synced", "Normal"),
            (EventReason::Released, "Released", "Normal"),
            (EventReason::Finding(Code::Paused), "Paused", "Normal"),
            (EventReason::Finding(Code::HostnameOnly), "HostnameOnly", "Warning"),
        ] {
            let notices = EventNotice { about: about.clone(), reason, note: String::new() };
            let event = json(&recorder.request(&notices, Instant::now(), AT).unwrap());
            assert_eq!((&event["reason"], &event["type"]), (&json!(name), &json!(sort)));
            assert_eq!(
                (&event["regarding"]["kind"], &event["regarding"]["apiVersion"]),
                (&json!("Service"), &json!("v1"))
            );
        }
    }

    /// K5, X3: what is too long is cut between two characters, and two Events never have the same name.
    #[test]
    fn texts_have_an_end() {
        let mut recorder = Recorder::new("", u64::MAX);
        let long = format!("{}.{}", "x".repeat(235), "y".repeat(17));
        for (name, note, length) in [(&*long, "é".repeat(900), 1024), ("web", format!("-{}", "é".repeat(900)), 1023)]
        {
            let event = json(&recorder.request(&notices(name, &note), Instant::now(), AT).unwrap());
            assert_eq!(event["note"].as_str().unwrap().len(), length);
            let end = if name == "web" { "web.0000000000000000" } else { "xxx.ffffffffffffffff" };
            let event = event["metadata"]["name"].as_str().unwrap();
            assert!(event.ends_with(end) && event.len() <= 253, "{event}");
        }
    }

    /// K5: what is shown of texts that come from a cluster or a fabric has no line breaks, no control characters and nothing
    /// that turns the direction of what follows.
    #[test]
    fn notes_are_one_line() {
        let mut recorder = Recorder::new("", 0);
        for (note, shown) in [
            ("a\nb\r\t\u{1b}[31m\0", r"a\nb\r\t\u{1b}[31m\u{0}"),
            ("\u{202e}x\u{2028}y\u{85}", r"\u{202e}x\u{2028}y\u{85}"),
            ("é \u{1f600}", "é \u{1f600}"),
        ] {
            let event = json(&recorder.request(&notices("web", note), Instant::now(), AT).unwrap());
            assert_eq!(event["note"], shown);
        }
        let note = "\n".repeat(2000);
        let event = json(&recorder.request(&notices("web", &note), Instant::now(), AT).unwrap());
        assert_eq!(event["note"].as_str().unwrap().len(), 1024);
    }

    /// K5: the same notices within six minutes of the last time are a series of one Event; other notices are another Event.
    #[test]
    fn the_same_again_is_a_series() {
        let (mut recorder, start) = (Recorder::new("", 0), Instant::now());
        let web = |n: u32| format!("{EVENTS}/web.{n:016x}");
        for (at, name, note, count, path) in [
            (0, "web", "one", 1, EVENTS.to_owned()),
            (0, "other", "one", 1, EVENTS.to_owned()),
            (1, "web", "one", 2, web(0)),
            (360, "web", "one", 3, web(0)),
            (720, "web", "one", 1, EVENTS.to_owned()),
            (721, "web", "two", 1, EVENTS.to_owned()),
            (722, "web", "two", 2, web(3)),
        ] {
            let request = recorder.request(&notices(name, note), start + seconds(at), AT).unwrap();
            assert_eq!(request.path, path, "at {at}");
            if count > 1 {
                let series = json!({"series": {"count": count, "lastObservedTime": AT}});
                assert_eq!((request.verb, json(&request)), (Verb::Patch, series), "at {at}");
            }
        }
    }

    /// K5: an object gets 25 Events at once and then one in five minutes, whatever the others get; what was not sent
    /// of a series is counted all the same. In all there are 50 requests at once, and then ten a second.
    #[test]
    fn rates_have_an_end() {
        let (mut recorder, start) = (Recorder::new("", 0), Instant::now());
        let mut sent = |name: &str, note: &str, at| recorder.request(&notices(name, note), start + seconds(at), AT);
        let at_once = (0..100).filter_map(|_| sent("web", "", 0)).count();
        assert_eq!(at_once, 25);
        assert!(sent("web", "another", 299).is_none() && sent("other", "", 299).is_some());
        assert_eq!(json(&sent("web", "", 300).unwrap())["series"]["count"], 101);
        assert!(sent("web", "", 300).is_none() && sent("web", "", 600).is_some());

        let mut now = start;
        assert_eq!((0..100).filter(|_| recorder.pace(now).is_ok()).count(), 50);
        for _ in 0..3 {
            let pause = recorder.pace(now).unwrap_err();
            assert_eq!(pause, Duration::from_millis(100));
            now += pause;
            assert_eq!(recorder.pace(now), Ok(()));
        }
    }

    /// K5: only what may be heard later is tried again; a namespace in which we may not write is left alone for an hour;
    /// an Event that has expired is made anew.
    #[test]
    fn what_follows_from_an_error() {
        let (start, web) = (Instant::now(), notices("web", ""));
        let text = String::new;
        for (error, verb, next) in [
            (Error::Unreachable(text()), Verb::Create, Next::Again),
            (Error::Busy { message: text(), after: None }, Verb::Patch, Next::Again),
            (Error::Unauthorized, Verb::Create, Next::Again),
            (Error::Forbidden { message: text() }, Verb::Create, Next::Drop),
            (Error::Terminating, Verb::Create, Next::Drop),
            (Error::Conflict, Verb::Create, Next::Drop),
            (Error::Malformed(text()), Verb::Patch, Next::Drop),
            (Error::NotFound, Verb::Create, Next::Drop),
            (Error::NotFound, Verb::Patch, Next::Anew),
        ] {
            let mut recorder = Recorder::new("", 0);
            recorder.request(&web, start, AT).unwrap();
            assert_eq!(recorder.failed(&web, verb, &error, start), next, "{error:?}");
            let then = recorder.request(&web, start + seconds(3599), AT);
            match error {
                Error::Forbidden { .. } => {
                    assert_eq!(then, None);
                    let elsewhere = Key::new("b", "web");
                    let notices =
                        EventNotice { about: ObjectRef { key: elsewhere, ..web.about.clone() }, ..web.clone() };
                    assert!(recorder.request(&notices, start, AT).is_some());
                    assert!(recorder.request(&web, start + seconds(3600), AT).is_some());
                }
                _ => assert!(then.is_some(), "{error:?}"),
            }
        }
        let mut recorder = Recorder::new("", 0);
        for verb in [Verb::Create, Verb::Patch] {
            assert_eq!(recorder.request(&web, start, AT).unwrap().verb, verb);
        }
        recorder.failed(&web, Verb::Patch, &Error::NotFound, start);
        assert_eq!(recorder.request(&web, start, AT).unwrap().verb, Verb::Create);
    }

    /// X3: what is kept in mind has an end.
    #[test]
    fn the_memory_has_an_end() {
        let (mut recorder, start) = (Recorder::new("", 0), Instant::now());
        for n in 0..2 * MAX_TOTAL {
            assert!(recorder.request(&notices(&n.to_string(), ""), start, AT).is_some());
            assert!(recorder.series.len() <= MAX_TOTAL && recorder.objects.len() <= MAX_TOTAL);
        }
    }
}
