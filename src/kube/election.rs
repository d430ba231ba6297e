//! Leader election by client-go's algorithm (K4): what to write over a Lease, and what an answer means. It knows
//! no sockets and no clock; the thread and its requests are in `lease`.
//!
//! The times in a Lease are for people. It has run out when this process has not seen its record change for the duration
//! in the record, by its own clock, so clocks that differ do no harm.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a standby waits after the last change that it saw.
const LEASE: Duration = Duration::from_secs(15);

/// How long a leader leads after the last renewal that was granted, counted from its request. The rest until [`LEASE`]
/// is what clocks may differ in speed, and what a write that was just begun may take.
const RENEW: Duration = Duration::from_secs(10);

/// How often a leader renews. A standby looks as often, plus [`JITTER`] times a random part of it: half of client-go's
/// spread, so that a take-over follows a clean stop within 5 s.
const RETRY: Duration = Duration::from_secs(2);
const JITTER: f64 = 0.6;

/// How long one request may take; a leader's never outlives its deadline.
const REQUEST: Duration = Duration::from_secs(5);

/// The longest lease duration that is believed.
const MAX_LENGTH: Duration = Duration::from_secs(86_400);

/// A Lease as the API server holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Holds the version, and fields of other writers; sent back unchanged.
    pub metadata: Value,
    /// Who holds it.
    #[serde(default)]
    pub spec: Record,
}

/// Who holds a Lease, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Empty or missing if the Lease is free.
    pub holder_identity: Option<String>,
    /// How long a standby waits.
    pub lease_duration_seconds: Option<i64>,
    /// When the holder took it.
    pub acquire_time: Option<String>,
    /// When the holder renewed it.
    pub renew_time: Option<String>,
    /// How often the holder changed.
    pub lease_transitions: Option<i64>,
}

impl Record {
    fn holder(&self) -> &str {
        self.holder_identity.as_deref().unwrap_or_default()
    }

    fn duration(&self) -> Duration {
        let seconds = self.lease_duration_seconds.unwrap_or_default();
        Duration::from_secs(seconds.try_into().unwrap_or_default()).min(MAX_LENGTH)
    }

    /// What a holder leaves when it stops: free at once.
    fn released(&self, at: &str) -> Record {
        Record {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(at.to_owned()),
            renew_time: Some(at.to_owned()),
            lease_transitions: self.lease_transitions,
        }
    }
}

/// A write that makes this process the holder.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Creates the Lease.
    Create(Lease),
    /// Replaces the Lease; the API server refuses it unless the version in it is the present one.
    Update(Lease),
}

/// One process's part in an election.
#[derive(Debug)]
pub struct ElectionState {
    identity: String,
    /// The Lease as last seen, and since when its record has been like that.
    seen: Option<(Lease, Instant)>,
    leads_until: Option<Instant>,
}

impl ElectionState {
    /// A standby. No two processes may have the same identity, ever.
    pub fn new(identity: String) -> ElectionState {
        ElectionState { identity, seen: None, leads_until: None }
    }

    /// The Lease was looked at before, and its record has not changed since then.
    pub fn saw(&mut self, lease: Lease, since: Instant) {
        self.seen = Some((lease, since));
    }

    /// Until when this process leads; `None` if it does not.
    pub fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// Who holds the Lease, as last seen.
    pub fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |(lease, _)| lease.spec.holder())
    }

    /// What a leader tries first: to renew the Lease as it saw it last. If that fails, and for a standby, the Lease is read.
    /// `at` is the time of day for the Lease.
    pub fn renewal(&self, at: &str) -> Option<Write> {
        let seen = self.seen.as_ref().filter(|_| self.leads_until.is_some());
        seen.map(|(lease, _)| Write::Update(self.mine(lease, at)))
    }

    /// Takes the Lease as it was read, if it exists. What to write then, if this process may hold it. A Lease of another
    /// holder ends the term at once.
    pub fn observe(&mut self, found: Option<Lease>, now: Instant, at: &str) -> Option<Write> {
        let is_mine = found.as_ref().is_some_and(|it| it.spec.holder() == self.identity);
        let was_leading = self.leads_until.is_some();
        if !is_mine {
            self.leads_until = None;
        }
        let Some(lease) = found else {
            self.seen = None;
            let metadata = json!({});
            return (!was_leading).then(|| Write::Create(self.mine(&Lease { metadata, spec: Record::default() }, at)));
        };
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == lease.spec => *since,
            _ => now,
        };
        let is_free = lease.spec.holder().is_empty() || now >= since + lease.spec.duration();
        let write = Write::Update(self.mine(&lease, at));
        self.seen = Some((lease, since));
        (is_mine || (is_free && !was_leading)).then_some(write)
    }

    /// Takes the answer to a write that was sent at `sent`; false if it names another holder.
    pub fn accept_answer(&mut self, lease: Lease, sent: Instant) -> bool {
        let is_mine = lease.spec.holder() == self.identity;
        if is_mine {
            self.leads_until = Some(sent + RENEW);
            self.seen = Some((lease, sent));
        }
        is_mine
    }

    /// Ends the term if its deadline has passed; whether it did.
    pub fn end_if_expired(&mut self, now: Instant) -> bool {
        self.leads_until.take_if(|it| *it <= now).is_some()
    }

    /// How long a request that begins now may take; `None` if it would come too late.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let left = self.leads_until.map_or(REQUEST, |it| it.saturating_duration_since(now));
        Some(left.min(REQUEST)).filter(|it| !it.is_zero())
    }

    /// How long to wait before the next try. `random` is a random number in [0, 1).
    pub fn pause(&self, now: Instant, random: f64) -> Duration {
        if let Some(until) = self.leads_until {
            return RETRY.min(until.saturating_duration_since(now));
        }
        let pause = RETRY + RETRY.mul_f64(JITTER * random);
        // The next look is right after the Lease runs out.
        let end = self.seen.as_ref().map(|(lease, since)| *since + lease.spec.duration()).filter(|it| *it > now);
        end.map_or(pause, |it| pause.min(it - now + RETRY.mul_f64(random / 4.0)))
    }

    /// What a stopping holder writes over the Lease that it just read; `None` if another process holds it.
    pub fn release(identity: &str, lease: Lease, at: &str) -> Option<Lease> {
        let spec = lease.spec.released(at);
        (lease.spec.holder() == identity).then_some(Lease { spec, ..lease })
    }

    /// The Lease with this process as its holder.
    fn mine(&self, lease: &Lease, at: &str) -> Lease {
        let before = &lease.spec;
        let (acquire_time, transitions) = if before.holder() == self.identity {
            (before.acquire_time.clone(), before.lease_transitions)
        } else if *before == Record::default() {
            (Some(at.to_owned()), Some(0))
        } else {
            (Some(at.to_owned()), Some(before.lease_transitions.unwrap_or_default().saturating_add(1)))
        };
        let spec = Record {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE.as_secs() as i64),
            acquire_time,
            renew_time: Some(at.to_owned()),
            lease_transitions: transitions,
        };
        Lease { metadata: lease.metadata.clone(), spec }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-23T05:43:51.000000Z";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(version: u64, holder: &str, renew: &str, transitions: i64) -> Lease {
        let spec = Record {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            acquire_time: Some("then".to_owned()),
            renew_time: Some(renew.to_owned()),
            lease_transitions: Some(transitions),
        };
        Lease { metadata: json!({"name": "aci-sync", "resourceVersion": version.to_string()}), spec }
    }

    /// The record that a request asks for.
    fn asked(write: Option<Write>) -> Option<(Value, Record)> {
        match write? {
            Write::Create(lease) | Write::Update(lease) => Some((lease.metadata, lease.spec)),
        }
    }

    /// A process that took the Lease at this time.
    fn leader(start: Instant) -> ElectionState {
        let mut election = ElectionState::new("me".to_owned());
        assert_eq!(election.renewal(AT), None);
        let Some(Write::Create(made)) = election.observe(None, start, AT) else { panic!("it should be made") };
        assert!(election.accept_answer(Lease { metadata: json!({"resourceVersion": "1"}), ..made }, start));
        election
    }

    /// K4: a missing Lease is created, a free one is taken, and one of another holder is left alone.
    #[test]
    fn who_may_take_it() {
        let (start, free) = (Instant::now(), Record::default());
        for (found, expected) in [
            (None, Some((AT, 0))),
            (Some(Lease { metadata: json!({}), spec: free }), Some((AT, 0))),
            (Some(lease(7, "", "x", 4)), Some((AT, 5))),
            (Some(lease(7, "you", "x", 4)), None),
            // Ours from a term whose deadline passed while the API server was unreachable; no other process took it.
            (Some(lease(7, "me", "x", 4)), Some(("then", 4))),
            (Some(lease(7, "", "x", i64::MAX)), Some((AT, i64::MAX))),
        ] {
            let mut election = ElectionState::new("me".to_owned());
            let metadata = found.as_ref().map_or(json!({}), |it| it.metadata.clone());
            let ask = asked(election.observe(found.clone(), start, AT));
            let record = expected.map(|(acquired, transitions)| Record {
                acquire_time: Some(acquired.to_owned()),
                renew_time: Some(AT.to_owned()),
                ..lease(0, "me", "", transitions).spec
            });
            assert_eq!(ask, record.map(|it| (metadata, it)), "{found:?}");
            assert_eq!(election.leads_until(), None, "nothing is granted yet");
        }
    }

    /// K4: a Lease has run out when its record did not change here for as long as it says, whatever times stand in it;
    /// a new version alone, for example because of a label, is no renewal.
    #[test]
    fn it_runs_out_by_what_was_seen() {
        let start = Instant::now();
        let mut election = ElectionState::new("me".to_owned());
        for (at, version, renew, may) in [
            (0, 1, "1999", false),
            (14, 1, "1999", false),
            (14, 2, "2999", false),
            (28, 3, "2999", false),
            (29, 4, "2999", true),
            (40, 4, "2999", true),
            (41, 5, "1999", false),
        ] {
            let ask = election.observe(Some(lease(version, "you", renew, 0)), start + seconds(at), AT);
            assert_eq!(ask.is_some(), may, "at {at}");
        }
        for (duration, longest) in [(None, 0), (Some(-1), 0), (Some(0), 0), (Some(i64::MAX), 86_400)] {
            let mut other = lease(1, "you", "x", 0);
            other.spec.lease_duration_seconds = duration;
            let mut election = ElectionState::new("me".to_owned());
            assert_eq!(election.observe(Some(other.clone()), start, AT).is_some(), longest == 0, "{duration:?}");
            assert!(election.observe(Some(other), start + seconds(longest), AT).is_some(), "{duration:?}");
        }
    }

    /// K4: a leader renews what it saw last, with its version, and leads for ten seconds from the request that was
    /// granted; no request of its outlives that.
    #[test]
    fn a_leader_renews() {
        let start = Instant::now();
        let mut election = leader(start);
        assert_eq!(election.leads_until(), Some(start + RENEW));
        let (metadata, spec) = asked(election.renewal("later")).unwrap();
        assert_eq!(metadata, json!({"resourceVersion": "1"}));
        let expected =
            Record { renew_time: Some("later".to_owned()), acquire_time: Some(AT.to_owned()), ..spec.clone() };
        assert_eq!((spec.holder(), spec.lease_transitions, &spec), ("me", Some(0), &expected));
        assert!(!election.accept_answer(lease(2, "you", "x", 1), start + seconds(2)), "an answer that grants nothing");
        assert!(election.accept_answer(Lease { metadata, spec }, start + seconds(2)));
        assert_eq!(election.leads_until(), Some(start + seconds(12)));
        for (at, limit) in [(2, Some(5)), (7, Some(5)), (11, Some(1)), (12, None), (20, None)] {
            assert_eq!(election.timeout(start + seconds(at)), limit.map(seconds), "at {at}");
        }
        assert!(!election.end_if_expired(start + seconds(11)));
        assert!(
            election.end_if_expired(start + seconds(12)) && !election.end_if_expired(start + seconds(12)),
            "reported once"
        );
        assert_eq!((election.renewal(AT), election.timeout(start + seconds(20))), (None, Some(REQUEST)));
    }

    /// K4: a Lease of another holder, a free or a missing one ends the term at once, and is not taken in the same try:
    /// another process may have led in between.
    #[test]
    fn what_is_not_ours_any_more_is_lost() {
        let start = Instant::now();
        for (found, then) in [(Some(lease(9, "you", "x", 1)), false), (Some(lease(9, "", "x", 1)), true), (None, true)]
        {
            let mut election = leader(start);
            assert_eq!(election.observe(found.clone(), start + seconds(2), AT), None, "{found:?}");
            assert_eq!(election.leads_until(), None, "{found:?}");
            assert_eq!(election.observe(found.clone(), start + seconds(4), AT).is_some(), then, "{found:?}");
        }
    }

    /// K4: pauses are client-go's with half of its spread, and none lasts past the own deadline or long past the end of a Lease.
    #[test]
    fn pauses() {
        let start = Instant::now();
        let election = ElectionState::new("me".to_owned());
        assert_eq!((election.pause(start, 0.0), election.pause(start, 0.5)), (RETRY, Duration::from_millis(2600)));
        let mut election = ElectionState::new("me".to_owned());
        election.observe(Some(lease(1, "you", "x", 0)), start, AT);
        assert_eq!(election.pause(start + seconds(1), 0.5), Duration::from_millis(2600));
        assert_eq!(election.pause(start + seconds(14), 0.5), Duration::from_millis(1250));
        assert_eq!(election.pause(start + seconds(15), 0.5), Duration::from_millis(2600));
        let election = leader(start);
        assert_eq!(election.pause(start, 0.9), RETRY);
        assert_eq!(election.pause(start + seconds(9), 0.9), seconds(1));
        assert_eq!(election.pause(start + seconds(11), 0.9), Duration::ZERO);
    }

    /// X2: a stopping holder leaves its own Lease free at once.
    #[test]
    fn a_release_is_for_the_holder() {
        let released = ElectionState::release("me", lease(5, "me", "x", 3), AT).unwrap();
        let body = json!({"metadata": {"name": "aci-sync", "resourceVersion": "5"}, "spec": {"holderIdentity": "",
            "leaseDurationSeconds": 1, "acquireTime": AT, "renewTime": AT, "leaseTransitions": 3}});
        assert_eq!(serde_json::to_value(released).unwrap(), body);
        assert_eq!(ElectionState::release("me", lease(5, "you", "x", 3), AT), None);
    }
}
