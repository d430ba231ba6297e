//! HTTP requests to the API server: pages of lists, the stream of a watch, single objects, and the one namespace that
//! gives the cluster its id. What follows from an error is the caller's business.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::warn;
use serde::Deserialize;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, BodyReader, RequestBuilder};

use super::credentials::{Auth, Credentials, Reload};
use super::decode::{self, Page, Progress};
use super::error::Error;
use super::kinds;
use super::kubeconfig::{ClusterConfig, ConfigError};
use super::pool::Pool;
use crate::model::kubernetes::{Key, Kind, Object};
use crate::model::owner::OwnerIdentity;
use crate::net::{describe_error, wrong_peer};
use crate::secret::Secret;

/// Objects in a page: about 2 MB of JSON for Pods, as client-go and kube-rs ask for.
const PAGE: usize = 500;

/// The largest page that is read, in bytes. One that is larger is asked for with fewer objects.
pub(super) const MAX_PAGE: u64 = 64 << 20;

/// The largest single object that is read, in bytes.
const MAX_OBJECT: u64 = 1 << 20;

/// The most objects of a list that are asked for; a cluster of the largest size that Kubernetes supports has 150,000 Pods.
const MAX_OBJECTS: usize = 4000 * PAGE;

/// How long one page may take in all.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a list starts over because its continue token expired, before it counts as failed.
const LIST_TRIES: usize = 3;

/// The stream of an open watch, line by line.
pub type Stream = BufReader<BodyReader<'static>>;

/// One API server with our credentials. Clones share connections.
#[derive(Clone)]
pub struct Client {
    server: Arc<str>,
    credentials: Arc<Credentials>,
    connections: Arc<Mutex<Connections>>,
    largest_page: u64,
}

/// The connections that were made with one auth, or with later ones of the same identity and trust.
struct Connections {
    agent: Agent,
    auth: Auth,
    is_shut: bool,
}

impl Connections {
    /// None yet.
    fn with(auth: Auth) -> Arc<Mutex<Connections>> {
        Arc::new(Mutex::new(Connections { agent: auth.tls.agent(), auth, is_shut: false }))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.server)
    }
}

impl Client {
    /// A client for one API server. Nothing is sent yet.
    pub fn new(config: &ClusterConfig) -> Result<Client, ConfigError> {
        Client::with(config, None)
    }

    /// The same for a configuration that is read again when the credentials are refused, and on demand.
    pub fn renewable(reload: Box<Reload>) -> Result<Client, ConfigError> {
        Client::with(&reload()?, Some(reload))
    }

    fn with(config: &ClusterConfig, reload: Option<Box<Reload>>) -> Result<Client, ConfigError> {
        let credentials = Credentials::new(config, reload)?;
        let connections = Connections::with(credentials.first());
        Ok(Client {
            server: config.server.as_str().into(),
            credentials: Arc::new(credentials),
            connections,
            largest_page: MAX_PAGE,
        })
    }

    /// The same, which reads pages of this size at most (64 MiB, unless a test is in a hurry).
    #[doc(hidden)]
    pub fn with_largest_page(self, largest_page: u64) -> Client {
        Client { largest_page, ..self }
    }

    /// Reads the credentials again, now. What cannot be read leaves the old in use.
    pub fn renew_credentials(&self) -> Result<(), ConfigError> {
        if let Some(auth) = self.credentials.read_again()? {
            self.agent(&auth);
        }
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent for an auth. One with another certificate ends all connections, watches too: they belong to somebody
    /// whom we are no longer.
    fn agent(&self, auth: &Auth) -> Agent {
        let mut connections = self.connections();
        if !connections.is_shut && auth.number > connections.auth.number {
            if !auth.tls.is(&connections.auth.tls) {
                std::mem::replace(&mut connections.agent, auth.tls.agent()).shutdown();
            }
            connections.auth = auth.clone();
        }
        connections.agent.clone()
    }

    /// The UID of the namespace `kube-system`: it lives as long as the cluster (O1).
    pub fn cluster_uid(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            uid: String,
        }
        let mut body = Vec::new();
        self.get_whole("/api/v1/namespaces/kube-system", &mut body)?;
        let namespace: Namespace =
            serde_json::from_slice(&body).map_err(|error| Error::malformed("the namespace kube-system", &error))?;
        // It becomes a part of our mark, and so of filters in URLs (D1).
        if !OwnerIdentity::is_id(&namespace.metadata.uid) {
            return Err(Error::Malformed("the UID of the namespace kube-system is none".to_owned()));
        }
        Ok(namespace.metadata.uid)
    }

    /// A whole list with the version to watch from, page by page (K1). Pages of different lists are never mixed: an
    /// expired token throws away what was read.
    pub fn list(&self, kind: Kind, pool: &mut Pool) -> Result<(Vec<Object>, String), Error> {
        for _ in 1..LIST_TRIES {
            match self.list_once(kind, pool) {
                Err(Error::Expired) => {}
                done => return done,
            }
        }
        self.list_once(kind, pool)
    }

    fn list_once(&self, kind: Kind, pool: &mut Pool) -> Result<(Vec<Object>, String), Error> {
        let mut all = Vec::new();
        let (mut version, mut last): (Option<String>, Option<Key>) = (None, None);
        let (mut next, mut limit, mut asked) = (String::new(), PAGE, 0);
        while asked < MAX_OBJECTS {
            asked += limit;
            let mut progress = Progress::default();
            let mut page = match self.page(&pages_of(kind, limit, &next), kind, &mut progress) {
                // Where not even one object came in whole, fewer of them would not help.
                Err(Error::TooLarge(what)) if limit > 1 && progress.items > 0 => {
                    let fewer = progress.items.min(limit / 2).max(1);
                    let largest = progress.largest.map(|(size, key)| {
                        format!(" (the largest object in it: {kind} {key}, about {:.1} MB)", size as f64 / 1e6)
                    });
                    let largest = largest.unwrap_or_default();
                    warn!("a page of {limit} {kind}s is {what}{largest}; listing {fewer} at a time");
                    limit = fewer;
                    continue;
                }
                Err(Error::TooLarge(what)) => {
                    let after = last.map(|it| format!(" (the one after {it})")).unwrap_or_default();
                    return Err(Error::TooLarge(format!("one {kind}{after} is {what}")));
                }
                page => page?,
            };
            last = progress.last.or(last);
            if version.as_ref().is_some_and(|it| *it != page.resource_version) {
                return Err(Error::Expired);
            }
            page.objects.iter_mut().for_each(|it| pool.share(it));
            all.extend(page.objects);
            let repeats = !page.next.is_empty() && page.next == next;
            if repeats || (page.total == 0 && !page.next.is_empty()) {
                return Err(Error::Malformed("a list whose pages lead nowhere".to_owned()));
            }
            version = Some(page.resource_version);
            next = page.next;
            if next.is_empty() {
                return Ok((all, version.unwrap_or_default()));
            }
            // What was large may be behind us.
            limit = (limit * 2).min(PAGE);
        }
        Err(Error::Malformed("a list without an end".to_owned()))
    }

    /// The newest version of a kind. It costs the server one consistent read and the wire one object.
    pub fn newest_version(&self, kind: Kind) -> Result<String, Error> {
        Ok(self.page(&pages_of(kind, 1, ""), kind, &mut Progress::default())?.resource_version)
    }

    /// One object as it is now, by the right to list; nothing where it is not there or no rule needs it.
    pub fn look_up(&self, kind: Kind, key: &Key) -> Result<Option<Object>, Error> {
        let kinds::KindInfo { api_path, plural, .. } = kinds::info(kind);
        let (namespace, name) = (percent_encoded(&key.namespace), percent_encoded(&key.name));
        let path = format!("{api_path}/namespaces/{namespace}/{plural}?fieldSelector=metadata.name%3D{name}");
        let page = self.page(&path, kind, &mut Progress::default())?;
        Ok(page.objects.into_iter().find(|it| it.key() == key))
    }

    fn page(&self, path: &str, kind: Kind, progress: &mut Progress) -> Result<Page, Error> {
        let begun = Instant::now();
        let response = self.get(path, |request| request.config().timeout_global(Some(PAGE_TIMEOUT)).build())?;
        // One byte more than is taken, to know that there was one.
        let body = response.into_body().into_with_config().limit(2 * self.largest_page).reader();
        let body = Counting { inner: body.take(self.largest_page + 1), bytes: progress.bytes.clone() };
        let mut body = BufReader::with_capacity(64 * 1024, body);
        json_only(body.fill_buf().map_err(|error| Error::Unreachable(describe_io_error(&error)))?)?;
        let page = decode::read_page(kind, body, progress);
        if progress.bytes.get() > self.largest_page {
            return Err(Error::TooLarge(format!("larger than {} MiB", self.largest_page >> 20)));
        }
        match page {
            // It may take too long because it is large.
            Err(Error::Unreachable(_)) if progress.items > 0 && begun.elapsed() >= PAGE_TIMEOUT => {
                let size = progress.bytes.get() as f64 / 1e6;
                Err(Error::TooLarge(format!("not read in {} s: {size:.1} MB came in", PAGE_TIMEOUT.as_secs())))
            }
            page => page,
        }
    }

    /// Opens a watch that starts after a version. The server ends it after `lifetime`; where that end does not come,
    /// it is taken a little later for granted, whatever still drips in (K2).
    pub fn watch(&self, kind: Kind, version: &str, lifetime: Duration) -> Result<Stream, Error> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            path_of(kind),
            percent_encoded(version),
            lifetime.as_secs()
        );
        let response = self.get(&path, |request| {
            let limit = Some(lifetime + Duration::from_secs(10));
            request.config().timeout_recv_response(Some(Duration::from_secs(30))).timeout_global(limit).build()
        })?;
        Ok(BufReader::with_capacity(64 * 1024, response.into_body().into_reader()))
    }

    /// The same client with connections of its own, which a shutdown of the others does not end.
    pub fn with_own_agent(&self) -> Client {
        Client { connections: Connections::with(self.credentials.first()), ..self.clone() }
    }

    /// Ends all requests and watches of this client and its clones, for good.
    pub fn shutdown(&self) {
        self.credentials.close();
        let mut connections = self.connections();
        connections.is_shut = true;
        connections.agent.clone().shutdown();
    }

    fn get_whole(&self, path: &str, body: &mut Vec<u8>) -> Result<(), Error> {
        let response = self.get(path, |request| request.config().timeout_global(Some(PAGE_TIMEOUT)).build())?;
        read_body(response, MAX_OBJECT, body)?;
        json_only(body)
    }

    /// Reads one object.
    pub(super) fn get_object(&self, path: &str, limit: Duration) -> Result<Vec<u8>, Error> {
        let end = Instant::now() + limit;
        object(self.get(path, |request| request.config().timeout_global(Some(until(end))).build())?)
    }

    /// Makes an object (POST), replaces one (PUT) or changes one (PATCH, as a merge); what it is now.
    pub(super) fn put_object(&self, verb: Verb, path: &str, body: &str, limit: Duration) -> Result<Vec<u8>, Error> {
        let (url, end) = (format!("{}{path}", self.server), Instant::now() + limit);
        let response = self.authorized(|agent, token| {
            let (request, kind) = match verb {
                Verb::Create => (agent.post(&url), "application/json"),
                Verb::Update => (agent.put(&url), "application/json"),
                Verb::Patch => (agent.patch(&url), "application/merge-patch+json"),
            };
            let request = headers(request, token).content_type(kind);
            request.config().timeout_global(Some(until(end))).build().send(body)
        })?;
        object(response)
    }

    fn get(
        &self,
        path: &str,
        limits: impl Fn(RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>, Error> {
        let url = format!("{}{path}", self.server);
        self.authorized(|agent, token| limits(headers(agent.get(&url), token)).call())
    }

    /// Sends a request. A 401 is answered once with credentials made anew, where there are others than were sent.
    fn authorized(
        &self,
        send: impl Fn(&Agent, &Option<Secret>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Error> {
        let send = |auth: &Auth| -> Result<Response<Body>, Error> {
            let response =
                send(&self.agent(auth), &auth.token).map_err(|error| Error::Unreachable(describe_error(&error)))?;
            if response.headers().get("content-encoding").is_some_and(|it| it != "identity") {
                return Err(Error::Malformed("a compressed answer, which was not asked for".to_owned()));
            }
            if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
        };
        let sent = self.credentials.current().map_err(|error| Error::Credentials(error.0))?;
        let answer = send(&sent);
        if !matches!(answer, Err(Error::Unauthorized)) {
            return answer;
        }
        let refused = |error: ConfigError| Error::Credentials(format!("the old are refused (401); {error}"));
        self.credentials.after_refusal(&sent).map_err(refused)?.map_or(answer, |auth| send(&auth))
    }
}

/// Counts what is read.
struct Counting<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + length as u64);
        Ok(length)
    }
}

fn headers<T>(request: RequestBuilder<T>, token: &Option<Secret>) -> RequestBuilder<T> {
    let request = request.header("Accept", "application/json");
    match token {
        Some(token) => request.header("Authorization", format!("Bearer {}", token.expose())),
        None => request,
    }
}

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is made: POST.
    Create,
    /// It is replaced: PUT.
    Update,
    /// A part of it is changed: PATCH.
    Patch,
}

/// What is left of a limit, also for the second of two requests; never zero, which no socket takes.
fn until(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn object(response: Response<Body>) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    read_body(response, MAX_OBJECT, &mut body)?;
    json_only(&body)?;
    Ok(body)
}

/// A page for people is another thing than JSON that is broken: somebody else answered.
fn json_only(body: &[u8]) -> Result<(), Error> {
    if !wrong_peer::is_html(body) {
        return Ok(());
    }
    let why = "an HTML page in place of JSON; is this the API server, or a proxy or a login page in front of it?";
    Err(Error::Malformed(why.to_owned()))
}

fn read_body(response: Response<Body>, limit: u64, body: &mut Vec<u8>) -> Result<(), Error> {
    body.clear();
    let mut reader = response.into_body().into_with_config().limit(limit).reader();
    reader.read_to_end(body).map_err(|error| Error::Unreachable(describe_io_error(&error)))?;
    Ok(())
}

/// An I/O error in words; ureq hides its own kind of error in it.
pub fn describe_io_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<ureq::Error>());
    inner.map_or_else(|| error.to_string(), describe_error)
}

/// An answer that is not a success. The body is a `Status` mostly, but not always: a busy server answers in text.
fn refusal(response: Response<Body>) -> Error {
    let code = response.status().as_u16();
    if let Some(why) = wrong_peer::redirect(code, response.headers()) {
        return Error::Malformed(why);
    }
    let after = response.headers().get("retry-after").and_then(|it| it.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    // Without a body the code alone decides.
    let _ = read_body(response, 64 * 1024, &mut body);
    let mut status = decode::status(&body);
    if status.message.is_empty() && wrong_peer::is_html(&body) {
        status.message = format!("HTTP {code} with an HTML page, which comes from a proxy in between");
    } else if status.code == 0 && status.message.is_empty() && code == 403 {
        status.message = "HTTP 403 in other words than an API server's; a proxy in between may have sent it".to_owned();
    }
    status.code = code;
    Error::of_status(&status, after.map(Duration::from_secs))
}

/// The path of a page.
fn pages_of(kind: Kind, limit: usize, next: &str) -> String {
    let path = format!("{}?limit={limit}", path_of(kind));
    if next.is_empty() { path } else { format!("{path}&continue={}", percent_encoded(next)) }
}

/// The path of all objects of a kind.
fn path_of(kind: Kind) -> String {
    let info = kinds::info(kind);
    format!("{}/{}", info.api_path, info.plural)
}

/// A query value: tokens and versions are opaque, so everything but letters, digits and `-_.~` is encoded.
pub(super) fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}
