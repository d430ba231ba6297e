//! The thread that makes sessions and listens to their websocket: login, events, and a new session after either is lost
//! (A1, W8). It is the only place that logs in for `run`, so there is never more than one login at a time, and only during
//! a term of leadership (K4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use log::{debug, error, warn};

use super::client::Client;
use super::controller::Controller;
use super::decode;
use super::error::Error;
use super::event::Event;
use super::event_sender::EventSender;
use super::handle::SessionHandle;
use super::login_backoff::{LoginBackoff, RELOGIN_PAUSE, is_locked};
use super::settings::Settings;
use super::subscription::{SubscriptionChange, SubscriptionId};
use super::task::Task;
use super::websocket::EventSocket;
use crate::backoff::{Backoff, seconds, stopped, stopped_within};
use crate::leadership::Leadership;
use crate::metrics;
use crate::secret::Secret;

/// How often a busy controller is asked for the websocket of one session, and the pauses in between.
const WEBSOCKET_ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// How often to look for a new password or key during the pause after a refused one.
const SECRET_CHECK: Duration = Duration::from_secs(1);

/// The session manager thread.
pub struct SessionManager {
    settings: Settings,
    leadership: Leadership,
    event_sender: EventSender,
    tasks: Sender<Task>,
    stop: Receiver<()>,
    handle: SessionHandle,
    backoff: LoginBackoff,
    /// Whether the APIC honors `refresh-timeout`. Shared by the sessions that follow one another.
    extends: Arc<AtomicBool>,
    /// The last error of each controller since the last session. One that repeats is logged once.
    last_errors: BTreeMap<String, String>,
    /// The APIC has judged the password or the key since it was read.
    is_secret_used: bool,
}

/// How a session, or the attempt to make one, ended.
enum SessionEnd {
    /// The APIC did not accept the credentials.
    LoginRefused(Error),
    /// There was none, for another reason.
    LoginFailed(Error),
    /// The APIC does not accept it any more.
    Refused(String),
    /// It was lost for another reason.
    Lost(String),
}

/// The program is stopping.
struct Stopped;

impl SessionManager {
    pub(super) fn new(
        settings: Settings,
        leadership: Leadership,
        event_sender: EventSender,
        tasks: Sender<Task>,
        stop: Receiver<()>,
        handle: SessionHandle,
    ) -> Self {
        SessionManager {
            settings,
            leadership,
            event_sender,
            tasks,
            stop,
            handle,
            backoff: LoginBackoff::new(),
            extends: Arc::new(AtomicBool::new(true)),
            last_errors: BTreeMap::new(),
            is_secret_used: false,
        }
    }

    /// Makes sessions and listens until the program stops.
    pub fn run(mut self) {
        let controllers = self.settings.controllers.clone();
        for controller in controllers.iter().cycle() {
            let Some(term) = self.leadership.wait(&self.stop) else { return };
            if self.serve(controller, term).is_err() {
                return;
            }
        }
    }

    /// One session at a controller, or one attempt to make it, and the pause that follows.
    fn serve(&mut self, controller: &Controller, term: u64) -> Result<(), Stopped> {
        // It may have been changed meanwhile, and a login with the old one would be refused (F35).
        if std::mem::take(&mut self.is_secret_used) {
            self.read_secret();
        }
        let begun = Instant::now();
        let secret = self.settings.credentials.secret().get();
        let end = self.session(controller, term)?;
        self.is_secret_used = !matches!(end, SessionEnd::LoginFailed(_));
        let now = Instant::now();
        match end {
            SessionEnd::LoginRefused(error) => {
                let pause = self.login_refused(controller, &error, now);
                self.wait_for_secret(pause, &secret)
            }
            SessionEnd::LoginFailed(error) => {
                let pause = self.backoff.login_failed();
                self.log_failed_login(controller, &error, pause);
                self.wait(pause)
            }
            SessionEnd::Refused(reason) => {
                self.session_ended(reason)?;
                let pause = self.backoff.session_refused(now);
                self.wait(pause)
            }
            SessionEnd::Lost(reason) => {
                self.session_ended(reason)?;
                let pause = self.backoff.session_lost(now - begun);
                self.wait(pause)
            }
        }
    }

    /// Logs a refused login; the pause before the next one, which a new password or key makes unnecessary.
    fn login_refused(&mut self, controller: &Controller, error: &Error, now: Instant) -> Duration {
        let is_locked = is_locked(error);
        let is_new_secret = self.read_secret();
        let pause = self.backoff.login_refused(now, is_locked);
        let (user, retry_in) = (self.settings.credentials.identity(), seconds(pause));
        if is_new_secret && self.backoff.try_new_secret(now) {
            error!(controller:%, user:%, error:%; "APIC login refused; trying the new credentials");
            return Duration::ZERO;
        }
        if is_locked {
            error!(controller:%, user:%, error:%, retry_in; "APIC login refused; the account seems to be locked");
        } else {
            error!(controller:%, user:%, error:%, retry_in; "APIC login refused; check the credentials");
        }
        pause
    }

    fn log_failed_login(&mut self, controller: &Controller, error: &Error, pause: Duration) {
        let text = error.to_string();
        let retry_in = seconds(pause);
        if self.last_errors.get(&controller.authority()) == Some(&text) {
            debug!(controller:%, error = text, retry_in; "failed to open an APIC session again");
        } else {
            warn!(controller:%, error = text, retry_in; "failed to open an APIC session; trying the controllers in turn");
        }
        self.last_errors.insert(controller.authority(), text);
    }

    fn session_ended(&mut self, reason: String) -> Result<(), Stopped> {
        metrics::apic_session_lost();
        self.last_errors.clear();
        self.backoff.logged_in();
        self.send(Event::Disconnected { reason })
    }

    fn wait(&self, pause: Duration) -> Result<(), Stopped> {
        if stopped_within(&self.stop, pause) { Err(Stopped) } else { Ok(()) }
    }

    /// Waits after a refused login. A new password or key ends the wait: at once if SIGHUP read it, within a minute if only its file
    /// has it.
    fn wait_for_secret(&mut self, pause: Duration, refused: &Secret) -> Result<(), Stopped> {
        let begun = Instant::now();
        let end = begun + pause;
        let mut read_at = begun + RELOGIN_PAUSE;
        loop {
            let now = Instant::now();
            if now >= end {
                return self.wait(Duration::ZERO);
            }
            if read_at <= now {
                read_at = now + RELOGIN_PAUSE;
                self.read_secret();
            }
            if self.settings.credentials.secret().get() != *refused && self.backoff.try_new_secret(now) {
                return self.wait(Duration::ZERO);
            }
            self.wait(SECRET_CHECK.min(end - now))?;
        }
    }

    /// Reads the password or the key again; whether it has changed.
    fn read_secret(&self) -> bool {
        self.settings.credentials.secret().renew().unwrap_or_else(|error| {
            warn!(error; "failed to read the APIC credentials again; the old ones stay in use");
            false
        })
    }

    /// One session from login to loss, within one term.
    fn session(&self, controller: &Controller, term: u64) -> Result<SessionEnd, Stopped> {
        self.handle.clear_request();
        // Unbounded, but small: a few changes for each L3Out.
        let (subscriptions, subscription_changes) = unbounded();
        let client = match self.login(controller, subscriptions, term) {
            Ok(client) => client,
            Err(_) if stopped(&self.stop) => return Err(Stopped),
            Err(error @ (Error::Unauthorized(_) | Error::Forbidden(_))) => return Ok(SessionEnd::LoginRefused(error)),
            Err(error) => return Ok(SessionEnd::LoginFailed(error)),
        };
        if stopped(&self.stop) {
            client.logout_quickly();
            return Err(Stopped);
        }
        self.handle.set_client(Some(client.clone()));
        let mut socket = match self.open_websocket(&client, term) {
            Ok(socket) => socket,
            Err(_) if stopped(&self.stop) => {
                client.logout_quickly();
                return Err(Stopped);
            }
            Err(error) => {
                self.handle.set_client(None);
                if matches!(error, Error::Unauthorized(_)) {
                    return Ok(SessionEnd::Refused(error.to_string()));
                }
                client.logout_quickly();
                return Ok(SessionEnd::LoginFailed(error));
            }
        };
        self.add_task(Task::Session(client.clone(), subscription_changes));
        self.send(Event::Connected(client.clone()))?;
        let reason = self.listen(&mut socket)?;
        self.add_task(Task::Ended);
        self.handle.set_client(None);
        client.shutdown();
        let end = match self.handle.take_request() {
            Some(request) if request.is_refused => SessionEnd::Refused(request.reason),
            Some(request) => SessionEnd::Lost(request.reason),
            None => SessionEnd::Lost(format!("websocket: {reason}")),
        };
        if matches!(end, SessionEnd::Lost(_)) {
            // The next session is another one, and the number of an APIC's sessions is limited.
            client.logout_quickly();
        }
        Ok(end)
    }

    /// Logs in. A stop and the end of the term end the login at once.
    fn login(
        &self,
        controller: &Controller,
        subscriptions: Sender<SubscriptionChange>,
        term: u64,
    ) -> Result<Client, Error> {
        let agent = self.settings.tls.agent();
        self.handle.set_login(Some(agent.clone()));
        let result = self
            .check_may_continue(term)
            .and_then(|()| Client::login(&self.settings, controller, agent, Some(subscriptions), self.extends.clone()));
        self.handle.set_login(None);
        if !matches!(result, Err(Error::NotSent)) {
            metrics::apic_login(result.is_ok());
        }
        result
    }

    /// Fails if the program is stopping or the term is over. It is called after the handle knows what to end: a stop or
    /// the end of a term before that could not end it.
    fn check_may_continue(&self, term: u64) -> Result<(), Error> {
        if stopped(&self.stop) || self.leadership.term() != Some(term) {
            return Err(Error::NotSent);
        }
        Ok(())
    }

    /// Opens the websocket of a session, several times if the controller is busy: that is no reason for another login
    /// (W8).
    fn open_websocket(&self, client: &Client, term: u64) -> Result<EventSocket, Error> {
        let pacer = &self.settings.pacer;
        pacer.wait_after_login()?;
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut attempt = 1;
        loop {
            pacer.wait_for_turn(&|| true)?;
            let sent = Instant::now();
            let opened = client.open_websocket(&|stream| {
                self.handle.set_socket(stream);
                self.check_may_continue(term)
            });
            match opened {
                Err(Error::Busy(_)) => pacer.refused(sent),
                Ok(_) | Err(_) => pacer.answered(),
            }
            match opened {
                Err(Error::Busy(_)) if attempt < WEBSOCKET_ATTEMPTS => {
                    pacer.wait(backoff.pause(), &|| true)?;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// Hands on events until the websocket is lost; the reason for that.
    fn listen(&self, socket: &mut EventSocket) -> Result<String, Stopped> {
        loop {
            let message = socket.read();
            if stopped(&self.stop) {
                return Err(Stopped);
            }
            match message {
                Ok(Some(message)) => self.hand_on(&message)?,
                Ok(None) => {}
                Err(reason) => return Ok(reason),
            }
        }
    }

    /// Hands on an event. The websocket never waits for a busy reconciler: an event that does not fit counts as lost, and
    /// the full sync that follows finds what it said.
    fn hand_on(&self, message: &[u8]) -> Result<(), Stopped> {
        let event = match decode::message(message) {
            Ok(message) => {
                metrics::apic_events(message.changes.len());
                let subscriptions = message.subscriptions.iter().filter_map(|it| SubscriptionId::new(it)).collect();
                Event::Changed { subscriptions, changes: message.changes }
            }
            Err(error) => Event::Gap { reason: format!("failed to read a websocket message: {error}") },
        };
        if self.event_sender.offer(event) { Ok(()) } else { Err(Stopped) }
    }

    /// Waits until the reconciler has room for an event that must not be dropped.
    fn send(&self, event: Event) -> Result<(), Stopped> {
        select! {
            send(self.event_sender.events(), event) -> sent => sent.map_err(|_| Stopped),
            recv(self.stop) -> _ => Err(Stopped),
        }
    }

    fn add_task(&self, task: Task) {
        // Without a refresher the program is stopping.
        let _ = self.tasks.send(task);
    }
}
