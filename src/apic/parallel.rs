//! Several requests at once (W9): how many, and the threads that send them. What they ask and learn goes through the thread
//! that called, which owns the state.

use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::error::Error;
use super::traits::ShouldSend;

/// For how long the number of requests in flight is halved.
const CALM: Duration = Duration::from_secs(60);

/// How many requests may be in flight together.
#[derive(Debug)]
pub(super) struct Parallel {
    most: usize,
    halved_until: Mutex<Option<Instant>>,
}

impl Parallel {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Parallel { most: most.max(1), halved_until: Mutex::new(None) }
    }

    /// The controller refused or did not answer a request.
    pub(super) fn not_served(&self, now: Instant) {
        *self.halved_until() = Some(now + CALM);
    }

    /// How many may be in flight now.
    pub(super) fn at_once(&self, now: Instant) -> usize {
        let is_halved = self.halved_until().is_some_and(|until| now < until);
        if is_halved { (self.most / 2).max(1) } else { self.most }
    }

    fn halved_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.halved_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends several requests, each in a thread of its own, and waits for all answers, which come in the order of the requests.
/// `should_send` is asked on the calling thread, for each request right before each attempt.
pub(super) fn send_all<R: Sync, T: Send>(
    requests: &[R],
    should_send: &dyn Fn(&R) -> bool,
    send: impl Fn(&R, &ShouldSend<'_>) -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    if let [request] = requests {
        return vec![send(request, &|| should_send(request))];
    }
    thread::scope(|scope| {
        let (ask, questions) = bounded::<(usize, Sender<bool>)>(requests.len());
        let threads: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(at, request)| {
                let (ask, send) = (ask.clone(), &send);
                let may_send = move || {
                    let (reply, answer) = bounded(1);
                    ask.send((at, reply)).is_ok() && answer.recv().unwrap_or(false)
                };
                let name = format!("apic-request-{at}");
                thread::Builder::new().name(name).spawn_scoped(scope, move || send(request, &may_send))
            })
            .collect();
        drop(ask);
        for (at, reply) in questions {
            // A thread that does not wait for the reply has ended.
            let _ = reply.send(requests.get(at).is_some_and(should_send));
        }
        threads
            .into_iter()
            .map(|thread| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(error) => Err(Error::Unreachable(format!("failed to start a thread: {error}"))),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Barrier;

    use super::*;

    /// W9: a refusal halves the number for a minute, and it never falls below one.
    #[test]
    fn a_refusal_halves_the_number() {
        let start = Instant::now();
        for (most, halved) in [(1, 1), (2, 1), (4, 2), (8, 4)] {
            let parallel = Parallel::new(most);
            assert_eq!(parallel.at_once(start), most);
            parallel.not_served(start);
            parallel.not_served(start + Duration::from_secs(1));
            assert_eq!(parallel.at_once(start + Duration::from_secs(60)), halved);
            assert_eq!(parallel.at_once(start + Duration::from_secs(61)), most);
        }
    }

    /// W9: the requests are in flight together, the answers keep their order, and the calling thread is asked for each
    /// request.
    #[test]
    fn requests_are_in_flight_together() {
        let all_in_flight = Barrier::new(3);
        // Not shared between threads: only the calling one uses it.
        let asked = Cell::new(0);
        let should_send = |request: &usize| {
            asked.set(asked.get() + 1);
            *request != 2
        };
        let answers = send_all(&[1, 2, 3], &should_send, |request, may_send| {
            let may = may_send();
            all_in_flight.wait();
            if may { Ok(*request * 10) } else { Err(Error::NotSent) }
        });
        assert_eq!(asked.get(), 3);
        assert!(matches!(answers[..], [Ok(10), Err(Error::NotSent), Ok(30)]), "{answers:?}");
    }

    /// X1: a bug in one of the threads is not lost.
    #[test]
    fn a_panic_goes_through() {
        let send_all =
            || send_all(&[1, 2], &|_| true, |request, _| if *request == 2 { panic!("a bug") } else { Ok(()) });
        assert!(std::panic::catch_unwind(send_all).is_err());
    }
}
