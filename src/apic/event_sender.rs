//! How websocket events get to the reconciler without ever holding up the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Sender, TrySendError};
use log::debug;

use super::Event;
use super::refresher::Task;

/// The listener's end of the queue. An event that does not fit is dropped, and the refresher, which has the time to
/// wait, tells of the gap as soon as there is room.
pub(super) struct EventSender {
    events: Sender<Event>,
    tasks: Sender<Task>,
    overflowed: OverflowFlag,
}

/// Whether a gap is to be told already. It keeps the tasks at one, however many events are dropped.
#[derive(Clone, Default)]
pub(super) struct OverflowFlag(Arc<AtomicBool>);

impl OverflowFlag {
    /// The task was taken up: what is dropped from now on is another gap.
    pub(super) fn taken_up(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl EventSender {
    pub(super) fn new(events: Sender<Event>, tasks: Sender<Task>) -> Self {
        EventSender { events, tasks, overflowed: OverflowFlag::default() }
    }

    pub(super) fn overflowed(&self) -> OverflowFlag {
        self.overflowed.clone()
    }

    /// The queue itself, for what must not be dropped.
    pub(super) fn events(&self) -> &Sender<Event> {
        &self.events
    }

    /// Hands an event over or makes it a gap, without waiting. False where nobody is left to take it.
    pub(super) fn offer(&self, event: Event) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                if self.overflowed.0.swap(true, Ordering::SeqCst) {
                    return true;
                }
                // What follows from it is told by the reconciler, once; this may happen very often in a storm.
                debug!("more events than can be served one by one");
                self.tasks.send(Task::Overflow).is_ok()
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::*;
    use crate::apic::handle::SessionHandle;
    use crate::apic::refresher::Refresher;

    fn event(name: &str) -> Event {
        Event::Gap { why: name.to_owned() }
    }

    fn why(events: &Receiver<Event>) -> String {
        match events.recv().unwrap() {
            Event::Gap { why } => why,
            other => panic!("{other:?}"),
        }
    }

    /// X3: a full queue holds nothing up and costs one task, however many events are dropped.
    #[test]
    fn a_full_queue_holds_nothing_up() {
        let (events, queue) = bounded(1);
        let (task_sender, tasks) = unbounded();
        let event_sender = EventSender::new(events, task_sender);
        for _ in 0..1000 {
            assert!(event_sender.offer(event("a change")));
        }
        assert_eq!((queue.len(), tasks.len()), (1, 1));
        drop(queue);
        assert!(!event_sender.offer(event("for nobody")));
    }

    /// R4: what was dropped is told as a gap once there is room, every time again.
    #[test]
    fn what_was_dropped_is_a_gap() {
        let (events, queue) = bounded(1);
        let (task_sender, tasks) = unbounded();
        let (stop_sender, stop) = bounded::<()>(0);
        let event_sender = EventSender::new(events.clone(), task_sender);
        let refresher = Refresher::new(tasks, events, stop, SessionHandle::default(), event_sender.overflowed());
        let refresher = thread::spawn(move || refresher.run());
        for _ in 0..3 {
            assert!(event_sender.offer(event("a change")));
            assert!(event_sender.offer(event("one too many")));
            assert_eq!(why(&queue), "a change");
            assert_eq!(why(&queue), "too many events at once");
        }
        drop(stop_sender);
        refresher.join().unwrap();
    }
}
