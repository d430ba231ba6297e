//! The thread that makes sessions and listens: login, websocket, events, and again when either is lost (A1, W8).
//! It is the only place that logs in for `run`, so there is never more than one login at a time; and it does so during
//! a term only (K4).

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::{debug, error, warn};
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, HandshakeError, Message, WebSocket};

use super::Controller;
use super::client::{Client, SubscriptionId};
use super::decode;
use super::error::Error;
use super::event_sender::EventSender;
use super::handle::SessionHandle;
use super::refresher::Task;
use super::{Event, Settings};
use crate::backoff::{Backoff, stopped, stopped_within};
use crate::leadership::Leadership;
use crate::net::{CONNECT_TIMEOUT, DeadlineStream, TlsStream};
use crate::secret::Secret;

/// A socket that says nothing for so long is pinged; one that then says nothing for as long again is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// The largest websocket message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// What may wait to be sent over the websocket, in bytes: pings and pongs of at most 125 bytes each.
const MAX_BACKLOG: usize = 1 << 20;

/// The most addresses of a controller that are tried, each with its own time to connect.
const MAX_ADDRESSES: usize = 8;

/// How often a busy controller is asked for the websocket of one session.
const SOCKET_TRIES: u32 = 5;

/// The least time between logins that follow a refused session (W8).
const LOGIN_PAUSE: Duration = Duration::from_secs(60);

/// The pauses after the first, second, third and every further refusal of a password in a row. An APIC with lockout on
/// and its default values locks an account for an hour after five failures within five minutes (`aaaBlockLoginProfile`).
const REFUSED_PAUSES: [Duration; 4] =
    [LOGIN_PAUSE, Duration::from_secs(120), Duration::from_secs(300), Duration::from_secs(600)];

/// How often it is looked, during such a pause, whether there is another password by now.
const LOOK: Duration = Duration::from_secs(1);

/// A session that lasted so long was a good one, and the pauses start over after it. One that is lost at once, again and
/// again, must not cost a login a second.
const SETTLED: Duration = Duration::from_secs(10);

/// The APIC listener thread.
pub struct SessionManager {
    pub(super) settings: Settings,
    pub(super) leadership: Leadership,
    pub(super) event_sender: EventSender,
    pub(super) tasks: Sender<Task>,
    pub(super) stop: Receiver<()>,
    pub(super) link: SessionHandle,
}

type Socket = WebSocket<TlsStream<DeadlineStream>>;

/// The program is stopping.
struct Stopped;

impl SessionManager {
    /// Makes sessions and listens until the program stops.
    pub fn run(self) {
        let mut pauses = LoginBackoff::new();
        let extends = Arc::new(AtomicBool::new(true));
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        let mut was_answered = false;
        for turn in 0.. {
            let Some(number) = self.leadership.wait(&self.stop) else { return };
            let Some(controller) = self.settings.controllers.get(turn % self.settings.controllers.len().max(1)) else {
                return;
            };
            // Perhaps the password was changed meanwhile, and a login with the old one would be refused (F35).
            if std::mem::take(&mut was_answered) {
                self.renew_password();
            }
            let begun = Instant::now();
            let tried = self.settings.password.get();
            let mut is_refused = false;
            let pause = match self.session(controller, &extends, number) {
                Err(Stopped) => return,
                Ok(SessionEnd::NoLogin(error @ (Error::Unauthorized(_) | Error::Forbidden(_)))) => {
                    (was_answered, is_refused) = (true, true);
                    let is_locked = speaks_of_a_lock(&error);
                    let renewed = self.renew_password();
                    let now = Instant::now();
                    let pause = pauses.password_refused(now, is_locked);
                    let pause = if renewed && pauses.tries_at_once(now) { Duration::ZERO } else { pause };
                    let user = &self.settings.username;
                    let (advice, next) = match pause {
                        Duration::ZERO => ("check user name and password", "there is a new password".to_owned()),
                        _ if is_locked => ("the account seems to be locked", next_try(pause)),
                        _ => ("check user name and password", next_try(pause)),
                    };
                    error!("login at the APIC {controller} as {user:?}: {error}; {advice}; {next}");
                    pause
                }
                Ok(SessionEnd::NoLogin(why)) => {
                    let text = format!("no session at the APIC {controller}: {why}");
                    if told.get(&controller.authority()) == Some(&text) {
                        debug!("{text}")
                    } else {
                        warn!("{text}; trying again with growing pauses")
                    }
                    told.insert(controller.authority(), text);
                    pauses.no_login()
                }
                Ok(SessionEnd::Session { why, refused }) => {
                    told.clear();
                    pauses.logged_in();
                    if self.send(Event::Disconnected { why }).is_err() {
                        return;
                    }
                    let now = Instant::now();
                    was_answered = true;
                    if refused { pauses.session_refused(now) } else { pauses.session_lost(now - begun) }
                }
            };
            let refused = is_refused.then_some(&tried);
            if self.rests(pause, refused, &mut pauses) {
                return;
            }
        }
    }

    /// Waits; whether the program is stopping. Where a password was refused, another one ends the wait: one that SIGHUP
    /// brought at once, one that only its file has within a minute.
    fn rests(&self, pause: Duration, refused: Option<&Secret>, pauses: &mut LoginBackoff) -> bool {
        let Some(refused) = refused else { return stopped_within(&self.stop, pause) };
        let (end, mut read_at) = (Instant::now() + pause, Instant::now() + LOGIN_PAUSE);
        loop {
            let now = Instant::now();
            if now >= end {
                return stopped(&self.stop);
            }
            if read_at <= now {
                read_at = now + LOGIN_PAUSE;
                self.renew_password();
            }
            if self.settings.password.get() != *refused && pauses.tries_at_once(now) {
                return stopped(&self.stop);
            }
            if stopped_within(&self.stop, LOOK.min(end - now)) {
                return true;
            }
        }
    }

    /// Reads the password again; whether it is another one now.
    fn renew_password(&self) -> bool {
        self.settings.password.renew().unwrap_or_else(|why| {
            warn!("the old APIC password stays in use: {why}");
            false
        })
    }

    /// One session from login to loss, within one term.
    fn session(&self, controller: &Controller, extends: &Arc<AtomicBool>, number: u64) -> Result<SessionEnd, Stopped> {
        self.link.clear_request();
        let client = match self.login(controller, extends, number) {
            Ok(client) if stopped(&self.stop) => {
                client.logout();
                return Err(Stopped);
            }
            Ok(client) => client,
            Err(_) if stopped(&self.stop) => return Err(Stopped),
            Err(error) => return Ok(SessionEnd::NoLogin(error)),
        };
        self.link.set_client(Some(client.clone()));
        let mut socket = match self.open(&client, number) {
            Ok(socket) => socket,
            Err(_) if stopped(&self.stop) => {
                client.logout();
                return Err(Stopped);
            }
            Err(error) => {
                self.link.set_client(None);
                let refused = matches!(error, Error::Unauthorized(_));
                if refused {
                    return Ok(SessionEnd::Session { why: error.to_string(), refused });
                }
                client.logout();
                return Ok(SessionEnd::NoLogin(error));
            }
        };
        // Without a refresher the program is stopping.
        let _ = self.tasks.send(Task::Session(client.clone()));
        self.send(Event::Connected(client.clone()))?;
        let why = self.listen(&mut socket)?;
        let _ = self.tasks.send(Task::Ended);
        self.link.set_client(None);
        client.shutdown();
        let lost = match self.link.take_request() {
            Some(request) => SessionEnd::Session { why: request.why, refused: request.refused },
            None => SessionEnd::Session { why: format!("websocket: {why}"), refused: false },
        };
        if matches!(lost, SessionEnd::Session { refused: false, .. }) {
            // The next session is another one, and an APIC has room for so many only.
            client.logout();
        }
        Ok(lost)
    }

    /// Logs in, in a way that a stop or the end of the term ends at once.
    fn login(&self, controller: &Controller, extends: &Arc<AtomicBool>, number: u64) -> Result<Client, Error> {
        let agent = self.settings.tls.agent();
        self.link.set_login(Some(agent.clone()));
        let result = self
            .goes_on(number)
            .map_err(|why| Error::Unreachable(why.to_owned()))
            .and_then(|()| Client::login(&self.settings, controller, agent, Some(self.tasks.clone()), extends.clone()));
        self.link.set_login(None);
        result
    }

    /// Asked once others know what they have to end: what came before that has not ended it.
    fn goes_on(&self, number: u64) -> Result<(), &'static str> {
        if stopped(&self.stop) {
            return Err("stopping");
        }
        if self.leadership.term() == Some(number) { Ok(()) } else { Err("this process leads no more") }
    }

    /// Opens the websocket of a session, again where the controller is busy: it is no reason for another login (W8).
    fn open(&self, client: &Client, number: u64) -> Result<Socket, Error> {
        let pace = &self.settings.pacer;
        pace.wait_after_login()?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(8));
        for tries_left in (0..SOCKET_TRIES).rev() {
            pace.wait_for_turn(&|| true)?;
            match self.open_once(client, number) {
                Err(error @ Error::Busy(_)) => {
                    pace.refused();
                    if tries_left == 0 {
                        return Err(error);
                    }
                    pace.wait(backoff.pause(), &|| true)?;
                }
                result => {
                    pace.answered();
                    return result;
                }
            }
        }
        Err(Error::Withdrawn)
    }

    /// Opens `wss://controller/socket{token}`. The path is a secret: no error here may show it.
    fn open_once(&self, client: &Client, number: u64) -> Result<Socket, Error> {
        let failed = |why: String| Error::Unreachable(format!("websocket: {why}"));
        let controller = client.controller();
        let (stream, address) = connect(controller).map_err(failed)?;
        let stream = Arc::new(stream);
        self.link.set_socket(&stream);
        self.goes_on(number).map_err(|why| failed(why.to_owned()))?;
        let tls = self.settings.tls.connect(&controller.host, DeadlineStream::new(stream, CONNECT_TIMEOUT));
        let tls =
            tls.map_err(|error| failed(self.settings.tls.explain(error, &controller.host, address).to_string()))?;

        let token = client.token();
        let uri = format!("wss://{}/socket{}", controller.authority(), token.expose());
        let uri = uri.parse().map_err(|_| failed("the token does not fit into a path".to_owned()))?;
        let request = ClientRequestBuilder::new(uri).with_header("Cookie", format!("APIC-cookie={}", token.expose()));
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .max_write_buffer_size(MAX_BACKLOG)
            .read_buffer_size(16 * 1024);
        let opened = client_with_config(request, tls, Some(config));
        let (socket, _) = opened.map_err(|error| match error {
            HandshakeError::Failure(error) => not_opened(&error),
            HandshakeError::Interrupted(_) => failed("no answer in time".to_owned()),
        })?;
        Ok(socket)
    }

    /// Reads until the socket is lost, and says why.
    fn listen(&self, socket: &mut Socket) -> Result<String, Stopped> {
        let mut pinged = false;
        loop {
            // For a whole message: one that drips is silence, too.
            socket.get_mut().get_mut().extend(SILENCE);
            let read = socket.read();
            if stopped(&self.stop) {
                return Err(Stopped);
            }
            match read {
                Ok(Message::Text(text)) => self.message(text.as_bytes())?,
                Ok(Message::Binary(bytes)) => self.message(&bytes)?,
                Ok(Message::Close(_)) => return Ok("closed by the APIC".to_owned()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {
                    if pinged {
                        return Ok("the APIC has been silent for too long".to_owned());
                    }
                    socket.get_mut().get_mut().extend(SILENCE);
                    if let Err(error) = socket.send(Message::Ping(Default::default())) {
                        return Ok(describe_websocket_error(&error));
                    }
                    pinged = true;
                    continue;
                }
                Err(error) => return Ok(describe_websocket_error(&error)),
            }
            pinged = false;
        }
    }

    /// Hands an event over. The socket never waits for a busy reconciler: what does not fit becomes a gap, which
    /// costs a full sync and loses nothing.
    fn message(&self, body: &[u8]) -> Result<(), Stopped> {
        let event = match decode::message(body) {
            Ok(message) => {
                let subscriptions = message.subscriptions.iter().filter_map(|it| SubscriptionId::new(it)).collect();
                Event::Changed { subscriptions, changes: message.changes }
            }
            Err(error) => Event::Gap { why: format!("a websocket message cannot be read: {error}") },
        };
        if self.event_sender.offer(event) { Ok(()) } else { Err(Stopped) }
    }

    fn send(&self, event: Event) -> Result<(), Stopped> {
        select! {
            send(self.event_sender.events(), event) -> sent => sent.map_err(|_| Stopped),
            recv(self.stop) -> _ => Err(Stopped),
        }
    }
}

/// When the next try comes, in words.
fn next_try(pause: Duration) -> String {
    match pause.as_secs().div_ceil(60) {
        0 | 1 => "the next try comes in a minute".to_owned(),
        minutes => format!("the next try comes in {minutes} minutes"),
    }
}

/// Whether an APIC's answer to a login says that the account is locked.
fn speaks_of_a_lock(error: &Error) -> bool {
    let (Error::Unauthorized(text) | Error::Forbidden(text)) = error else { return false };
    let text = text.to_ascii_lowercase();
    ["locked", "lockout", "lock out", "blocked"].iter().any(|it| text.contains(it))
}

/// How long to wait before the next login (W8).
struct LoginBackoff {
    backoff: Backoff,
    /// When the login that followed the last refusal was allowed.
    relogin: Option<Instant>,
    /// How often in a row the password was refused.
    refusals: usize,
    /// The account is locked; until then no password helps.
    locked: Option<Instant>,
    /// When a changed password was tried at once.
    at_once: Option<Instant>,
}

impl LoginBackoff {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        LoginBackoff { backoff, relogin: None, refusals: 0, locked: None, at_once: None }
    }

    /// The password was refused.
    fn password_refused(&mut self, now: Instant, is_locked: bool) -> Duration {
        let [.., longest] = REFUSED_PAUSES;
        let pause = REFUSED_PAUSES.get(self.refusals).copied().unwrap_or(longest);
        let pause = if is_locked { longest } else { pause };
        self.refusals += 1;
        self.locked = is_locked.then_some(now + pause);
        self.relogin = Some(now + pause);
        pause
    }

    /// There is another password than the one that was refused: whether it is tried without the pause. Once only: one
    /// that is changed again and again, and never right, must not lock the account either.
    fn tries_at_once(&mut self, now: Instant) -> bool {
        let [.., longest] = REFUSED_PAUSES;
        let was_tried = self.at_once.is_some_and(|it| now < it + longest);
        if was_tried || self.locked.is_some_and(|it| now < it) {
            return false;
        }
        self.at_once = Some(now);
        self.relogin = Some(now);
        true
    }

    /// There was a session: the password is good.
    fn logged_in(&mut self) {
        (self.refusals, self.locked, self.at_once) = (0, None, None);
    }

    /// No session came about.
    fn no_login(&mut self) -> Duration {
        self.backoff.pause()
    }

    /// The connection to a session was lost after some time.
    fn session_lost(&mut self, lasted: Duration) -> Duration {
        if lasted >= SETTLED {
            self.backoff.reset();
        }
        self.backoff.pause()
    }

    /// A session was refused: the first login after that comes at once, every other a minute after the one before.
    fn session_refused(&mut self, now: Instant) -> Duration {
        let at = self.relogin.map_or(now, |it| now.max(it + LOGIN_PAUSE));
        self.relogin = Some(at);
        at - now
    }
}

/// Why there is no session.
enum SessionEnd {
    /// It never came about.
    NoLogin(Error),
    /// It ended; `refused` where the APIC did not accept it any more.
    Session { why: String, refused: bool },
}

fn connect(controller: &Controller) -> Result<(TcpStream, std::net::SocketAddr), String> {
    let addresses = (controller.host.as_str(), controller.port).to_socket_addrs();
    let addresses = addresses.map_err(|_| "host name not found".to_owned())?;
    let mut why = "the host name has no address".to_owned();
    for address in addresses.take(MAX_ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                // Small frames should not wait for others.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What follows from a websocket that was refused: the HTTP status says whether the session is good.
fn not_opened(error: &tungstenite::Error) -> Error {
    let why = format!("websocket: {}", describe_websocket_error(error));
    match error {
        tungstenite::Error::Http(response) => match response.status().as_u16() {
            401 | 403 => Error::Unauthorized(why),
            429 | 503 => Error::Busy(why),
            _ => Error::Unreachable(why),
        },
        _ => Error::Unreachable(why),
    }
}

/// A websocket error in words. Only kinds that hold nothing of the request are shown as they are.
fn describe_websocket_error(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Http(response) => format!("the APIC answers HTTP {}", response.status().as_u16()),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => "closed".to_owned(),
        tungstenite::Error::Protocol(error) => error.to_string(),
        tungstenite::Error::Capacity(_) => "a message is too large".to_owned(),
        tungstenite::Error::Utf8(_) => "a message is not UTF-8".to_owned(),
        _ => "an error of the websocket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W8: whenever a session is refused, the logins that follow are a minute apart, but for the first.
    #[test]
    fn logins_after_refusals_are_a_minute_apart() {
        let start = Instant::now();
        let mut pauses = LoginBackoff::new();
        for (refused_at, login_at) in [(0, 0), (5, 60), (66, 120), (121, 180), (300, 300), (301, 360)] {
            let pause = pauses.session_refused(start + Duration::from_secs(refused_at));
            assert_eq!(pause, Duration::from_secs(login_at - refused_at), "refused at {refused_at}");
        }
    }

    /// W8: a refused password is tried so seldom that an APIC never counts five failures within five minutes, which would
    /// lock the account for an hour; after a session the pauses start over.
    #[test]
    fn refused_passwords_lock_no_account() {
        let start = Instant::now();
        let mut pauses = LoginBackoff::new();
        for _ in 0..2 {
            let mut now = start;
            let mut logins = vec![now];
            for minutes in [1, 2, 5, 10, 10] {
                assert_eq!(pauses.password_refused(now, false), Duration::from_secs(60 * minutes));
                now += Duration::from_secs(60 * minutes);
                logins.push(now);
            }
            let in_five_minutes = |from: &Instant| {
                logins.iter().filter(|it| *it >= from && **it - *from <= Duration::from_secs(300)).count()
            };
            assert!(logins.iter().all(|it| in_five_minutes(it) < 4), "{logins:?}");
            pauses.logged_in();
        }
    }

    /// W8, F35: a password that was changed after it was refused is tried at once, but only once: one that is changed
    /// again and again, and never right, waits as one that stays wrong does.
    #[test]
    fn changed_passwords_are_no_way_around_the_pauses() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pauses = LoginBackoff::new();
        assert_eq!(pauses.session_refused(at(0)), Duration::ZERO);
        pauses.password_refused(at(1), false);
        assert!(pauses.tries_at_once(at(1)));
        assert_eq!(pauses.password_refused(at(2), false), Duration::from_secs(120));
        assert!(!pauses.tries_at_once(at(2)) && !pauses.tries_at_once(at(600)));
        assert!(pauses.tries_at_once(at(601)), "hours later somebody tries another one");
        pauses.logged_in();
        pauses.password_refused(at(700), false);
        assert!(pauses.tries_at_once(at(700)));
    }

    /// W8: an answer that speaks of a lock waits the longest, and no other password is tried meanwhile.
    #[test]
    fn a_locked_account_is_left_alone() {
        let start = Instant::now();
        for text in ["User account is LOCKED", "login blocked for 60 minutes", "local authentication: user lockout"] {
            assert!(speaks_of_a_lock(&Error::Unauthorized(text.to_owned())), "{text}");
        }
        assert!(!speaks_of_a_lock(&Error::Unauthorized("Username or password is incorrect".to_owned())));
        assert!(!speaks_of_a_lock(&Error::Busy("locked".to_owned())));
        let mut pauses = LoginBackoff::new();
        assert_eq!(pauses.password_refused(start, true), Duration::from_secs(600));
        assert!(!pauses.tries_at_once(start + Duration::from_secs(599)));
        assert!(pauses.tries_at_once(start + Duration::from_secs(600)));
    }

    /// W8: sessions that are lost at once cost fewer and fewer logins; after a good one the pauses start over.
    #[test]
    fn flapping_sessions_cost_fewer_and_fewer_logins() {
        let mut pauses = LoginBackoff::new();
        let second = Duration::from_secs(1);
        for longest in [1, 2, 4, 8, 16, 30, 30] {
            let pause = pauses.session_lost(second);
            assert!(pause >= longest * second / 2 && pause <= longest * second, "{pause:?} of {longest}");
        }
        assert!(pauses.session_lost(SETTLED) <= second);
    }
}
