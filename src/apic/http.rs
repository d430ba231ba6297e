//! HTTP requests to one controller: bounded in time and size, paced, and sent again if the controller does not serve them
//! (W8). Errors do not name the controller here.

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::debug;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

use super::auth::{Credentials, Request};
use super::controller::Controller;
use super::decode::{self, Answer};
use super::error::Error;
use super::settings::Settings;
use super::traits::ShouldSend;
use super::writer::request::WriteRequest;
use crate::backoff::{Backoff, seconds};
use crate::metrics::{self, Method};
use crate::model::mo::MoChange;
use crate::net::{ConnectError, describe_error, wrong_peer};
use crate::secret::{Renewable, Secret};
use crate::time;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request that is not served is sent, and how long that may take, before it is left to a later reconcile.
const MAX_ATTEMPTS: u32 = 5;
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The pauses in between, if the controller does not say how long to wait.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Of answers that are larger, one at a time is in memory: several requests are in flight together (W9), and the service
/// has a limit.
const LARGE_ANSWER: u64 = 4 << 20;
static ONE_LARGE_ANSWER: Mutex<()> = Mutex::new(());

/// Requests of one session.
pub(super) struct Http {
    pub(super) settings: Settings,
    pub(super) controller: Controller,
    pub(super) agent: Agent,
    /// Empty before the login.
    pub(super) token: Renewable,
}

/// How an answer is decoded: its HTTP status, its body, and the secrets that its errors must not repeat.
type Decode<T> = fn(u16, &[u8], &[Secret]) -> Result<T, Error>;

/// When a request is sent again. A write whose outcome is unknown never is: it is read what became of it (W7).
#[derive(Clone, Copy)]
pub(super) enum Retry {
    /// Never: the caller looks first whether it is still to be sent.
    Never,
    /// If the controller is busy. If it cannot be reached, the caller may try another controller, or another time.
    IfBusy,
    /// If the controller is busy or cannot be reached.
    IfNotServed,
}

impl Retry {
    fn applies_to(self, error: &Error) -> bool {
        match error {
            Error::Busy(_) => !matches!(self, Retry::Never),
            Error::Unreachable(_) => matches!(self, Retry::IfNotServed),
            _ => false,
        }
    }
}

impl Http {
    /// Logs in.
    pub(super) fn login(&self) -> Result<Answer, Error> {
        let credentials = &*self.settings.credentials;
        let request = credentials.open();
        self.with_retries(request.method, &|| true, Retry::IfBusy, &|| {
            let response = self.send(&self.agent, &request, REQUEST_TIMEOUT)?;
            self.read_answer(response, decode::read_hiding).map_err(|failure| failure.of_login(credentials))
        })
    }

    /// Logs out, with an agent of its own, because the session's may be shut down. Nothing depends on it.
    pub(super) fn logout(&self, limit: Duration) {
        let Some(request) = self.settings.credentials.close() else { return };
        let (controller, agent) = (&self.controller, self.settings.tls.agent());
        let sent = Instant::now();
        let response = self.send(&agent, &request, limit).map_err(Failure::from);
        let answer = response.and_then(|response| self.read_answer(response, decode::read_hiding));
        metrics::apic_request(Method::Post, status_of(&answer), sent.elapsed());
        match answer {
            Ok(_) => debug!(controller:%; "logged out"),
            Err(failure) => debug!(controller:%, error:% = failure.error; "failed to log out"),
        }
    }

    /// Sends a GET.
    pub(super) fn get(&self, target: &str, should_send: &ShouldSend<'_>, retry: Retry) -> Result<Answer, Error> {
        self.get_as(target, should_send, retry, decode::read_hiding)
    }

    /// Sends a GET whose answer is decoded in this way.
    pub(super) fn get_as<T>(
        &self,
        target: &str,
        should_send: &ShouldSend<'_>,
        retry: Retry,
        decode: Decode<T>,
    ) -> Result<T, Error> {
        let mut answer = Err(Error::NotSent);
        for (at, form) in self.settings.credentials.forms(target).into_iter().enumerate() {
            let request = Request { form, ..Request::get(target) };
            answer = self.with_retries(Method::Get, should_send, retry, &|| {
                self.read_answer(self.send(&self.agent, &request, REQUEST_TIMEOUT)?, decode)
            });
            if !matches!(answer, Err(Error::Unauthorized(_) | Error::Forbidden(_))) {
                if at > 0 && answer.is_ok() {
                    self.settings.credentials.prefer(form);
                }
                break;
            }
        }
        answer
    }

    /// Sends a write.
    pub(super) fn write(
        &self,
        request: &WriteRequest,
        should_send: &ShouldSend<'_>,
        retry: Retry,
    ) -> Result<Vec<MoChange>, Error> {
        let target = request.target();
        let request = match request.body() {
            Some(body) => Request::post(&target, body.to_string()),
            None => Request::delete(&target),
        };
        let answer = self.with_retries(request.method, should_send, retry, &|| {
            self.read_write_answer(self.send(&self.agent, &request, REQUEST_TIMEOUT)?)
        });
        match &answer {
            Err(Error::Rejected { code, .. }) => metrics::apic_refusal(*code),
            Err(Error::Forbidden(_)) => metrics::apic_refusal(403),
            _ => {}
        }
        answer
    }

    /// Sends a request once, with the proof of who sends it. The outer error means that nothing was sent.
    fn send(
        &self,
        agent: &Agent,
        request: &Request<'_>,
        limit: Duration,
    ) -> Result<Result<Response<Body>, ureq::Error>, Error> {
        let cookie = self.cookie(request)?;
        let url = format!("https://{}{}", self.controller.authority(), request.target);
        Ok(match request.method {
            Method::Get => prepared(agent.get(url), limit, cookie).call(),
            Method::Post => prepared(agent.post(url), limit, cookie).send(&*request.body),
            Method::Delete => prepared(agent.delete(url), limit, cookie).call(),
        })
    }

    /// Waits for the request's turn and sends it, several times if `retry` applies.
    fn with_retries<T>(
        &self,
        method: Method,
        should_send: &ShouldSend<'_>,
        retry: Retry,
        send: &dyn Fn() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let pacer = &self.settings.pacer;
        let begun = Instant::now();
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut attempt = 1;
        loop {
            pacer.wait_for_turn(should_send)?;
            let sent = Instant::now();
            let answer = send();
            metrics::apic_request(method, status_of(&answer), sent.elapsed());
            let failure = match answer {
                Ok(answer) => {
                    pacer.answered();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            match &failure.error {
                _ if failure.is_throttled() => pacer.refused(sent),
                Error::Unreachable(_) | Error::AnswerLost(_) => pacer.unanswered(),
                _ => pacer.answered(),
            }
            let pause = failure.retry_after.unwrap_or_else(|| backoff.pause());
            let is_over = attempt == MAX_ATTEMPTS || begun.elapsed() + pause > MAX_RETRY;
            if is_over || !retry.applies_to(&failure.error) {
                return Err(failure.error);
            }
            let (controller, error, retry_in) = (&self.controller, &failure.error, seconds(pause));
            debug!(controller:%, error:%, attempt, retry_in; "APIC request not served; sending it again");
            pacer.wait(pause, should_send)?;
            attempt += 1;
        }
    }

    /// The answer to a request that changes nothing on the fabric.
    fn read_answer<T>(&self, response: Result<Response<Body>, ureq::Error>, decode: Decode<T>) -> Result<T, Failure> {
        let response = response.map_err(|error| Error::Unreachable(describe_error(&error)))?;
        let secrets = self.secrets();
        let (http, retry_after) = (response.status().as_u16(), retry_after(&response));
        let ahead = response.headers().get("Date").and_then(|it| time::seconds_ahead(it.to_str().ok()?));
        if let Some(redirect) = wrong_peer::redirect(http, response.headers()) {
            let error = Error::Malformed(decode::hide(&redirect, &secrets));
            return Err(Failure { error, http, retry_after, ahead });
        }
        let body = read_body(response).map_err(|error| match error {
            // Another attempt would only bring as much again.
            ureq::Error::BodyExceedsLimit(_) => Error::Malformed(describe_error(&error)),
            error => Error::Unreachable(describe_error(&error)),
        })?;
        decode(http, &body.bytes, &secrets).map_err(|error| Failure { error, http, retry_after, ahead })
    }

    fn read_write_answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Vec<MoChange>, Failure> {
        let response = response.map_err(|error| unanswered_write(&error))?;
        let (http, retry_after) = (response.status().as_u16(), retry_after(&response));
        let body = read_body(response).map_err(|error| Error::AnswerLost(describe_error(&error)))?;
        decode::written_hiding(http, &body.bytes, &self.secrets()).map_err(|error| Failure {
            error,
            http,
            retry_after,
            ahead: None,
        })
    }

    /// The header `Cookie` of a request.
    pub(super) fn cookie(&self, request: &Request<'_>) -> Result<Option<Secret>, Error> {
        self.settings.credentials.cookie(request, &self.token.get())
    }

    /// What this session sends and no text may show (A4).
    fn secrets(&self) -> [Secret; 2] {
        [self.token.get(), self.settings.credentials.secret().get()]
    }
}

/// A request that failed, with what the decision to send it again depends on.
struct Failure {
    error: Error,
    /// The HTTP status; 0 if there was no answer.
    http: u16,
    /// How long the controller asks to wait.
    retry_after: Option<Duration>,
    /// By how many seconds the controller's clock is ahead of ours, if it said so.
    ahead: Option<i64>,
}

impl Failure {
    /// Refused by the web server in front, which counts requests.
    fn is_throttled(&self) -> bool {
        matches!(self.error, Error::Busy(_)) && matches!(self.http, 429 | 503)
    }

    /// A login that a web server or a proxy forbids says nothing about the credentials.
    fn of_login(self, credentials: &dyn Credentials) -> Failure {
        let explain = |text| credentials.explain(text, self.ahead);
        let error = match self.error {
            Error::Unauthorized(text) if self.http == 403 && decode::is_unexplained(&text) => Error::Unreachable(text),
            Error::Unauthorized(text) => Error::Unauthorized(explain(text)),
            Error::Forbidden(text) => Error::Forbidden(explain(text)),
            error => error,
        };
        Failure { error, ..self }
    }
}

/// The HTTP status of an answer, for the metrics; 0 if there was no complete answer.
fn status_of<T>(answer: &Result<T, Failure>) -> u16 {
    answer.as_ref().map_or_else(|failure| failure.http, |_| 200)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, http: 0, retry_after: None, ahead: None }
    }
}

/// `Retry-After` in seconds; no web server of an APIC uses the form with a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u32 = response.headers().get("Retry-After")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

fn prepared<T>(request: RequestBuilder<T>, timeout: Duration, cookie: Option<Secret>) -> RequestBuilder<T> {
    let request = request.config().timeout_global(Some(timeout)).build();
    match cookie {
        Some(cookie) => request.header("Cookie", cookie.expose()),
        None => request,
    }
}

/// The body of an answer. A large one keeps others from being read until it is decoded.
struct AnswerBody {
    bytes: Vec<u8>,
    _turn: Option<MutexGuard<'static, ()>>,
}

fn read_body(response: Response<Body>) -> Result<AnswerBody, ureq::Error> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(MAX_ANSWER).reader();
    reader.by_ref().take(LARGE_ANSWER).read_to_end(&mut bytes)?;
    let is_large = u64::try_from(bytes.len()).is_ok_and(|length| length >= LARGE_ANSWER);
    let turn = is_large.then(|| ONE_LARGE_ANSWER.lock().unwrap_or_else(PoisonError::into_inner));
    reader.read_to_end(&mut bytes)?;
    Ok(AnswerBody { bytes, _turn: turn })
}

/// A write without an answer may have been taken, unless there was no connection.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(size: u64) -> Response<Body> {
        Response::new(Body::builder().data(vec![b' '; usize::try_from(size).unwrap()]))
    }

    /// X3, W9: a large answer keeps other large ones from being read until it is decoded, and small ones are read meanwhile.
    #[test]
    fn one_large_answer_is_read_at_a_time() {
        let large = read_body(answer(LARGE_ANSWER + 1)).unwrap();
        assert_eq!(large.bytes.len() as u64, LARGE_ANSWER + 1);
        assert!(ONE_LARGE_ANSWER.try_lock().is_err());
        assert_eq!(read_body(answer(LARGE_ANSWER - 1)).unwrap().bytes.len() as u64, LARGE_ANSWER - 1);
        drop(large);
        assert!(ONE_LARGE_ANSWER.try_lock().is_ok());
    }
}
