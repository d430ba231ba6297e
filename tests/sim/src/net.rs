//! An HTTPS server, one thread a connection, that can also misbehave. What it answers is its service's business.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use openssl::nid::Nid;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVerifyMode};

use crate::pki::Pair;

/// The largest request head and body that are taken, in bytes.
const LARGEST_HEAD: usize = 64 << 10;
const LARGEST_BODY: usize = 8 << 20;

/// A stream after the TLS handshake.
pub type Stream = SslStream<TcpStream>;

/// Who a client certificate says the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name.
    pub user: String,
    /// The organisations.
    pub groups: Vec<String>,
    /// The certificate's issuer, to be compared with the CA's subject.
    pub issuer: String,
}

/// A request as it was read.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// The request target as it was sent.
    pub target: String,
    /// The path, percent-decoded.
    pub path: String,
    /// The query's pairs, percent-decoded.
    pub query: Vec<(String, String)>,
    /// The header's pairs; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The client's certificate, if it sent one.
    pub client: Option<ClientCertificate>,
    /// Which connection it came on.
    pub connection: u64,
    /// When its last byte was read.
    pub read_at: Instant,
}

impl Request {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A query parameter's first value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. An error ends the connection.
    fn handle(&self, request: Request, connection: &mut Connection) -> io::Result<()>;
}

/// What can go wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is answered, and nothing is done, until the connection ends.
    Hang,
    /// The connection ends and nothing was done.
    Cut,
    /// The request is done, and the connection ends without an answer.
    LoseAnswer,
    /// The answer comes this much later; the request is done at once.
    Delay(Duration),
    /// The answer ends after this number of bytes, and with it the connection.
    CutAfter(usize),
    /// The answer comes one byte at a time, with this pause between them.
    Drip(Duration),
    /// Nothing is done, and this is answered: status, content type, body.
    Answer(u16, &'static str, String),
    /// Nothing is done, and these bytes are sent in place of an answer, as they are; then the connection ends.
    Bytes(Vec<u8>),
    /// The same, and then others over and over, with a pause in between, until the client ends the connection.
    Endless {
        /// What comes once.
        begin: Vec<u8>,
        /// What comes again and again.
        over: Vec<u8>,
        /// How long after the last time.
        pause: Duration,
    },
}

/// Trouble for the requests that it fits.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The method, or any.
    pub method: Option<&'static str>,
    /// A part of the request target.
    pub target: String,
    /// How many requests that it fits it lets through first.
    pub skip: usize,
    /// How often it happens; for ever without a number.
    pub times: Option<usize>,
    /// What happens.
    pub trouble: Trouble,
}

impl Fault {
    /// Trouble for every request whose target contains a text, until it is cleared.
    pub fn on(target: &str, trouble: Trouble) -> Fault {
        Fault { method: None, target: target.to_owned(), skip: 0, times: None, trouble }
    }

    /// The same for one method only.
    pub fn method(self, method: &'static str) -> Fault {
        Fault { method: Some(method), ..self }
    }

    /// The same after this number of requests that it leaves alone.
    pub fn after(self, skip: usize) -> Fault {
        Fault { skip, ..self }
    }

    /// The same, `times` times only.
    pub fn times(self, times: usize) -> Fault {
        Fault { times: Some(times), ..self }
    }
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    paused: AtomicBool,
    next: AtomicU64,
    live: Mutex<HashMap<u64, TcpStream>>,
    faults: Mutex<Vec<Fault>>,
    troubled: AtomicUsize,
    /// Answers carry the header `Date`, from a clock that is so many seconds ahead.
    ahead: Mutex<Option<i64>>,
}

/// A running server. It stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at an address (port 0: any) and answers with a service.
    pub fn start(address: SocketAddr, identity: &Pair, service: Arc<dyn Service>) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let acceptor = acceptor(identity);
        let state = Arc::new(State::default());
        let shared = state.clone();
        let accepting = std::thread::Builder::new().name(format!("accept-{}", address.port())).spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if shared.paused.load(Ordering::SeqCst) {
                    continue;
                }
                let (acceptor, service, shared) = (acceptor.clone(), service.clone(), shared.clone());
                let serve = move || serve(stream, &acceptor, &*service, &shared);
                let _ = std::thread::Builder::new().name("connection".to_owned()).spawn(serve);
            }
        })?;
        Ok(Server { address, state, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and every new one at once, as a server that is away.
    pub fn pause(&self) {
        self.state.paused.store(true, Ordering::SeqCst);
        self.cut_all();
    }

    /// Serves again after a pause.
    pub fn resume(&self) {
        self.state.paused.store(false, Ordering::SeqCst);
    }

    /// Closes all connections; new ones are served.
    pub fn cut_all(&self) {
        for (_, stream) in self.state.live.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.state.live.lock().unwrap().len()
    }

    /// Adds trouble.
    pub fn fault(&self, fault: Fault) {
        self.state.faults.lock().unwrap().push(fault);
    }

    /// How many requests met with trouble so far.
    pub fn troubled(&self) -> usize {
        self.state.troubled.load(Ordering::SeqCst)
    }

    /// From now on answers carry the header `Date`, from a clock that is so many seconds ahead of ours.
    pub fn show_date(&self, ahead: i64) {
        *self.state.ahead.lock().unwrap() = Some(ahead);
    }

    /// Ends all trouble.
    pub fn clear_faults(&self) {
        self.state.faults.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.cut_all();
        // One more connection wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor(identity: &Pair) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    builder.set_private_key(&identity.key).unwrap();
    builder.set_certificate(&identity.certificate).unwrap();
    // As an API server does: any client certificate is taken here, and judged by HTTP.
    builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    builder.set_session_id_context(b"sim").unwrap();
    builder.build()
}

fn serve(stream: TcpStream, acceptor: &SslAcceptor, service: &dyn Service, state: &Arc<State>) {
    let _ = stream.set_nodelay(true);
    let id = state.next.fetch_add(1, Ordering::SeqCst);
    let Ok(handle) = stream.try_clone() else { return };
    state.live.lock().unwrap().insert(id, handle);
    if let Ok(stream) = acceptor.accept(stream) {
        let client = stream.ssl().peer_certificate().map(|it| ClientCertificate {
            user: names(it.subject_name(), Nid::COMMONNAME).concat(),
            groups: names(it.subject_name(), Nid::ORGANIZATIONNAME),
            issuer: names(it.issuer_name(), Nid::COMMONNAME).concat(),
        });
        let mut connection = Connection { stream, state: state.clone(), id, client, buffer: Vec::new(), trouble: None };
        while let Ok(Some(request)) = connection.read_request() {
            if !connection.answer(request, service) || state.stopped.load(Ordering::SeqCst) {
                break;
            }
        }
        let _ = connection.stream.shutdown();
    }
    if let Some(stream) = state.live.lock().unwrap().remove(&id) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn names(name: &openssl::x509::X509NameRef, nid: Nid) -> Vec<String> {
    name.entries_by_nid(nid).filter_map(|it| it.data().to_string().ok()).collect()
}

/// One connection, while a request on it is answered.
pub struct Connection {
    stream: Stream,
    state: Arc<State>,
    id: u64,
    client: Option<ClientCertificate>,
    buffer: Vec<u8>,
    trouble: Option<Trouble>,
}

impl Connection {
    /// The raw stream, for a websocket; what was read of it beyond the request comes with it.
    pub fn upgrade(&mut self) -> (&mut Stream, Vec<u8>) {
        (&mut self.stream, std::mem::take(&mut self.buffer))
    }

    /// False once the server stops or the connection was cut from this side.
    pub fn is_live(&self) -> bool {
        !self.state.stopped.load(Ordering::SeqCst) && self.state.live.lock().unwrap().contains_key(&self.id)
    }

    /// Waits before an answer; an error when the connection is cut meanwhile.
    pub fn wait(&self, time: Duration) -> io::Result<()> {
        self.wait_until(Instant::now() + time)
    }

    /// Sends a whole answer.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut answer = head(status, headers);
        if let Some(ahead) = *self.state.ahead.lock().unwrap() {
            answer += &format!("Date: {}\r\n", http_date(ahead));
        }
        answer += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.send(&[answer.as_bytes(), body].concat())
    }

    /// Begins an answer whose length is not known yet.
    pub fn start_chunked(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut answer = head(status, headers);
        answer += "Transfer-Encoding: chunked\r\n\r\n";
        self.send(answer.as_bytes())
    }

    /// Sends a piece of such an answer.
    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Ends such an answer.
    pub fn end(&mut self) -> io::Result<()> {
        self.send(b"0\r\n\r\n")
    }

    /// Sends bytes, with the trouble that the request was chosen for.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let cut = || io::Error::from(io::ErrorKind::ConnectionAborted);
        match &mut self.trouble {
            Some(Trouble::LoseAnswer) => return Err(cut()),
            Some(Trouble::Delay(pause)) => {
                let until = Instant::now() + *pause;
                self.trouble = None;
                self.wait_until(until)?;
            }
            Some(Trouble::CutAfter(left)) => {
                if bytes.len() > *left {
                    let part = &bytes[..*left];
                    self.stream.write_all(part)?;
                    return Err(cut());
                }
                *left -= bytes.len();
            }
            Some(Trouble::Drip(pause)) => {
                let pause = *pause;
                for byte in bytes {
                    self.wait_until(Instant::now() + pause)?;
                    self.stream.write_all(&[*byte])?;
                }
                return Ok(());
            }
            _ => {}
        }
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Waits; an error when the connection is cut meanwhile.
    fn wait_until(&self, until: Instant) -> io::Result<()> {
        while Instant::now() < until {
            if !self.is_live() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            std::thread::park_timeout((until - Instant::now().min(until)).min(Duration::from_millis(10)));
        }
        Ok(())
    }

    /// Answers a request; false if the connection ends.
    fn answer(&mut self, request: Request, service: &dyn Service) -> bool {
        let close = request.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        self.trouble = self.next_trouble(&request);
        let done = match self.trouble.clone() {
            Some(Trouble::Hang) => {
                self.wait_until(Instant::now() + Duration::from_secs(3600)).and(Err(io::ErrorKind::TimedOut.into()))
            }
            Some(Trouble::Cut) => return false,
            Some(Trouble::Bytes(bytes)) => {
                let _ = self.stream.write_all(&bytes);
                return false;
            }
            Some(Trouble::Endless { begin, over, pause }) => {
                let mut done = self.stream.write_all(&begin);
                while done.is_ok() {
                    done = self.wait_until(Instant::now() + pause).and_then(|()| self.stream.write_all(&over));
                }
                return false;
            }
            Some(Trouble::Answer(status, kind, body)) => {
                self.respond(status, &[("Content-Type", kind)], body.as_bytes())
            }
            _ => service.handle(request, self),
        };
        self.trouble = None;
        done.is_ok() && !close
    }

    fn next_trouble(&self, request: &Request) -> Option<Trouble> {
        let mut faults = self.state.faults.lock().unwrap();
        let fits = |it: &Fault| it.method.is_none_or(|it| it == request.method) && request.target.contains(&it.target);
        let at = faults.iter_mut().position(|it| {
            let lets_through = fits(it) && it.skip > 0;
            it.skip -= usize::from(lets_through);
            fits(it) && !lets_through
        })?;
        self.state.troubled.fetch_add(1, Ordering::SeqCst);
        let trouble = faults[at].trouble.clone();
        if let Some(times) = &mut faults[at].times {
            *times -= 1;
            if *times == 0 {
                faults.remove(at);
            }
        }
        Some(trouble)
    }

    /// Reads the next request; nothing if the client has closed.
    fn read_request(&mut self) -> io::Result<Option<Request>> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let head_length = loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut headers);
            match parsed.parse(&self.buffer).map_err(|error| bad(&error.to_string()))? {
                httparse::Status::Complete(length) => break length,
                httparse::Status::Partial if self.buffer.len() > LARGEST_HEAD => return Err(bad("head too large")),
                httparse::Status::Partial => {}
            }
            if !self.fill()? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_length).collect();
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&head).map_err(|error| bad(&error.to_string()))?;
        let headers: Vec<(String, String)> = parsed
            .headers
            .iter()
            .map(|it| (it.name.to_ascii_lowercase(), String::from_utf8_lossy(it.value).into_owned()))
            .collect();
        let (method, target) =
            (parsed.method.unwrap_or_default().to_owned(), parsed.path.unwrap_or_default().to_owned());
        let value = |name: &str| headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
        if value("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = if value("transfer-encoding").is_some_and(|it| it.contains("chunked")) {
            self.read_chunks()?
        } else {
            let length = value("content-length").map_or(Ok(0), str::parse).map_err(|_| bad("content-length"))?;
            if length > LARGEST_BODY {
                return Err(bad("body too large"));
            }
            self.take(length)?
        };
        let (path, query) = split_target(&target);
        let client = self.client.clone();
        let (connection, read_at) = (self.id, Instant::now());
        Ok(Some(Request { method, target, path, query, headers, body, client, connection, read_at }))
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                match self.buffer.windows(2).position(|it| it == b"\r\n") {
                    Some(at) => break at,
                    None if !self.fill()? => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => {}
                }
            };
            let line = self.take(line_end + 2)?;
            let size =
                std::str::from_utf8(&line[..line_end]).ok().and_then(|it| usize::from_str_radix(it.trim(), 16).ok());
            let size = size.filter(|it| body.len() + it <= LARGEST_BODY).ok_or(io::ErrorKind::InvalidData)?;
            let chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let read = self.stream.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read > 0)
    }
}

/// A time so many seconds from now, as HTTP writes it.
fn http_date(ahead: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let time = openssl::asn1::Asn1Time::from_unix(now + ahead).unwrap().to_string();
    let parts: Vec<&str> = time.split_whitespace().collect();
    let [month, day, clock, year, zone] = parts[..] else { panic!("{time}") };
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(now + ahead).div_euclid(86_400) as usize % 7];
    format!("{weekday}, {day:0>2} {month} {year} {clock} {zone}")
}

fn head(status: u16, headers: &[(&str, &str)]) -> String {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        414 => "URI Too Long",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

/// A request target's path and query, percent-decoded.
pub fn split_target(target: &str) -> (String, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|it| !it.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    });
    (percent_decoded(path), pairs.collect())
}

/// A text with its percent-encoded bytes decoded.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|it| std::str::from_utf8(it).ok())
            .and_then(|it| u8::from_str_radix(it, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
