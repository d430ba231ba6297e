//! How long to wait before the next login (W8). It only computes: the caller passes the time and does the waiting.

use std::time::{Duration, Instant};

use super::error::Error;
use crate::backoff::Backoff;

/// The least time between logins that follow a refused session.
pub(super) const RELOGIN_PAUSE: Duration = Duration::from_secs(60);

/// The pauses after the first, second, third and every further refusal of a login in a row. An APIC with lockout on
/// and its default values locks an account for an hour after five failures within five minutes (`aaaBlockLoginProfile`).
const REFUSED_PAUSES: [Duration; 3] = [RELOGIN_PAUSE, Duration::from_secs(120), Duration::from_secs(300)];
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// After a session that lasted this long the pauses start over. A session that is lost at once, again and again, must not
/// cost a login a second.
const SETTLED: Duration = Duration::from_secs(10);

/// The pauses between logins, by what the last one came to.
pub(super) struct LoginBackoff {
    backoff: Backoff,
    /// When the login that followed the last refusal was allowed.
    last_relogin: Option<Instant>,
    /// How often in a row the login was refused.
    refusals: usize,
    /// The account is locked until then; no new password helps.
    locked_until: Option<Instant>,
    /// When a new password or key was last tried without a pause.
    new_secret_tried: Option<Instant>,
}

impl LoginBackoff {
    pub(super) fn new() -> Self {
        LoginBackoff {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            last_relogin: None,
            refusals: 0,
            locked_until: None,
            new_secret_tried: None,
        }
    }

    /// The pause after a refused login.
    pub(super) fn login_refused(&mut self, now: Instant, is_locked: bool) -> Duration {
        let pause = match REFUSED_PAUSES.get(self.refusals) {
            Some(pause) if !is_locked => *pause,
            _ => LONGEST_REFUSED_PAUSE,
        };
        self.refusals += 1;
        self.locked_until = is_locked.then_some(now + pause);
        self.last_relogin = Some(now + pause);
        pause
    }

    /// Whether to try a new password or key without a pause, which then counts as tried. It is once per longest pause: a
    /// password that changes again and again and is never right must not lock the account either.
    pub(super) fn try_new_secret(&mut self, now: Instant) -> bool {
        let was_tried = self.new_secret_tried.is_some_and(|it| now < it + LONGEST_REFUSED_PAUSE);
        let is_locked = self.locked_until.is_some_and(|it| now < it);
        if was_tried || is_locked {
            return false;
        }
        self.new_secret_tried = Some(now);
        self.last_relogin = Some(now);
        true
    }

    /// The login was accepted.
    pub(super) fn logged_in(&mut self) {
        self.refusals = 0;
        self.locked_until = None;
        self.new_secret_tried = None;
    }

    /// The pause after a controller that could not be reached or was busy.
    pub(super) fn login_failed(&mut self) -> Duration {
        self.backoff.pause()
    }

    /// The pause after the connection to a session was lost.
    pub(super) fn session_lost(&mut self, lasted: Duration) -> Duration {
        if lasted >= SETTLED {
            self.backoff.reset();
        }
        self.backoff.pause()
    }

    /// The pause after the APIC refused a session: the first login comes at once, every further one a minute after the
    /// one before.
    pub(super) fn session_refused(&mut self, now: Instant) -> Duration {
        let at = self.last_relogin.map_or(now, |it| now.max(it + RELOGIN_PAUSE));
        self.last_relogin = Some(at);
        at - now
    }
}

/// Whether the answer to a login says that the account is locked.
pub(super) fn is_locked(error: &Error) -> bool {
    let (Error::Unauthorized(text) | Error::Forbidden(text)) = error else { return false };
    let text = text.to_ascii_lowercase();
    ["locked", "lockout", "lock out", "blocked"].iter().any(|it| text.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W8: whenever a session is refused, the logins that follow are a minute apart, but for the first.
    #[test]
    fn logins_after_refusals_are_a_minute_apart() {
        let start = Instant::now();
        let mut backoff = LoginBackoff::new();
        for (refused_at, login_at) in [(0, 0), (5, 60), (66, 120), (121, 180), (300, 300), (301, 360)] {
            let pause = backoff.session_refused(start + Duration::from_secs(refused_at));
            assert_eq!(pause, Duration::from_secs(login_at - refused_at), "refused at {refused_at}");
        }
    }

    /// W8: a refused password is tried so seldom that an APIC never counts five failures within five minutes, which would
    /// lock the account for an hour; after a session the pauses start over.
    #[test]
    fn refused_passwords_lock_no_account() {
        let start = Instant::now();
        let mut backoff = LoginBackoff::new();
        for _ in 0..2 {
            let mut now = start;
            let mut logins = vec![now];
            for minutes in [1, 2, 5, 10, 10] {
                assert_eq!(backoff.login_refused(now, false), Duration::from_secs(60 * minutes));
                now += Duration::from_secs(60 * minutes);
                logins.push(now);
            }
            let in_five_minutes = |from: &Instant| {
                logins.iter().filter(|it| *it >= from && **it - *from <= Duration::from_secs(300)).count()
            };
            assert!(logins.iter().all(|it| in_five_minutes(it) < 4), "{logins:?}");
            backoff.logged_in();
        }
    }

    /// W8, F35: a password that was changed after it was refused is tried at once, but only once: one that is changed
    /// again and again, and never right, waits as one that stays wrong does.
    #[test]
    fn changed_passwords_are_no_way_around_the_pauses() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut backoff = LoginBackoff::new();
        assert_eq!(backoff.session_refused(at(0)), Duration::ZERO);
        backoff.login_refused(at(1), false);
        assert!(backoff.try_new_secret(at(1)));
        assert_eq!(backoff.login_refused(at(2), false), Duration::from_secs(120));
        assert!(!backoff.try_new_secret(at(2)) && !backoff.try_new_secret(at(600)));
        assert!(backoff.try_new_secret(at(601)), "much later another one is tried");
        backoff.logged_in();
        backoff.login_refused(at(700), false);
        assert!(backoff.try_new_secret(at(700)));
    }

    /// W8: an answer that speaks of a lock waits the longest, and no other password is tried meanwhile.
    #[test]
    fn a_locked_account_is_left_alone() {
        let start = Instant::now();
        for text in ["User account is LOCKED", "login blocked for 60 minutes", "local authentication: user lockout"] {
            assert!(is_locked(&Error::Unauthorized(text.to_owned())), "{text}");
        }
        assert!(!is_locked(&Error::Unauthorized("Username or password is incorrect".to_owned())));
        assert!(!is_locked(&Error::Busy("locked".to_owned())));
        let mut backoff = LoginBackoff::new();
        assert_eq!(backoff.login_refused(start, true), Duration::from_secs(600));
        assert!(!backoff.try_new_secret(start + Duration::from_secs(599)));
        assert!(backoff.try_new_secret(start + Duration::from_secs(600)));
    }

    /// W8: sessions that are lost at once cost fewer and fewer logins; after a good one the pauses start over.
    #[test]
    fn flapping_sessions_cost_fewer_and_fewer_logins() {
        let mut backoff = LoginBackoff::new();
        let second = Duration::from_secs(1);
        for longest in [1, 2, 4, 8, 16, 30, 30] {
            let pause = backoff.session_lost(second);
            assert!(pause >= longest * second / 2 && pause <= longest * second, "{pause:?} of {longest}");
        }
        assert!(backoff.session_lost(SETTLED) <= second);
    }
}
