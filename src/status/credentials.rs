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

/// The day on which each end was last logged.
#[derive(Debug, Default)]
pub struct EndWarnings([Option<(u64, u64)>; CREDENTIALS.len()]);

impl EndWarnings {
    /// Logs each end that is near or past and was not logged today.
    pub fn log(&mut self, ends: &CredentialEnds, now: u64) {
        for (credential, end) in self.due(ends, now) {
            warn!(credential, ends = time::rfc3339(end); "credential ends soon");
        }
    }

    fn due(&mut self, ends: &CredentialEnds, now: u64) -> Vec<(&'static str, u64)> {
        let mut due = Vec::new();
        for ((credential, end), logged) in ends.iter().zip(&mut self.0) {
            let Some(end) = end.filter(|it| *it < now + NEAR) else { continue };
            let key = Some((end, now / 86_400));
            if *logged != key {
                *logged = key;
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
        let known = |is_leader| CredentialEnds::now(is_leader).iter().take(2).map(|it| it.1).collect::<Vec<_>>();
        assert_eq!((known(true), known(false)), (vec![Some(7), Some(8)], vec![None, Some(8)]));
    }

    /// T10: an end within 30 days is logged at once and then once a day, until the credential is renewed.
    #[test]
    fn near_ends_are_logged_once_a_day() {
        const DAY: u64 = 86_400;
        let now = 20_000 * DAY + 100;
        let mut warnings = EndWarnings::default();
        let mut due = |ends: [u64; 5], now| warnings.due(&CredentialEnds(ends), now);
        let [near, past, far] = [now + 29 * DAY, now - 5 * DAY, now + 31 * DAY];
        assert_eq!(due([near, 0, far, 0, past], now), [("apic_certificate", near), ("kubernetes_token", past)]);
        assert_eq!(due([near, 0, far, 0, past], now + 5), []);
        assert_eq!(due([near, 0, 0, 0, far], now + DAY), [("apic_certificate", near)]);
        assert_eq!(due([far + DAY, 0, 0, 0, 0], now + DAY), []);
    }
}
