//! When credentials end (T10): as the peers presented them in their last trusted handshake, and as ours were last read.

use std::sync::atomic::Ordering;

use log::warn;

use crate::metrics::{CREDENTIAL_ENDS, CREDENTIALS, Credential};
use crate::time;

/// An end so near, in seconds, is logged once a day.
pub const NEAR: u64 = 30 * 86_400;

/// The end of each of [`CREDENTIALS`], in seconds since 1970; 0: unused or endless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CredentialEnds(pub [u64; CREDENTIALS.len()]);

impl CredentialEnds {
    /// As they are known now. A standby has no session: what it knows of the APIC may be old.
    pub fn now(is_leader: bool) -> Self {
        let mut ends = CREDENTIAL_ENDS.each_ref().map(|it| it.load(Ordering::Relaxed));
        if !is_leader {
            ends[Credential::ApicCertificate as usize] = 0;
        }
        CredentialEnds(ends)
    }

    /// Each credential with its end, if it has one.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        CREDENTIALS.into_iter().zip(self.0.map(|end| Some(end).filter(|it| *it > 0)))
    }
}

/// When each credential was last logged, and its end then; both are days since 1970.
#[derive(Debug, Default)]
pub struct EndWarnings([Option<(u64, u64)>; CREDENTIALS.len()]);

impl EndWarnings {
    /// Logs each end that is near or past, unless that credential was logged today with an end that was as near: peers
    /// behind one address may present different certificates by turns.
    pub fn log(&mut self, ends: &CredentialEnds, now: u64) {
        for (credential, end) in self.due(ends, now) {
            warn!(credential, ends = time::rfc3339(end); "credential ends soon");
        }
    }

    fn due(&mut self, ends: &CredentialEnds, now: u64) -> Vec<(&'static str, u64)> {
        let mut due = Vec::new();
        for ((credential, end), logged) in ends.iter().zip(&mut self.0) {
            let Some(end) = end.filter(|it| *it < now + NEAR) else { continue };
            let today = now / 86_400;
            let last_day = today.max(end / 86_400);
            if logged.is_none_or(|(on, nearest)| on != today || last_day < nearest) {
                *logged = Some((today, last_day));
                due.push((credential, end));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T10: a standby does not show what it knew of the APIC as a leader.
    #[test]
    fn a_standby_has_no_certificate_of_the_apic() {
        crate::metrics::credential_ends(Credential::ApicCertificate, Some(7));
        crate::metrics::credential_ends(Credential::KubernetesCa, Some(8));
        let known = |is_leader| CredentialEnds::now(is_leader).iter().take(3).map(|it| it.1).collect::<Vec<_>>();
        assert_eq!((known(true), known(false)), (vec![Some(7), None, Some(8)], vec![None, None, Some(8)]));
    }

    /// T10: an end within 30 days is logged at once and then once a day, until the credential is renewed.
    #[test]
    fn near_ends_are_logged_once_a_day() {
        const DAY: u64 = 86_400;
        let now = 20_000 * DAY + 100;
        let mut warnings = EndWarnings::default();
        let mut due = |ends: [u64; CREDENTIALS.len()], now| warnings.due(&CredentialEnds(ends), now);
        let [near, past, far] = [now + 29 * DAY, now - 5 * DAY, now + 31 * DAY];
        assert_eq!(due([near, 0, 0, far, 0, past], now), [("apic_certificate", near), ("kubernetes_token", past)]);
        assert_eq!(due([near, 0, 0, far, 0, past], now + 5), []);
        assert_eq!(due([near, 0, 0, 0, 0, far], now + DAY), [("apic_certificate", near)]);
        assert_eq!(due([far + DAY, 0, 0, 0, 0, 0], now + DAY), []);
    }

    /// T10: ends that alternate are logged once a day, and once more for one that is nearer by days.
    #[test]
    fn alternating_ends_are_logged_once_a_day() {
        const DAY: u64 = 86_400;
        let now = 20_000 * DAY + 100;
        let mut warnings = EndWarnings::default();
        let mut logged = |days: &[u64], now| -> Vec<u64> {
            let due = days.iter().flat_map(|day| warnings.due(&CredentialEnds([now + day * DAY, 0, 0, 0, 0, 0]), now));
            due.map(|(_, end)| (end - now) / DAY).collect()
        };
        assert_eq!(logged(&[20, 25, 20, 25], now), [20]);
        assert_eq!(logged(&[25, 20, 25, 5, 20, 5], now + 5), [5]);
        assert_eq!(logged(&[25, 20, 25, 20, 25], now + DAY), [25, 20]);
        let mut past = |end| warnings.due(&CredentialEnds([end, 0, 0, 0, 0, 0]), now + 2 * DAY).len();
        assert_eq!(
            [now - DAY, now - 2 * DAY, now - 3 * DAY].map(&mut past),
            [1, 0, 0],
            "no end is nearer than one past"
        );
    }
}
