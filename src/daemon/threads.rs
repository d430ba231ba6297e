//! Named threads whose ending is noticed (X1).

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::exit::ExitError;

/// How a thread ended.
#[derive(Debug)]
pub enum End {
    /// The thread returned, which is unexpected before the stop.
    Returned,
    /// It cannot go on: the message and the exit code.
    Failed(ExitError),
    /// A bug: the panic's message.
    Panicked(String),
}

/// The end of one thread.
#[derive(Debug)]
pub struct Ended {
    /// The thread's name.
    pub name: &'static str,
    /// How it ended.
    pub end: End,
    /// Threads may have the same name. Nothing for a thread that is not joined.
    id: Option<u64>,
}

/// The program's running threads.
pub struct Threads {
    next: u64,
    running: BTreeMap<u64, Running>,
    ends: Receiver<Ended>,
    report: Sender<Ended>,
}

struct Running {
    name: &'static str,
    handle: JoinHandle<()>,
}

/// Reports bugs in threads that are started elsewhere and not joined.
#[derive(Clone)]
pub struct PanicReporter(Sender<Ended>);

impl PanicReporter {
    /// Runs what a thread does; a panic in it ends the process as one in any other thread does (X1).
    pub fn run(&self, name: &'static str, body: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let _ = self.0.send(Ended { name, end: End::Panicked(message(&*panic)), id: None });
        }
    }
}

impl Default for Threads {
    fn default() -> Self {
        let (report, ends) = unbounded();
        Threads { next: 0, running: BTreeMap::new(), ends, report }
    }
}

impl Threads {
    /// Starts a thread. A panic in it is caught here and reported like every other end.
    pub fn spawn(
        &mut self,
        name: &'static str,
        body: impl FnOnce() -> Result<(), ExitError> + Send + 'static,
    ) -> std::io::Result<()> {
        let (report, id) = (self.report.clone(), self.next);
        self.next += 1;
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let end = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => End::Returned,
                Ok(Err(failure)) => End::Failed(failure),
                Err(panic) => End::Panicked(message(&*panic)),
            };
            // The receiver lives as long as the program; after it there is no receiver.
            let _ = report.send(Ended { name, end, id: Some(id) });
        })?;
        self.running.insert(id, Running { name, handle });
        Ok(())
    }

    /// The endings, one message for each thread.
    pub fn ends(&self) -> &Receiver<Ended> {
        &self.ends
    }

    /// For threads that are started elsewhere and not joined.
    pub fn panic_reporter(&self) -> PanicReporter {
        PanicReporter(self.report.clone())
    }

    /// Waits until one thread has ended; false if it still runs at the deadline.
    pub fn wait_for(&mut self, name: &str, deadline: Instant) -> bool {
        while self.is_running(name) && self.reap(deadline) {}
        !self.is_running(name)
    }

    /// Joins all threads; the names of those that still run at the deadline.
    pub fn join(mut self, deadline: Instant) -> Vec<&'static str> {
        while !self.running.is_empty() && self.reap(deadline) {}
        self.running.into_values().map(|thread| thread.name).collect()
    }

    fn is_running(&self, name: &str) -> bool {
        self.running.values().any(|thread| thread.name == name)
    }

    /// Joins the next thread that reports its end; false if none does until the deadline.
    fn reap(&mut self, deadline: Instant) -> bool {
        let Ok(ended) = self.ends.recv_deadline(deadline) else { return false };
        self.has_ended(&ended);
        true
    }

    /// Joins a thread whose end was reported.
    pub fn has_ended(&mut self, ended: &Ended) {
        if let Some(Running { handle, .. }) = ended.id.and_then(|id| self.running.remove(&id)) {
            // The report was its last act, so this takes no time. The message of a panic was caught and reported.
            let _ = handle.join();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|it| (*it).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
