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

/// The program's running threads by name.
pub struct Threads {
    running: BTreeMap<&'static str, JoinHandle<()>>,
    ends: Receiver<(&'static str, End)>,
    report: Sender<(&'static str, End)>,
}

impl Default for Threads {
    fn default() -> Self {
        let (report, ends) = unbounded();
        Threads { running: BTreeMap::new(), ends, report }
    }
}

impl Threads {
    /// Starts a thread. A panic in it is caught here and reported like every other end.
    pub fn spawn(
        &mut self,
        name: &'static str,
        body: impl FnOnce() -> Result<(), ExitError> + Send + 'static,
    ) -> std::io::Result<()> {
        let report = self.report.clone();
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let end = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => End::Returned,
                Ok(Err(failure)) => End::Failed(failure),
                Err(panic) => End::Panicked(message(&*panic)),
            };
            // The receiver lives as long as the program; after it there is no receiver.
            let _ = report.send((name, end));
        })?;
        self.running.insert(name, handle);
        Ok(())
    }

    /// The endings, one message for each thread.
    pub fn ends(&self) -> &Receiver<(&'static str, End)> {
        &self.ends
    }

    /// Waits until one thread has ended; false if it still runs at the deadline.
    pub fn wait_for(&mut self, name: &str, deadline: Instant) -> bool {
        while self.running.contains_key(name) && self.reap(deadline) {}
        !self.running.contains_key(name)
    }

    /// Joins all threads; the names of those that still run at the deadline.
    pub fn join(mut self, deadline: Instant) -> Vec<&'static str> {
        while !self.running.is_empty() && self.reap(deadline) {}
        self.running.into_keys().collect()
    }

    /// Joins the next thread that reports its end; false if none does until the deadline.
    fn reap(&mut self, deadline: Instant) -> bool {
        let Ok((name, _)) = self.ends.recv_deadline(deadline) else { return false };
        self.has_ended(name);
        true
    }

    /// Joins a thread whose end was reported.
    pub fn has_ended(&mut self, name: &str) {
        if let Some(handle) = self.running.remove(name) {
            // The report was its last act, so this takes no time; what a panic said was caught and reported.
            let _ = handle.join();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|it| (*it).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
