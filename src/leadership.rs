//! Whether this process leads, and until when (K4). The lease thread decides; the APIC session manager waits for a term,
//! the event loop is notified of each change, and every write checks the deadline. How a Lease is won and kept is in
//! `kube::election`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

/// The term of a process without leader election: longer than any process runs.
const PERMANENT: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Leadership as a deadline. Clones share it.
#[derive(Clone)]
pub struct Leadership {
    state: Arc<Mutex<State>>,
    begun: Signal,
    changed: Signal,
}

struct State {
    /// Counts the terms, so that what belongs to an earlier term is recognized.
    term: u64,
    until: Option<Instant>,
}

impl State {
    fn present_term(&self) -> Option<u64> {
        self.until.is_some_and(|it| Instant::now() < it).then_some(self.term)
    }
}

/// Wakes one waiting thread; signals that come before it looks are one.
#[derive(Clone)]
struct Signal {
    sender: Sender<()>,
    receiver: Receiver<()>,
}

impl Signal {
    fn new() -> Signal {
        let (sender, receiver) = bounded(1);
        Signal { sender, receiver }
    }

    fn send(&self) {
        // A full channel holds a signal already.
        let _ = self.sender.try_send(());
    }
}

impl Leadership {
    /// The term of processes without leader election. Elected processes count their terms from 1.
    pub const PERMANENT_TERM: u64 = 0;

    /// For a process that takes part in an election.
    pub fn not_yet() -> Leadership {
        Leadership::new(None)
    }

    /// For a process without leader election.
    pub fn permanent() -> Leadership {
        Leadership::new(Some(Instant::now() + PERMANENT))
    }

    fn new(until: Option<Instant>) -> Leadership {
        let state = Arc::new(Mutex::new(State { term: Leadership::PERMANENT_TERM, until }));
        Leadership { state, begun: Signal::new(), changed: Signal::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present term; `None` while this process does not lead.
    pub fn term(&self) -> Option<u64> {
        self.state().present_term()
    }

    /// Whether this process leads, right now.
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// Begins a term or prolongs the present one.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        if state.until.is_none() {
            state.term += 1;
        }
        let was_leading = state.present_term().is_some();
        state.until = Some(until);
        drop(state);
        // Also if the deadline of the same term had passed for a moment.
        if !was_leading {
            self.begun.send();
            self.changed.send();
        }
    }

    /// Ends the term.
    pub fn end(&self) {
        self.state().until = None;
        self.changed.send();
    }

    /// Wakes the event loop when a term may have begun or ended; what it is now, [`Leadership::term`] returns. A deadline
    /// that passes by itself sends nothing.
    pub fn changes(&self) -> &Receiver<()> {
        &self.changed.receiver
    }

    /// Waits for a term; `None` if the program stops. For the one thread that makes APIC sessions.
    pub fn wait(&self, stop: &Receiver<()>) -> Option<u64> {
        loop {
            if let Some(term) = self.term() {
                return Some(term);
            }
            select! {
                recv(self.begun.receiver) -> _ => {}
                recv(stop) -> _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K4: a term ends with its deadline by itself, and each term has a number of its own.
    #[test]
    fn a_term_ends_at_its_deadline() {
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

    /// K4: a thread that waits for a term also wakes up if the present one had lapsed for a moment only.
    #[test]
    fn a_late_renewal_wakes_the_waiting_thread() {
        let ((_keep, stop), (sender, answer)) = (bounded(0), bounded(1));
        let leadership = Leadership::not_yet();
        leadership.extend(Instant::now());
        let waiter = leadership.clone();
        std::thread::spawn(move || sender.send(waiter.wait(&stop)));
        while !leadership.begun.receiver.is_empty() {
            std::thread::yield_now();
        }
        leadership.extend(Instant::now() + Duration::from_secs(3600));
        assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(Some(1)));
    }
}
