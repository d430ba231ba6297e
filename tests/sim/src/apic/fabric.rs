//! The fabric: one tree that all controllers show, what it does by itself, and the way every change goes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::classes::Class;
use super::conflicts::{self, Conflicts};
use super::dn::Place;
use super::error::ApiError;
use super::tree::{Change, Transaction, Tree};
use super::variants::Variants;
use super::write::{Edit, Forbidden};

/// The tree and what belongs to it.
#[derive(Debug)]
pub struct Fabric {
    /// All objects.
    pub tree: Tree,
    /// The switches.
    pub variants: Variants,
    /// Missing privileges.
    pub forbidden: Vec<Forbidden>,
    conflicts: Conflicts,
    sequence: u64,
    transactions: u64,
    /// EPGs that the fabric will set to `applied`, and when; in order of time.
    late: Vec<(Duration, String)>,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// The login name; empty for the fabric itself and for the admin API: no privilege is missing there.
    pub user: &'a str,
    /// What `uid` of a changed object becomes.
    pub uid: &'a str,
}

impl Fabric {
    /// A fabric as it comes: the tenants common, infra and mgmt, and common's default VRF.
    pub fn new(variants: Variants) -> Fabric {
        let mut fabric = Fabric {
            tree: Tree::default(),
            variants,
            forbidden: Vec::new(),
            conflicts: Conflicts::default(),
            sequence: 0,
            transactions: 0,
            late: Vec::new(),
        };
        fabric.begin();
        fabric
    }

    fn begin(&mut self) {
        let mut tx = Transaction::new(&mut self.tree);
        if let Some(class) = Class::named("polUni") {
            let attributes = class.all_props().map(|it| (it.name, it.default.to_owned())).collect();
            let (parent, rn) = (String::new(), "uni".to_owned());
            tx.put(
                "uni",
                super::tree::Mo { class, parent, rn, attributes, sequence: 0, born: Duration::ZERO, transaction: 0 },
            );
        }
        tx.commit(&timestamp(), "0");
        let author = Author { user: "", uid: "0" };
        for tenant in ["common", "infra", "mgmt"] {
            let vrf = r#"{"fvCtx":{"attributes":{"name":"default"}}}"#;
            let body = format!(r#"{{"fvTenant":{{"attributes":{{"name":"{tenant}"}},"children":[{vrf}]}}}}"#);
            // These bodies are constants and fit the class table.
            let _ = self.post(Duration::ZERO, author, "uni", body.as_bytes());
        }
    }

    /// A POST: where its root is, and what changed.
    pub fn post(
        &mut self,
        now: Duration,
        author: Author<'_>,
        dn: &str,
        body: &[u8],
    ) -> Result<(Place, Vec<Change>), ApiError> {
        self.edit(now, author, |edit| edit.post(dn, body))
    }

    /// A DELETE: what went.
    pub fn delete(&mut self, now: Duration, author: Author<'_>, dn: &str) -> Result<Vec<Change>, ApiError> {
        self.edit(now, author, |edit| edit.delete(dn)).map(|it| it.1)
    }

    /// Raises F0467 about an EPG for another cause than a prefix in use: what changed.
    pub fn raise_fault(&mut self, epg: &str, cause: &str, words: &str) -> Vec<Change> {
        let mut tx = Transaction::new(&mut self.tree);
        conflicts::raise(&mut tx, epg, cause, words, "", &mut self.sequence);
        tx.commit(&timestamp(), "")
    }

    fn edit<T>(
        &mut self,
        now: Duration,
        author: Author<'_>,
        work: impl FnOnce(&mut Edit<'_>) -> Result<T, ApiError>,
    ) -> Result<(T, Vec<Change>), ApiError> {
        self.transactions += 1;
        let mut edit = Edit {
            tx: Transaction::new(&mut self.tree),
            variants: &self.variants,
            now,
            number: self.transactions,
            sequence: &mut self.sequence,
            user: author.user,
            forbidden: &self.forbidden,
            tenants: BTreeSet::new(),
        };
        let done = work(&mut edit)?;
        let Edit { mut tx, sequence, .. } = edit;
        conflicts::resolve_relations(&mut tx);
        self.conflicts.update(&mut tx, self.variants.faults_retained, sequence);
        let changes = tx.commit(&timestamp(), author.uid);
        if let Some(delay) = self.variants.late_changes {
            let new = |it: &Change| match it {
                Change::Created { dn, mo } if mo.class.name == "l3extInstP" => Some((now + delay, dn.clone())),
                _ => None,
            };
            self.late.extend(changes.iter().filter_map(new));
        }
        Ok((done, changes))
    }

    /// What the fabric changes by itself until now.
    pub fn by_itself(&mut self, now: Duration) -> Vec<Change> {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        let mut tx = Transaction::new(&mut self.tree);
        let due: Vec<(Duration, String)> = due;
        for (_, dn) in due {
            let Some(mo) = tx.tree().get(&dn).filter(|mo| mo.get("configSt") == "not-applied") else { continue };
            let tag = (16_386 + mo.sequence).to_string();
            tx.set(&dn, "configSt", "applied".to_owned());
            tx.set(&dn, "pcTag", tag);
            tx.set(&dn, "scope", "2621440".to_owned());
        }
        tx.commit(&timestamp(), "0")
    }

    /// When the fabric will next change something by itself.
    pub fn next_by_itself(&self) -> Option<Duration> {
        self.late.iter().map(|it| it.0).min()
    }

    /// The faults about prefixes.
    pub fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }
}

/// When the last transaction was, in milliseconds since 1970.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Now, as `modTs` has it: `2026-11-23T06:34:18.123+00:00`. A transaction takes an APIC longer than a millisecond, so no two have
/// the same.
pub fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or_default();
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    let now = now.max(last.unwrap_or_default() + 1);
    let (days, milli) = (now / 86_400_000, now % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second, milli) = (milli / 3_600_000, milli / 60_000 % 60, milli / 1000 % 60, milli % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}+00:00")
}

/// The date of a day since 1970-01-01, by the calendar's 400-year cycle (years begin in March).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [(0, (1970, 1, 1)), (19_782, (2024, 2, 29)), (20_780, (2026, 11, 23))] {
            assert_eq!(civil(days), date);
        }
    }
}
