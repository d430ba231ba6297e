//! The APIC: sessions (login, REST, websocket, subscriptions), typed decoding, and the one writer. What should be on the
//! fabric is decided elsewhere.

pub mod adapters;
pub mod decode;
pub mod envelope;
pub mod reading;
pub mod traits;
pub mod writer;

mod auth;
mod client;
mod controller;
mod error;
mod event;
mod event_sender;
mod handle;
mod http;
mod login_backoff;
mod pacer;
mod parallel;
mod query;
mod rate;
mod refresh_schedule;
mod refresher;
mod session_manager;
mod settings;
mod subscription;
mod task;
mod websocket;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

pub use auth::{Credentials, Identity, Lifetimes, end_of_certificate, is_certificate_dn, private_key, token_in};
pub use client::Client;
pub use controller::Controller;
pub use error::Error;
pub use event::Event;
pub use handle::SessionHandle;
pub use pacer::RequestPacer;
pub use query::Query;
pub use refresher::Refresher;
pub use session_manager::SessionManager;
pub use settings::Settings;
pub use subscription::SubscriptionId;

#[cfg(test)]
pub(crate) use client::tests::session as test_session;
use event_sender::EventSender;

use crate::leadership::Leadership;

/// The two threads of the APIC side, and a handle on their session. There is a session during a term of leadership only.
pub fn session_threads(
    settings: Settings,
    leadership: Leadership,
    events: Sender<Event>,
    stop: Receiver<()>,
) -> (SessionHandle, SessionManager, Refresher) {
    let handle = SessionHandle::default();
    // Unbounded, but small: a handful of tasks for each L3Out.
    let (task_sender, tasks) = unbounded();
    let event_sender = EventSender::new(events.clone(), task_sender.clone());
    let refresher = Refresher::new(tasks, events, stop.clone(), handle.clone(), event_sender.overflow());
    let manager = SessionManager::new(settings, leadership, event_sender, task_sender, stop, handle.clone());
    (handle, manager, refresher)
}

/// The pause between logins at several controllers; an APIC takes two a second.
const LOGIN_PAUSE: Duration = Duration::from_millis(600);

/// Logs in at one more controller, a while after the last login, and out again (`check`).
pub fn try_login(settings: &Settings, controller: &Controller) -> Result<(), Error> {
    settings.pacer.wait(LOGIN_PAUSE, &|| true)?;
    let session = Client::login(settings, controller, settings.tls.agent(), None, Arc::default())?;
    session.logout();
    Ok(())
}

/// Opens the websocket of a session, subscribes to an object for a minute if there is one, and closes it (`check`).
pub fn try_events(settings: &Settings, session: &Client, object: Option<&Query>) -> Result<(), Error> {
    settings.pacer.wait_after_login()?;
    let socket = session.open_websocket(&|_| Ok(()))?;
    let result = object.map_or(Ok(()), |query| session.try_subscription(query));
    drop(socket);
    result
}

/// Makes one session without a websocket, for `plan` and `run --once`. The controllers are tried in turn, and the last error
/// is returned. A refused login is not tried at another controller: that could lock the account (W8).
pub fn login(settings: &Settings) -> Result<Client, Error> {
    let mut result = Err(Error::Unreachable("no controller is configured".to_owned()));
    for controller in &settings.controllers {
        let extends = Arc::new(AtomicBool::new(true));
        result = Client::login(settings, controller, settings.tls.agent(), None, extends).map_err(|error| {
            error.in_context(&format!("login at {controller} as {:?}", settings.credentials.identity().to_string()))
        });
        if !matches!(result, Err(Error::Unreachable(_) | Error::Busy(_) | Error::Malformed(_))) {
            break;
        }
    }
    result
}
