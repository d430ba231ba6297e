//! One logged-in session at one controller: login, reads, subscriptions, writes, logout. What follows from an error
//! is the caller's business; when a token or a subscription is renewed is the refresher's.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::debug;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::Controller;
use super::Settings;
use super::decode::{self, Answer};
use super::error::Error;
use super::query::Query;
use super::reading;
use super::refresher::Task;
use super::traits::ShouldSend;
use super::writer::request::WriteRequest;
use crate::backoff::Backoff;
use crate::model::mo::{Mo, MoChange};
use crate::net::{ConnectError, describe_error, wrong_peer};
use crate::secret::{Renewable, Secret};

/// How long one request may take in all (W8).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request is sent in all when it is refused with 503 or 429 or does not reach the controller, and how long
/// that may take before it is left to a later reconcile (W8).
const TRIES: u32 = 5;
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The pauses between them, where the controller does not say how long to wait.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// How long the logout may take at the stop (X2).
const LOGOUT_TIMEOUT: Duration = Duration::from_millis(400);

/// The longest life of a token or a session that is believed; an APIC grants a day.
const MAX_LIFE: u64 = 30 * 86_400;

/// The longest token that is believed, in bytes; it goes into every request's head. An APIC's has about a hundred.
const MAX_TOKEN: usize = 8192;

/// The longest id of a subscription, in bytes; an APIC's has 17 digits.
const MAX_ID: usize = 64;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// How long a subscription lives where the APIC takes `refresh-timeout`, and where it does not.
pub const EXTENDED_LIFE: Duration = Duration::from_secs(300);
/// The APIC's default life of a subscription.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The id of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(super) String);

impl SubscriptionId {
    /// An id as the APIC gives it. It goes into a URL, so it has letters and digits only.
    pub fn new(text: &str) -> Option<SubscriptionId> {
        let is_id = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_alphanumeric());
        is_id.then(|| SubscriptionId(text.to_owned()))
    }
}

/// How long a session's token lives, as the APIC said at the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// `refreshTimeoutSeconds`: until then the token has to be refreshed.
    pub token: Duration,
    /// `maximumLifetimeSeconds`: after that no refresh helps.
    pub session: Duration,
}

/// A session. Clones are the same session.
#[derive(Clone)]
pub struct Client(Arc<Session>);

struct Session {
    settings: Settings,
    controller: Controller,
    agent: Agent,
    token: Renewable,
    lifetimes: Lifetimes,
    since: Instant,
    tasks: Option<Sender<Task>>,
    /// Whether the APIC keeps to `refresh-timeout`. Shared by the sessions that follow one another.
    extends: Arc<AtomicBool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.controller)
    }
}

impl Client {
    /// Logs in at one controller, by an agent that the session keeps. The subscriptions of this session are handed to
    /// the refresher by `tasks`.
    pub(super) fn login(
        settings: &Settings,
        controller: &Controller,
        agent: Agent,
        tasks: Option<Sender<Task>>,
        extends: Arc<AtomicBool>,
    ) -> Result<Client, Error> {
        let mut session = Session {
            settings: settings.clone(),
            controller: controller.clone(),
            agent,
            token: Renewable::new(Secret::new("")),
            lifetimes: Lifetimes { token: Duration::ZERO, session: Duration::ZERO },
            since: Instant::now(),
            tasks,
            extends,
        };
        let user = json!({"name": settings.username, "pwd": settings.password.get().expose()});
        let body = json!({"aaaUser": {"attributes": user}});
        let answer = session.in_turn(&|| true, is_refused, &|| {
            session.send("/api/aaaLogin.json", Some(&body), REQUEST_TIMEOUT, &session.agent).map_err(|failure| {
                // A web server or a proxy that forbids knows nothing of passwords.
                match failure.error {
                    Error::Unauthorized(why) if failure.http == 403 && decode::is_unexplained(&why) => {
                        Failure { error: Error::Unreachable(why), ..failure }
                    }
                    error => Failure { error, ..failure },
                }
            })
        })?;
        let (token, lifetimes) = token_in(&answer)?;
        session.token.set(token);
        session.lifetimes = lifetimes;
        Ok(Client(Arc::new(session)))
    }

    /// The controller that the session is at.
    pub fn controller(&self) -> &Controller {
        &self.0.controller
    }

    /// How long the token of the login lives.
    pub fn lifetimes(&self) -> Lifetimes {
        self.0.lifetimes
    }

    /// When the login was asked for: the lifetimes count from then, to be on the safe side.
    pub(super) fn since(&self) -> Instant {
        self.0.since
    }

    /// Whether both are the same session. What is said about an older session must not touch its successor.
    pub(super) fn is(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The token, for the websocket's path and cookie.
    pub(super) fn token(&self) -> Secret {
        self.0.token.get()
    }

    /// Reads objects; children come flattened, with their DNs.
    pub fn read(&self, query: &Query, should_send: &ShouldSend<'_>) -> Result<Vec<Mo>, Error> {
        reading::read(query, &mut |target| self.get(target, should_send, is_not_served))
    }

    /// Reads objects and hears of their changes from then on: the answer is the snapshot that events follow.
    pub fn subscribe(&self, query: &Query, should_send: &ShouldSend<'_>) -> Result<(SubscriptionId, Vec<Mo>), Error> {
        let since = Instant::now();
        let plain = "subscription=yes".to_owned();
        let get = |target: &str| self.get(target, should_send, is_not_served);
        let answer = if self.0.extends.load(Ordering::Relaxed) {
            let longer = format!("refresh-timeout={}", EXTENDED_LIFE.as_secs());
            match get(&query.target(&[plain.clone(), longer])) {
                // Releases before 3.2(3) do not know the parameter. What is refused without it too has another cause.
                Err(Error::Rejected { .. }) => {
                    let answer = get(&query.target(&[plain]))?;
                    self.0.extends.store(false, Ordering::Relaxed);
                    answer
                }
                answer => answer?,
            }
        } else {
            get(&query.target(&[plain]))?
        };
        let (id, mos) = reading::snapshot(answer)?;
        let life = if self.0.extends.load(Ordering::Relaxed) { EXTENDED_LIFE } else { DEFAULT_LIFE };
        self.task(Task::Keep { client: self.clone(), id: id.clone(), life, since });
        Ok((id, mos))
    }

    /// A subscription is not needed any more; it is not refreshed and lapses by itself (R3).
    pub fn unsubscribe(&self, id: &SubscriptionId) {
        self.task(Task::Forget(id.clone()));
    }

    fn task(&self, task: Task) {
        if let Some(tasks) = &self.0.tasks {
            // Without a refresher the program is stopping.
            let _ = tasks.send(task);
        }
    }

    /// Refreshes the token: a new one from now on, for the same session (A3).
    pub(super) fn refresh(&self) -> Result<Lifetimes, Error> {
        let (token, lifetimes) = token_in(&self.get("/api/aaaRefresh.json", &|| true, is_refused)?)?;
        self.0.token.set(token);
        Ok(lifetimes)
    }

    /// Refreshes one subscription.
    pub(super) fn refresh_subscription(&self, id: &SubscriptionId) -> Result<(), Error> {
        self.get(&format!("/api/subscriptionRefresh.json?id={}", id.0), &|| true, is_refused).map(drop)
    }

    /// The APIC did not keep to `refresh-timeout`: subscriptions made from now on do without it.
    pub(super) fn do_not_extend(&self) {
        self.0.extends.store(false, Ordering::Relaxed);
    }

    /// Sends a write; what it created, changed and deleted, as far as the APIC shows it.
    pub fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<Vec<MoChange>, Error> {
        self.0.in_turn(should_send, is_not_served, &|| self.0.send_write(request))
    }

    fn get(&self, target: &str, should_send: &ShouldSend<'_>, again: fn(&Error) -> bool) -> Result<Answer, Error> {
        let session = &*self.0;
        session.in_turn(should_send, again, &|| session.send(target, None, REQUEST_TIMEOUT, &session.agent))
    }

    /// Logs out, on an agent of its own, because the session's may be shut down. Best effort, and short.
    pub fn logout(&self) {
        let session = &*self.0;
        let body = json!({"aaaUser": {"attributes": {"name": session.settings.username}}});
        let agent = session.settings.tls.agent();
        match session.send("/api/aaaLogout.json", Some(&body), LOGOUT_TIMEOUT, &agent).map_err(|it| it.error) {
            Ok(_) => log::debug!("logged out at {}", session.controller),
            Err(error) => log::debug!("the logout at {} failed: {error}", session.controller),
        }
    }

    /// Ends the requests in flight of this session, for good.
    pub fn shutdown(&self) {
        self.0.agent.clone().shutdown();
    }
}

impl Session {
    /// Exactly one cookie: a second one makes every subscription of the session silent.
    fn cookie(&self) -> String {
        format!("APIC-cookie={}", self.token.get().expose())
    }

    /// What this session sends and no text may show (A4).
    fn secrets(&self) -> [Secret; 2] {
        [self.token.get(), self.settings.password.get()]
    }

    /// Sends a request when its turn has come, and the same one again where the controller does not serve it and `again`
    /// says so (W8). A write that was perhaps taken is not one of those: what became of it is read (W7).
    fn in_turn<T>(
        &self,
        should_send: &ShouldSend<'_>,
        again: fn(&Error) -> bool,
        send: &dyn Fn() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let pace = &self.settings.pacer;
        let begun = Instant::now();
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut tries = 0;
        loop {
            pace.wait_for_turn(should_send)?;
            let failure = match send() {
                Ok(answer) => {
                    pace.answered();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            tries += 1;
            if failure.is_throttled() {
                pace.refused()
            } else {
                pace.answered()
            }
            let pause = failure.retry_after.unwrap_or_else(|| backoff.pause());
            if tries == TRIES || !again(&failure.error) || begun.elapsed() + pause > MAX_RETRY {
                return Err(failure.error);
            }
            debug!("{}: {}; sent again in {:.1} s", self.controller, failure.error, pause.as_secs_f64());
            pace.wait(pause, should_send)?;
        }
    }

    /// Sends a request that changes nothing on the fabric.
    fn send(&self, target: &str, body: Option<&Value>, limit: Duration, agent: &Agent) -> Result<Answer, Failure> {
        let url = format!("https://{}{target}", self.controller.authority());
        let secrets = self.secrets();
        let has_token = !self.token.get().expose().is_empty();
        let response = match body {
            Some(body) => {
                let request = bounded(agent.post(url), limit);
                let request = if has_token { request.header("Cookie", self.cookie()) } else { request };
                request.send(body.to_string())
            }
            None => bounded(agent.get(url).header("Cookie", self.cookie()), limit).call(),
        };
        let response = response.map_err(|error| Error::Unreachable(describe_error(&error)))?;
        let (http, retry_after) = (response.status().as_u16(), retry_after(&response));
        if let Some(why) = wrong_peer::redirect(http, response.headers()) {
            return Err(Error::Malformed(decode::hidden(&why, &secrets)).into());
        }
        let body = read_body(response).map_err(|error| match error {
            // To ask for it again would only bring as much again.
            ureq::Error::BodyExceedsLimit(_) => Error::Malformed(describe_error(&error)),
            error => Error::Unreachable(describe_error(&error)),
        })?;
        decode::read_hiding(http, &body, &secrets).map_err(|error| Failure { error, http, retry_after })
    }

    /// Sends a write once.
    fn send_write(&self, request: &WriteRequest) -> Result<Vec<MoChange>, Failure> {
        let url = format!("https://{}{}", self.controller.authority(), request.target());
        let secrets = self.secrets();
        let cookie = self.cookie();
        let response = match request.body() {
            Some(body) => {
                bounded(self.agent.post(url).header("Cookie", cookie), REQUEST_TIMEOUT).send(body.to_string())
            }
            None => bounded(self.agent.delete(url).header("Cookie", cookie), REQUEST_TIMEOUT).call(),
        };
        let response = response.map_err(|error| unanswered_write(&error))?;
        let (http, retry_after) = (response.status().as_u16(), retry_after(&response));
        let body = read_body(response).map_err(|error| Error::AnswerLost(describe_error(&error)))?;
        decode::written_hiding(http, &body, &secrets).map_err(|error| Failure { error, http, retry_after })
    }
}

/// A request that failed, with what the decision to send it again needs.
struct Failure {
    error: Error,
    /// The HTTP status; 0 where there was no answer.
    http: u16,
    /// How long the controller asks to wait.
    retry_after: Option<Duration>,
}

impl Failure {
    /// Refused by the web server in front, which counts requests.
    fn is_throttled(&self) -> bool {
        matches!(self.error, Error::Busy(_)) && matches!(self.http, 429 | 503)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, http: 0, retry_after: None }
    }
}

/// The controller did not serve the request: it can be sent again as it is.
fn is_not_served(error: &Error) -> bool {
    matches!(error, Error::Busy(_) | Error::Unreachable(_))
}

/// The controller answered that it has no time. One that is out of reach is the caller's business: another controller may
/// be tried, or another time.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Busy(_))
}

/// `Retry-After` in seconds; the form with a date is not used by any web server of an APIC.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u32 = response.headers().get("Retry-After")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

fn bounded<T>(request: ureq::RequestBuilder<T>, limit: Duration) -> ureq::RequestBuilder<T> {
    request.config().timeout_global(Some(limit)).build()
}

fn read_body(response: Response<Body>) -> Result<Vec<u8>, ureq::Error> {
    let mut body = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(MAX_ANSWER).reader();
    reader.read_to_end(&mut body)?;
    Ok(body)
}

/// A write without an answer was perhaps taken, unless no connection came about.
fn unanswered_write(error: &ureq::Error) -> Error {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotConnected};
    let not_sent = match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(phase) => matches!(phase, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Other(error) => error.is::<ConnectError>(),
        ureq::Error::Io(error) => {
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotConnected)
        }
        _ => false,
    };
    if not_sent { Error::Unreachable(describe_error(error)) } else { Error::AnswerLost(describe_error(error)) }
}

/// The token of a login or a refresh, with its life.
pub fn token_in(answer: &Answer) -> Result<(Secret, Lifetimes), Error> {
    let no_token = || Error::Malformed("a login answer without a token".to_owned());
    let login = answer.login.as_ref().ok_or_else(no_token)?;
    let token = login.token.expose();
    // It goes into a header and a path as it is.
    let fits = (1..=MAX_TOKEN).contains(&token.len());
    if !fits || !token.bytes().all(|it| (b'!'..=b'~').contains(&it) && !b"\";,?#".contains(&it)) {
        return Err(no_token());
    }
    let bounded = |seconds: u64| Duration::from_secs(seconds.clamp(2, MAX_LIFE));
    let lifetimes = Lifetimes {
        token: bounded(login.refresh_timeout.unwrap_or(300)),
        session: bounded(login.maximum_lifetime.unwrap_or(86_400)),
    };
    Ok((login.token.clone(), lifetimes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::apic::RequestPacer;
    use crate::net::{Tls, TlsSettings};

    /// A session that nobody granted.
    pub(crate) fn session() -> Client {
        let tls = Tls::new(&TlsSettings::default()).unwrap();
        let settings = Settings {
            controllers: Vec::new(),
            tls: tls.clone(),
            username: "admin".to_owned(),
            password: Renewable::new(Secret::new("hunter2")),
            pacer: RequestPacer::new(None),
        };
        Client(Arc::new(Session {
            settings,
            controller: Controller { host: "apic.example".to_owned(), port: 443 },
            agent: tls.agent(),
            token: Renewable::new(Secret::new("a-token")),
            lifetimes: Lifetimes { token: Duration::from_secs(600), session: Duration::from_secs(86_400) },
            since: Instant::now(),
            tasks: None,
            extends: Arc::new(AtomicBool::new(true)),
        }))
    }

    /// A3, X3: lifetimes as the APIC grants them, and those that no clock can count to or that would mean no pause.
    #[test]
    fn lifetimes_are_bounded() {
        let seconds = Duration::from_secs;
        for (token, session, expected) in [
            ("600", "86400", (seconds(600), seconds(86_400))),
            ("18446744073709551615", "18446744073709551615", (seconds(MAX_LIFE), seconds(MAX_LIFE))),
            ("0", "0", (seconds(2), seconds(2))),
            ("-1", "soon", (seconds(300), seconds(86_400))),
        ] {
            let body = format!(
                r#"{{"imdata":[{{"aaaLogin":{{"attributes":{{"token":"t","refreshTimeoutSeconds":"{token}","maximumLifetimeSeconds":"{session}"}}}}}}]}}"#
            );
            let (_, lifetimes) = token_in(&decode::answer(body.as_bytes()).unwrap()).unwrap();
            assert_eq!((lifetimes.token, lifetimes.session), expected, "{token} {session}");
        }
    }

    /// A4: a token goes into a header and a path as it is, so one that would break out of either is no token.
    #[test]
    fn tokens_are_checked() {
        let token = |text: &str| {
            let attributes = json!({"token": text});
            let body = json!({"imdata": [{"aaaLogin": {"attributes": attributes}}]}).to_string();
            token_in(&decode::answer(body.as_bytes()).unwrap()).map(|(token, _)| token)
        };
        for good in ["eyJhbGciOi.J9-_x", "aB+/c==", &"x".repeat(MAX_TOKEN)] {
            assert_eq!(token(good), Ok(Secret::new(good)));
        }
        for bad in
            [&*"x".repeat(MAX_TOKEN + 1), "", "a b", "a\r\nX: y", "a;b", "a,b", "a?b", "a#b", "a\"b", "\u{e9}", "a\0b"]
        {
            assert_eq!(token(bad), Err(Error::Malformed("a login answer without a token".to_owned())), "{bad:?}");
        }
    }

    /// A4: a session prints where it is, and nothing of its token, its user or its password.
    #[test]
    fn a_session_shows_no_secret() {
        let session = session();
        assert_eq!(format!("{session:?}"), "Client(apic.example:443)");
        let settings = format!("{:?}", session.0.settings);
        assert!(!settings.contains("hunter2"), "{settings}");
    }
}
