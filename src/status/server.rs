//! The status server: one request a connection, within limits that no client can exceed (T2). What is answered is in
//! [`super::routes`].

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, select};
use log::{debug, info, warn};

use super::listen::{Accepted, ListenAddress, Listener};
use super::request::{self, Head, Request};
use crate::backoff::stopped;
use crate::daemon::threads::PanicReporter;
use crate::metrics;
use crate::net::{DeadlineStream, Socket};

/// How long a client may take for the head of its request, in all.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take to receive the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections, and the most of one TCP peer.
const MAX_CONNECTIONS: usize = 32;
const MAX_OF_PEER: usize = 8;

/// The stack of a connection's thread.
const STACK: usize = 128 * 1024;

/// The pause after an accept that failed, such as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often an address that could not be bound is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// The content. Several answers may share it.
    pub body: Arc<Vec<u8>>,
}

impl Response {
    /// An answer without further header fields.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, content_type, headers: Vec::new(), body: Arc::new(body.into()) }
    }

    /// An answer in plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", body.into())
    }
}

/// Answers requests.
pub type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A server on one address.
pub struct Server {
    address: ListenAddress,
    handler: Arc<Handler>,
    connections: Arc<Connections>,
    stop: Receiver<()>,
    panics: PanicReporter,
    /// Called with the reason if the address cannot be bound, and with nothing when it is.
    on_bind: Box<dyn Fn(Option<String>) + Send>,
    listeners: Arc<Listeners>,
}

/// The sockets that are bound, so that main can end the threads that wait for clients.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<Vec<Arc<Listener>>>);

impl Listeners {
    /// Closes all. The stop channel has to be closed before.
    pub fn close_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| listener.close());
    }
}

/// The open connections of all addresses.
#[derive(Default)]
pub struct Connections {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// The oldest first.
    by_age: BTreeMap<u64, Connection>,
}

struct Connection {
    socket: Arc<dyn Socket>,
    peer: Option<IpAddr>,
    head_is_complete: bool,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. If there are too many, the oldest one without a complete head is closed, or the oldest one that
    /// does not read its answer: slow clients cannot keep a probe out.
    fn add(&self, accepted: &Accepted) -> Option<u64> {
        let mut open = self.open();
        let of_peer = open.by_age.values().filter(|it| it.peer.is_some() && it.peer == accepted.peer).count();
        if of_peer >= MAX_OF_PEER {
            self.close_oldest(&mut open, |it| it.peer == accepted.peer)?;
        } else if open.by_age.len() >= MAX_CONNECTIONS {
            self.close_oldest(&mut open, |_| true)?;
        }
        let id = open.next;
        open.next += 1;
        let (socket, peer) = (accepted.socket.clone(), accepted.peer);
        open.by_age.insert(id, Connection { socket, peer, head_is_complete: false });
        Some(id)
    }

    fn close_oldest(&self, open: &mut Open, is_candidate: impl Fn(&Connection) -> bool) -> Option<()> {
        metrics::http_connection_refused();
        let mut candidates = open.by_age.iter().filter(|(_, connection)| is_candidate(connection));
        let waiting = candidates.clone().find(|(_, connection)| !connection.head_is_complete);
        let oldest = waiting.or_else(|| candidates.next()).map(|(id, _)| *id)?;
        open.by_age.remove(&oldest)?.socket.close();
        Some(())
    }

    fn head_is_complete(&self, id: u64) {
        if let Some(connection) = self.open().by_age.get_mut(&id) {
            connection.head_is_complete = true;
        }
    }

    fn remove(&self, id: u64) {
        self.open().by_age.remove(&id);
    }
}

impl Server {
    /// A server that is not bound yet.
    pub fn new(
        address: ListenAddress,
        handler: Arc<Handler>,
        connections: Arc<Connections>,
        stop: Receiver<()>,
        listeners: Arc<Listeners>,
        panics: PanicReporter,
        on_bind: Box<dyn Fn(Option<String>) + Send>,
    ) -> Self {
        Server { address, handler, connections, stop, on_bind, panics, listeners }
    }

    /// Serves until the program stops. An address that cannot be bound is tried again.
    pub fn run(self) {
        let mut last_error = String::new();
        while !stopped(&self.stop) {
            match self.address.bind() {
                Ok(listener) => {
                    info!(address:% = self.address; "status server listening");
                    (self.on_bind)(None);
                    self.serve(&Arc::new(listener));
                    return;
                }
                Err(error) => {
                    let error = error.to_string();
                    if error == last_error {
                        debug!(address:% = self.address, error; "still failing to listen");
                    } else {
                        warn!(address:% = self.address, error, retry_in = "10s"; "failed to listen");
                    }
                    (self.on_bind)(Some(error.clone()));
                    last_error = error;
                    select! {
                        recv(self.stop) -> _ => return,
                        recv(after(BIND_PAUSE)) -> _ => {}
                    }
                }
            }
        }
    }

    fn serve(&self, listener: &Arc<Listener>) {
        // From here on a stop closes the listener.
        self.listeners.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener.clone());
        let checks_host = listener.is_loopback();
        while !stopped(&self.stop) {
            match listener.accept() {
                Ok(accepted) => self.start(accepted, checks_host),
                Err(error) => {
                    debug!(error:%; "failed to accept a connection");
                    select! {
                        recv(self.stop) -> _ => return,
                        recv(after(ACCEPT_PAUSE)) -> _ => {}
                    }
                }
            }
        }
    }

    fn start(&self, accepted: Accepted, checks_host: bool) {
        let Some(id) = self.connections.add(&accepted) else {
            accepted.socket.close();
            return;
        };
        let (handler, connections) = (self.handler.clone(), self.connections.clone());
        let socket = accepted.socket.clone();
        let panics = self.panics.clone();
        let serve = move || {
            serve_connection(&accepted.socket, checks_host, &*handler, &|| connections.head_is_complete(id));
            connections.remove(id);
        };
        let body = move || panics.run("status-client", serve);
        if Builder::new().name("status-client".to_owned()).stack_size(STACK).spawn(body).is_err() {
            self.connections.remove(id);
            socket.close();
        }
    }
}

fn serve_connection(socket: &Arc<dyn Socket>, checks_host: bool, handler: &Handler, head_is_complete: &dyn Fn()) {
    let mut stream = DeadlineStream::new(socket.clone(), HEAD_TIMEOUT);
    let mut head = Vec::with_capacity(1024);
    let mut buffer = [0; 1024];
    let request = loop {
        match request::parse(&head, checks_host) {
            Head::Complete(request) => break Ok(request),
            Head::Refused(status) => break Err(status),
            Head::Partial => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return socket.close(),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    };
    head_is_complete();
    stream.extend(ANSWER_TIMEOUT);
    let (response, head_only, path) = match request {
        Ok(request) => (handler(&request), request.head_only, Some(request.path)),
        Err(status) => (Response::text(status, format!("{}\n", reason(status))), false, None),
    };
    metrics::http_request(path.as_deref(), response.status);
    // A client that has gone does not want the answer.
    let _ = write_response(&mut stream, &response, head_only);
    socket.close();
}

fn write_response(stream: &mut impl Write, response: &Response, head_only: bool) -> std::io::Result<()> {
    let Response { status, content_type, headers, body } = response;
    let allow = if *status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         {allow}{headers}\r\n",
        reason(*status),
        body.len(),
    );
    stream.write_all(head.as_bytes())?;
    if !head_only {
        stream.write_all(body)?;
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
