//! Several requests at once (W9): how many, and the threads that send them. They get a request and give an answer; what to
//! send, whether to send it still and what follows from the answer is the business of the thread that called.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::error::Error;
use super::traits::{Requests, ShouldSend};

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

/// How a worker sends one request. Not a type parameter, since this is much code.
pub(super) type SendOne<'a, R, T> = dyn Fn(&R, &ShouldSend<'_>) -> Result<T, Error> + Sync + 'a;

/// What a worker says to the thread that sends.
enum Report<T> {
    /// It is about to make an attempt and waits for the reply.
    MaySend(Sender<bool>),
    /// The answer, or a panic.
    Answered(thread::Result<Result<T, Error>>),
}

/// Sends requests until there is none and all are answered, each in a worker thread. `may_start` says whether one more may
/// be sent with so many in flight, and is asked when those in flight have taken their turns. Besides
/// [`Requests::should_send`], `should_continue` is asked right before each attempt.
pub(super) fn send_all<R: Send, T: Send>(
    requests: &mut dyn Requests<R, T>,
    may_start: &dyn Fn(usize) -> bool,
    should_continue: &ShouldSend<'_>,
    send: &SendOne<'_, R, T>,
) {
    thread::scope(|scope| {
        let (start, queue) = unbounded();
        let (report, reports) = unbounded();
        let (mut threads, mut in_flight) = (0, 0);
        // A request that has not taken its turn yet.
        let mut starting = None;
        loop {
            if starting.is_none()
                && may_start(in_flight)
                && let Some((number, request)) = requests.next()
            {
                if threads == in_flight {
                    let (queue, report) = (queue.clone(), report.clone());
                    let name = format!("apic-request-{threads}");
                    let worker =
                        thread::Builder::new().name(name).spawn_scoped(scope, move || work(queue, report, send));
                    if let Err(error) = worker {
                        let error = Error::Unreachable(format!("failed to start a thread: {error}"));
                        requests.answered(number, Err(error));
                        continue;
                    }
                    threads += 1;
                }
                // Workers end with this function.
                let _ = start.send((number, request));
                (starting, in_flight) = (Some(number), in_flight + 1);
            }
            if in_flight == 0 {
                return;
            }
            let Ok((number, report)) = reports.recv() else { return };
            starting = starting.filter(|it| *it != number);
            match report {
                Report::MaySend(reply) => {
                    // A worker waits for it.
                    let _ = reply.send(should_continue() && requests.should_send(number));
                }
                Report::Answered(answer) => {
                    in_flight -= 1;
                    requests.answered(number, answer.unwrap_or_else(|panic| resume_unwind(panic)));
                }
            }
        }
    });
}

/// Sends one request after the other.
fn work<R, T>(queue: Receiver<(usize, R)>, report: Sender<(usize, Report<T>)>, send: &SendOne<'_, R, T>) {
    for (number, request) in queue {
        let may_send = || {
            let (reply, answer) = bounded(1);
            report.send((number, Report::MaySend(reply))).is_ok() && answer.recv().unwrap_or(false)
        };
        let answer = catch_unwind(AssertUnwindSafe(|| send(&request, &may_send)));
        // The other side ends earlier only if it panics.
        let _ = report.send((number, Report::Answered(answer)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// Requests with the numbers up to `last`; `refused` must not be sent.
    struct Numbers {
        last: usize,
        sent: usize,
        refused: usize,
        /// Not shared between threads: only the calling one uses it.
        asked: Cell<usize>,
        answers: Vec<(usize, Option<usize>)>,
    }

    impl Numbers {
        fn up_to(last: usize) -> Numbers {
            Numbers { last, sent: 0, refused: 0, asked: Cell::new(0), answers: Vec::new() }
        }
    }

    impl Requests<usize, usize> for Numbers {
        fn next(&mut self) -> Option<(usize, usize)> {
            self.sent += 1;
            (self.sent <= self.last).then_some((self.sent, self.sent * 10))
        }

        fn should_send(&self, number: usize) -> bool {
            self.asked.set(self.asked.get() + 1);
            number != self.refused
        }

        fn answered(&mut self, number: usize, answer: Result<usize, Error>) {
            self.answers.push((number, answer.ok()));
        }
    }

    /// W9: as many requests as may be are in flight together, and the calling thread is asked for each of them.
    #[test]
    fn requests_are_in_flight_together() {
        let all_in_flight = Barrier::new(3);
        let mut numbers = Numbers { refused: 2, ..Numbers::up_to(3) };
        send_all(&mut numbers, &|in_flight| in_flight < 3, &|| true, &|request, may_send| {
            let may = may_send();
            all_in_flight.wait();
            if may { Ok(*request) } else { Err(Error::NotSent) }
        });
        numbers.answers.sort();
        assert_eq!((numbers.asked.get(), numbers.answers), (3, vec![(1, Some(10)), (2, None), (3, Some(30))]));
    }

    /// W9: the next request starts as soon as one is answered, although another one is still in flight.
    #[test]
    fn a_slow_answer_holds_no_other_up() {
        let (first_of_all, last) = (Barrier::new(2), 50);
        let mut numbers = Numbers::up_to(last);
        send_all(&mut numbers, &|in_flight| in_flight < 2, &|| true, &|request, may_send| {
            may_send();
            // The first one is answered when the last one is sent.
            if [10, last * 10].contains(request) {
                first_of_all.wait();
            }
            Ok(*request)
        });
        assert_eq!(numbers.answers.len(), last);
        assert_eq!(numbers.answers[0].0, 2);
    }

    /// W8: whether one more may be sent is asked when those in flight have taken their turns.
    #[test]
    fn a_request_takes_its_turn_before_the_next_one_starts() {
        let taken = AtomicUsize::new(0);
        let may_start = |in_flight| {
            assert!(taken.load(Ordering::SeqCst) >= in_flight);
            in_flight < 8
        };
        send_all(&mut Numbers::up_to(100), &may_start, &|| true, &|_, may_send| {
            taken.fetch_add(1, Ordering::SeqCst);
            may_send();
            Ok(0)
        });
        assert_eq!(taken.into_inner(), 100);
    }

    /// X1: a bug in one of the threads is not lost, and the others end.
    #[test]
    fn a_panic_goes_through() {
        let send_all = || {
            send_all(&mut Numbers::up_to(3), &|in_flight| in_flight < 3, &|| true, &|request, may_send| {
                may_send();
                if *request == 20 { panic!("a bug") } else { Ok(usize::from(may_send())) }
            });
        };
        assert!(catch_unwind(send_all).is_err());
    }
}
