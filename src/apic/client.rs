//! One session at one controller: login, reads, subscriptions, writes, logout. What follows from an error is the caller's
//! business; when a token or a subscription is refreshed is the refresher's.

use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ureq::Agent;

use super::auth::{Lifetimes, Request, token_in};
use super::controller::Controller;
use super::decode;
use super::envelope::Login;
use super::error::Error;
use super::http::{Http, Retry};
use super::parallel::send_all;
use super::query::Query;
use super::reading;
use super::settings::Settings;
use super::subscription::{DEFAULT_LIFE, EXTENDED_LIFE, SubscriptionChange, SubscriptionId};
use super::traits::{Requests, ShouldSend};
use super::websocket::EventSocket;
use super::writer::Body;
use super::writer::request::WriteRequest;
use crate::model::mo::{Mo, MoChange};
use crate::secret::{Renewable, Secret};

/// How long the logout may take at the end of a command, and in the daemon, whose stop has not more time for it (X2).
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(5);
const QUICK_LOGOUT_TIMEOUT: Duration = Duration::from_millis(400);

/// A session. Clones are the same session.
#[derive(Clone)]
pub struct Client(Arc<Session>);

struct Session {
    http: Http,
    lifetimes: Lifetimes,
    login: Login,
    since: Instant,
    /// Leads to the refresher.
    subscriptions: Option<Sender<SubscriptionChange>>,
    extends: Arc<AtomicBool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.controller())
    }
}

impl Client {
    /// Logs in at one controller with an agent that the session keeps. The error does not name the controller.
    ///
    /// `subscriptions` leads to the refresher, which keeps the session's subscriptions alive. `extends` says whether the APIC honors
    /// `refresh-timeout`; sessions that follow one another share it.
    pub(super) fn login(
        settings: &Settings,
        controller: &Controller,
        agent: Agent,
        subscriptions: Option<Sender<SubscriptionChange>>,
        extends: Arc<AtomicBool>,
    ) -> Result<Client, Error> {
        // The lifetimes count from here, to be on the safe side.
        let since = Instant::now();
        let token = Renewable::new(Secret::default());
        let http = Http { settings: settings.clone(), controller: controller.clone(), agent, token };
        let answer = http.login()?;
        let (token, lifetimes) = token_in(&answer)?;
        let lifetimes = if http.settings.credentials.refresh().is_some() { lifetimes } else { Lifetimes::ENDLESS };
        http.token.set(token);
        let login = Login { token: Secret::default(), ..answer.login.unwrap_or_default() };
        Ok(Client(Arc::new(Session { http, lifetimes, login, since, subscriptions, extends })))
    }

    /// The controller of the session.
    pub fn controller(&self) -> &Controller {
        &self.0.http.controller
    }

    /// How long the token of the login and the session live.
    pub fn lifetimes(&self) -> Lifetimes {
        self.0.lifetimes
    }

    /// What the APIC said about itself and the user at the login, without the token; nothing with a certificate.
    pub fn login_answer(&self) -> &Login {
        &self.0.login
    }

    /// When the login was sent.
    pub(super) fn since(&self) -> Instant {
        self.0.since
    }

    /// Whether both are the same session. A request about an older session must not touch its successor.
    pub(super) fn is(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Opens the session's websocket.
    pub(super) fn open_websocket(
        &self,
        connected: &dyn Fn(&Arc<TcpStream>) -> Result<(), Error>,
    ) -> Result<EventSocket, Error> {
        let http = &self.0.http;
        let target = format!("/socket{}", http.token.get().expose());
        let cookie = http.cookie(&Request::get(&target))?.unwrap_or_default();
        EventSocket::open(&http.settings.tls, &http.controller, &Secret::new(target), &cookie, connected)
    }

    /// The release of the APIC, from the answer to the login or by a read.
    pub fn release(&self) -> Result<String, Error> {
        if !self.0.login.version.is_empty() {
            return Ok(self.0.login.version.clone());
        }
        let target = Query::class("firmwareCtrlrRunning").target(&[]);
        self.name_controller(self.0.http.get_as(&target, &|| true, Retry::IfNotServed, decode::release))
    }

    /// Sends requests, several in flight together (W9).
    pub(super) fn send_all<R: Send, T: Send>(
        &self,
        requests: &mut dyn Requests<R, T>,
        should_continue: &ShouldSend<'_>,
        send: impl Fn(&Client, &R, &ShouldSend<'_>) -> Result<T, Error> + Sync,
    ) {
        let may_start = |in_flight| self.0.http.settings.pacer.may_start(in_flight);
        send_all(requests, &may_start, should_continue, &|request, may_send| send(self, request, may_send));
    }

    /// Reads objects; children come flattened, with their DNs.
    pub fn read(&self, query: &Query, should_send: &ShouldSend<'_>) -> Result<Vec<Mo>, Error> {
        let result = reading::read(query, &mut |target| self.0.http.get(target, should_send, Retry::IfNotServed));
        self.name_controller(result)
    }

    /// Reads the configuration of an object and of all that is below it; nothing if it is not there.
    pub fn configuration(&self, dn: &str) -> Result<Option<Body>, Error> {
        let target = Query::object(&dn).configuration().target(&[]);
        let result = self.0.http.get_as(&target, &|| true, Retry::IfNotServed, decode::configuration);
        self.name_controller(result)
    }

    /// Reads objects and subscribes to their changes. The answer is the snapshot that the events follow.
    pub fn subscribe(&self, query: &Query, should_send: &ShouldSend<'_>) -> Result<(SubscriptionId, Vec<Mo>), Error> {
        let since = Instant::now();
        let (id, mos, life) = self.name_controller(self.subscribe_once(query, EXTENDED_LIFE, should_send))?;
        self.report(SubscriptionChange::Made { id: id.clone(), life, since });
        Ok((id, mos))
    }

    /// Makes a subscription that is not refreshed, and so ends within a minute (`check`).
    pub(super) fn try_subscription(&self, query: &Query) -> Result<(), Error> {
        self.name_controller(self.subscribe_once(query, DEFAULT_LIFE, &|| true).map(drop))
    }

    fn subscribe_once(
        &self,
        query: &Query,
        longest: Duration,
        should_send: &ShouldSend<'_>,
    ) -> Result<(SubscriptionId, Vec<Mo>, Duration), Error> {
        let plain = "subscription=yes".to_owned();
        let get = |target: &str| self.0.http.get(target, should_send, Retry::IfNotServed);
        if self.0.extends.load(Ordering::Relaxed) {
            let longer = format!("refresh-timeout={}", longest.as_secs());
            match get(&query.target(&[plain.clone(), longer])) {
                // Releases before 3.2(3) do not know the parameter. If the request is rejected without it too, the cause is
                // another one.
                Err(Error::Rejected { .. }) => {}
                answer => {
                    let (id, mos) = reading::snapshot(answer?)?;
                    return Ok((id, mos, longest));
                }
            }
        }
        let answer = get(&query.target(&[plain]))?;
        self.do_not_extend();
        let (id, mos) = reading::snapshot(answer)?;
        Ok((id, mos, DEFAULT_LIFE))
    }

    /// Stops refreshing a subscription, so it lapses (R3).
    pub fn unsubscribe(&self, id: &SubscriptionId) {
        self.report(SubscriptionChange::Dropped(id.clone()));
    }

    fn report(&self, change: SubscriptionChange) {
        if let Some(subscriptions) = &self.0.subscriptions {
            // Without a refresher the session has ended.
            let _ = subscriptions.send(change);
        }
    }

    /// Gets a new token for the same session (A3).
    pub(super) fn refresh(&self) -> Result<Lifetimes, Error> {
        let Some(target) = self.0.http.settings.credentials.refresh() else { return Ok(Lifetimes::ENDLESS) };
        let answer = self.0.http.get(target, &|| true, Retry::IfBusy);
        let (token, lifetimes) = self.name_controller(answer.and_then(|answer| token_in(&answer)))?;
        self.0.http.token.set(token);
        Ok(lifetimes)
    }

    /// Refreshes a subscription (R3).
    pub(super) fn refresh_subscription(&self, id: &SubscriptionId) -> Result<(), Error> {
        let target = format!("/api/subscriptionRefresh.json?id={}", id.as_str());
        self.name_controller(self.0.http.get(&target, &|| true, Retry::IfBusy).map(drop))
    }

    /// The APIC does not honor `refresh-timeout`: later subscriptions are made without it.
    pub(super) fn do_not_extend(&self) {
        self.0.extends.store(false, Ordering::Relaxed);
    }

    /// Sends a write; what it created, changed and deleted, if the APIC shows it.
    pub fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<Vec<MoChange>, Error> {
        self.name_controller(self.0.http.write(request, should_send, Retry::IfNotServed))
    }

    /// The same, but a write that is not served is not sent again (`purge`, which reads again first).
    pub fn write_once(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<Vec<MoChange>, Error> {
        self.name_controller(self.0.http.write(request, should_send, Retry::Never))
    }

    /// Logs out. Nothing depends on it.
    pub fn logout(&self) {
        self.0.http.logout(LOGOUT_TIMEOUT);
    }

    /// The same in the daemon.
    pub fn logout_quickly(&self) {
        self.0.http.logout(QUICK_LOGOUT_TIMEOUT);
    }

    /// Ends the requests in flight of this session, and makes further ones fail.
    pub fn shutdown(&self) {
        self.0.http.agent.clone().shutdown();
    }

    fn name_controller<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.in_context(&self.controller().authority()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::apic::{Identity, RequestPacer};
    use crate::net::{Tls, TlsSettings};

    /// A session without a login.
    pub(crate) fn session() -> Client {
        let tls = Tls::new(&TlsSettings::default()).unwrap();
        let settings = Settings {
            controllers: Vec::new(),
            tls: tls.clone(),
            credentials: Identity::User("admin".to_owned()).with(Renewable::new(Secret::new("hunter2"))),
            pacer: RequestPacer::new(None, 1),
        };
        let http = Http {
            settings,
            controller: Controller { host: "apic.example".to_owned(), port: 443 },
            agent: tls.agent(),
            token: Renewable::new(Secret::new("a-token")),
        };
        Client(Arc::new(Session {
            http,
            lifetimes: Lifetimes { token: Duration::from_secs(600), session: Duration::from_secs(86_400) },
            login: Login::default(),
            since: Instant::now(),
            subscriptions: None,
            extends: Arc::new(AtomicBool::new(true)),
        }))
    }

    /// A4: a session prints its controller, and nothing of its token, its user or its password.
    #[test]
    fn a_session_shows_no_secret() {
        let session = session();
        assert_eq!(format!("{session:?}"), "Client(apic.example:443)");
        let settings = format!("{:?}", session.0.http.settings);
        assert!(!settings.contains("hunter2"), "{settings}");
    }
}
