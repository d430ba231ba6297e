//! The APIC side: login, REST, websocket and subscriptions; and the writer. No rules about what should be on the
//! fabric live here.

pub mod decode;
pub mod envelope;
mod error;
mod query;
pub mod reading;

mod client;
mod controller;
mod event_sender;
mod handle;
mod pacer;
mod rate;
mod refresher;
mod session;

pub mod adapters;
pub mod traits;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender, unbounded};

pub use client::{Client, Lifetimes, SubscriptionId, token_in};
pub use controller::Controller;
pub use error::Error;
pub use handle::SessionHandle;
pub use pacer::RequestPacer;
pub use query::Query;
pub use refresher::Refresher;
pub use session::SessionManager;

#[cfg(test)]
pub(crate) use client::tests::session as test_session;
use event_sender::EventSender;

use crate::leadership::Leadership;
use crate::model::mo::MoChange;
use crate::net::Tls;
use crate::secret::Renewable;

/// Where the APIC is and who we are there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The controllers, tried in turn (A1).
    pub controllers: Vec<Controller>,
    /// Whom to trust.
    pub tls: Tls,
    /// The user, with its login domain where it has one (`apic:DOMAIN\\user`).
    pub username: String,
    /// The password; it counts from the next login on when it is renewed.
    pub password: Renewable,
    /// How fast requests follow one another (W8).
    pub pacer: RequestPacer,
}

/// What the APIC side tells the reconciler.
#[derive(Debug)]
pub enum Event {
    /// Logged in, and the websocket is open. What was read or subscribed before is void.
    Connected(Client),
    /// Objects changed.
    Changed {
        /// The subscriptions that say so.
        subscriptions: Vec<SubscriptionId>,
        /// The changes.
        changes: Vec<MoChange>,
    },
    /// Events may have been lost; the session goes on.
    Gap {
        /// The reason, for the log.
        why: String,
    },
    /// The session is gone; a new one is being made.
    Disconnected {
        /// The reason, for the log.
        why: String,
    },
}

/// The two threads of the APIC side, and the handle that others have on their session. There is one during a term
/// only.
pub fn link(
    settings: Settings,
    leadership: Leadership,
    events: Sender<Event>,
    stop: Receiver<()>,
) -> (SessionHandle, SessionManager, Refresher) {
    let link = SessionHandle::default();
    // Unbounded, but small: a handful of tasks for each L3Out.
    let (task_sender, tasks) = unbounded();
    let event_sender = EventSender::new(events.clone(), task_sender.clone());
    let refresher = Refresher::new(tasks, events, stop.clone(), link.clone(), event_sender.overflowed());
    let listener = SessionManager { settings, leadership, event_sender, tasks: task_sender, stop, link: link.clone() };
    (link, listener, refresher)
}

/// One session without a websocket, for `plan` and `run --once`. The controllers are tried in turn; where none
/// answers, the last one's error is told. A refused password is not tried elsewhere: accounts get locked (W8).
pub fn login(settings: &Settings) -> Result<Client, Error> {
    let mut result = Err(Error::Unreachable("no controller is configured".to_owned()));
    for controller in &settings.controllers {
        result = Client::login(settings, controller, settings.tls.agent(), None, Arc::new(AtomicBool::new(true)));
        if !matches!(result, Err(Error::Unreachable(_) | Error::Busy(_) | Error::Malformed(_))) {
            break;
        }
    }
    result
}
