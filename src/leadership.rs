//! Whether this process leads, and until when (K4): what the lease thread writes, and whoever acts on the fabric looks
//! at. How a Lease is won and kept is `kube::election`'s business.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

/// The term of a process that takes no part in an election: longer than any process runs.
const PERMANENT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A handle on the term. Clones are the same.
#[derive(Clone)]
pub struct Leadership {
    state: Arc<Mutex<State>>,
    begin: Sender<()>,
    begun: Receiver<()>,
}

struct State {
    /// Counts the terms: what is left of an earlier one does not pass for one of the present one.
    term: u64,
    until: Option<Instant>,
}

impl Leadership {
    /// For a candidate.
    pub fn not_yet() -> Leadership {
        Leadership::new(None)
    }

    /// For a process that has nobody beside it.
    pub fn permanent() -> Leadership {
        Leadership::new(Some(Instant::now() + PERMANENT))
    }

    fn new(until: Option<Instant>) -> Leadership {
        let (begin, begun) = bounded(1);
        Leadership { state: Arc::new(Mutex::new(State { term: 0, until })), begin, begun }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term of the present term; nothing where this process does not lead.
    pub fn term(&self) -> Option<u64> {
        let state = self.state();
        state.until.is_some_and(|it| Instant::now() < it).then_some(state.term)
    }

    /// Whether this process leads, right now.
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// This process leads until then, anew or still.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        if state.until.replace(until).is_none() {
            state.term += 1;
        }
        // Also where it only goes on: it may have lapsed for a moment, and somebody waits. One that is still there says
        // the same.
        let _ = self.begin.try_send(());
    }

    /// This process leads no more.
    pub fn end(&self) {
        self.state().until = None;
    }

    /// Waits for a term, for the one thread that does so; nothing where the program stops.
    pub fn wait(&self, stop: &Receiver<()>) -> Option<u64> {
        loop {
            if let Some(term) = self.term() {
                return Some(term);
            }
            select! {
                recv(self.begun) -> _ => {}
                recv(stop) -> _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K4: a term ends with its deadline, whoever forgets to say so, and each one that begins has a term of its own.
    #[test]
    fn a_tenure_ends_by_itself() {
        let (stop_sender, stop) = bounded::<()>(0);
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        assert_eq!(Leadership::permanent().wait(&stop), Some(0));
        let leadership = Leadership::not_yet();
        assert!(!leadership.is_leader());
        leadership.extend(now + hour);
        assert_eq!(leadership.wait(&stop), Some(1));
        leadership.extend(now + 2 * hour);
        assert_eq!(leadership.term(), Some(1));
        leadership.extend(now);
        assert!(!leadership.is_leader(), "its time is over");
        leadership.end();
        leadership.extend(now + hour);
        assert_eq!(leadership.wait(&stop), Some(2));
        leadership.end();
        drop(stop_sender);
        assert_eq!(leadership.wait(&stop), None);
    }

    /// K4: who waits for a term wakes up also where the present one had lapsed for a moment only.
    #[test]
    fn a_late_renewal_wakes_who_waits() {
        let ((_keep, stop), (sender, answer)) = (bounded(0), bounded(1));
        let leadership = Leadership::not_yet();
        leadership.extend(Instant::now());
        let waiter = leadership.clone();
        std::thread::spawn(move || sender.send(waiter.wait(&stop)));
        while !leadership.begun.is_empty() {
            std::thread::yield_now();
        }
        leadership.extend(Instant::now() + Duration::from_secs(3600));
        assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(Some(1)));
    }
}
