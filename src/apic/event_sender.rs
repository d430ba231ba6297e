//! The session manager's end of the queue to the reconciler. It never blocks the websocket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Sender, TrySendError};
use log::debug;

use super::event::Event;
use super::task::Task;
use crate::metrics;

/// Sends events. One that does not fit into the queue is dropped; the refresher, which can wait, reports the gap as soon as
/// there is room.
pub(super) struct EventSender {
    events: Sender<Event>,
    tasks: Sender<Task>,
    overflow: OverflowFlag,
}

/// Whether the refresher has a gap to report already: it needs one task, however many events are dropped.
#[derive(Clone, Default)]
pub(super) struct OverflowFlag(Arc<AtomicBool>);

impl OverflowFlag {
    /// Sets the flag; whether it was set before.
    fn set(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }

    /// The refresher has taken the task: the next dropped event is another gap.
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl EventSender {
    pub(super) fn new(events: Sender<Event>, tasks: Sender<Task>) -> Self {
        EventSender { events, tasks, overflow: OverflowFlag::default() }
    }

    pub(super) fn overflow(&self) -> OverflowFlag {
        self.overflow.clone()
    }

    /// The queue itself, for events that must not be dropped.
    pub(super) fn events(&self) -> &Sender<Event> {
        &self.events
    }

    /// Sends an event, or drops it if the queue is full. False if there is no receiver any more.
    pub(super) fn offer(&self, event: Event) -> bool {
        let sent = self.events.try_send(event);
        metrics::queue_length(metrics::Queue::Fabric, self.events.len());
        if matches!(sent, Err(TrySendError::Full(_))) {
            metrics::dropped(metrics::Queue::Fabric);
        }
        match sent {
            Ok(()) => true,
            Err(TrySendError::Full(_)) if self.overflow.set() => true,
            Err(TrySendError::Full(_)) => {
                // The reconciler logs the gap, once. In a storm this may happen very often.
                debug!("event queue full; dropping events");
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
        Event::Gap { reason: name.to_owned() }
    }

    fn reason(events: &Receiver<Event>) -> String {
        match events.recv().unwrap() {
            Event::Gap { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// X3: a full queue blocks nothing and costs one task, however many events are dropped.
    #[test]
    fn a_full_queue_blocks_nothing() {
        let (events, queue) = bounded(1);
        let (task_sender, tasks) = unbounded();
        let event_sender = EventSender::new(events, task_sender);
        for _ in 0..1000 {
            assert!(event_sender.offer(event("a change")));
        }
        assert_eq!((queue.len(), tasks.len()), (1, 1));
        drop(queue);
        assert!(!event_sender.offer(event("no receiver")));
    }

    /// R4: dropped events are reported as a gap once there is room, each time.
    #[test]
    fn dropped_events_are_a_gap() {
        let (events, queue) = bounded(1);
        let (task_sender, tasks) = unbounded();
        let (stop_sender, stop) = bounded::<()>(0);
        let event_sender = EventSender::new(events.clone(), task_sender);
        let refresher = Refresher::new(tasks, events, stop, SessionHandle::default(), event_sender.overflow());
        let refresher = thread::spawn(move || refresher.run());
        for _ in 0..3 {
            assert!(event_sender.offer(event("a change")));
            assert!(event_sender.offer(event("one too many")));
            assert_eq!(reason(&queue), "a change");
            assert_eq!(reason(&queue), "too many events at once");
        }
        drop(stop_sender);
        refresher.join().unwrap();
    }
}
