//! Whether this process leads, and until when (K4): what the lease thread writes, and whoever acts on the fabric looks
//! at. How a Lease is won and kept is `kube::election`'s business.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

/// The tenure of a process that takes no part in an election: longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A handle on the tenure. Clones are the same.
#[derive(Clone)]
pub struct Tenure {
    state: Arc<Mutex<State>>,
    begin: Sender<()>,
    begun: Receiver<()>,
}

struct State {
    /// Counts the tenures: what is left of an earlier one does not pass for one of the present one.
    number: u64,
    until: Option<Instant>,
}

impl Tenure {
    /// For a candidate.
    pub fn none() -> Tenure {
        Tenure::new(None)
    }

    /// For a process that has nobody beside it.
    pub fn for_ever() -> Tenure {
        Tenure::new(Some(Instant::now() + FOR_EVER))
    }

    fn new(until: Option<Instant>) -> Tenure {
        let (begin, begun) = bounded(1);
        Tenure { state: Arc::new(Mutex::new(State { number: 0, until })), begin, begun }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the present tenure; nothing where this process does not lead.
    pub fn number(&self) -> Option<u64> {
        let state = self.state();
        state.until.is_some_and(|it| Instant::now() < it).then_some(state.number)
    }

    /// Whether this process leads, right now.
    pub fn is_held(&self) -> bool {
        self.number().is_some()
    }

    /// This process leads until then, anew or still.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        if state.until.replace(until).is_none() {
            state.number += 1;
        }
        // Also where it only goes on: it may have lapsed for a moment, and somebody waits. One that is still there says
        // the same.
        let _ = self.begin.try_send(());
    }

    /// This process leads no more.
    pub fn end(&self) {
        self.state().until = None;
    }

    /// Waits for a tenure, for the one thread that does so; nothing where the program stops.
    pub fn wait(&self, stop: &Receiver<()>) -> Option<u64> {
        loop {
            if let Some(number) = self.number() {
                return Some(number);
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

    /// K4: a tenure ends with its deadline, whoever forgets to say so, and each one that begins has a number of its own.
    #[test]
    fn a_tenure_ends_by_itself() {
        let (stop_sender, stop) = bounded::<()>(0);
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        assert_eq!(Tenure::for_ever().wait(&stop), Some(0));
        let tenure = Tenure::none();
        assert!(!tenure.is_held());
        tenure.extend(now + hour);
        assert_eq!(tenure.wait(&stop), Some(1));
        tenure.extend(now + 2 * hour);
        assert_eq!(tenure.number(), Some(1));
        tenure.extend(now);
        assert!(!tenure.is_held(), "its time is over");
        tenure.end();
        tenure.extend(now + hour);
        assert_eq!(tenure.wait(&stop), Some(2));
        tenure.end();
        drop(stop_sender);
        assert_eq!(tenure.wait(&stop), None);
    }

    /// K4: who waits for a tenure wakes up also where the present one had lapsed for a moment only.
    #[test]
    fn a_late_renewal_wakes_who_waits() {
        let ((_keep, stop), (sender, answer)) = (bounded(0), bounded(1));
        let tenure = Tenure::none();
        tenure.extend(Instant::now());
        let waiter = tenure.clone();
        std::thread::spawn(move || sender.send(waiter.wait(&stop)));
        while !tenure.begun.is_empty() {
            std::thread::yield_now();
        }
        tenure.extend(Instant::now() + Duration::from_secs(3600));
        assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(Some(1)));
    }
}
