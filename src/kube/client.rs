//! HTTP requests to the API server: the stream of a watch, single objects, and the namespace that gives the cluster its
//! id; lists are in `list`. The caller decides what follows from an error.

use std::io::{BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, BodyReader, RequestBuilder};

use super::credentials::{Auth, Credentials, Reload};
use super::error::{ConfigError, Error};
use super::kinds;
use super::kubeconfig::ClusterConfig;
use super::status::Status;
use crate::metrics;
use crate::model::kubernetes::Kind;
use crate::model::owner::OwnerIdentity;
use crate::net::{describe_error, describe_io_error, wrong_peer};
use crate::secret::Secret;

/// The largest list page that is read, in bytes.
pub(super) const MAX_PAGE: u64 = 64 << 20;

/// The largest single object that is read, in bytes.
const MAX_OBJECT: u64 = 1 << 20;

/// How long one list page may take in all.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The stream of an open watch, line by line.
pub type Stream = BufReader<BodyReader<'static>>;

/// One API server with our credentials. Clones share connections.
#[derive(Clone)]
pub struct Client {
    server: Arc<str>,
    credentials: Arc<Credentials>,
    connections: Arc<Mutex<Connections>>,
    pub(super) largest_page: u64,
    /// The kinds that are watched.
    pub(super) kinds: Arc<[Kind]>,
}

/// The connections made with one auth, or with later ones of the same TLS settings.
struct Connections {
    agent: Agent,
    auth: Auth,
    is_shut: bool,
}

impl Connections {
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

    /// The same for other kinds that are watched (G1).
    pub fn watching(self, kinds: &[Kind]) -> Client {
        Client { kinds: kinds.into(), ..self }
    }

    /// The same for a configuration that is read again when the credentials are rejected, and on demand.
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
            kinds: Kind::DEFAULT.into(),
        })
    }

    /// Sets the largest list page that is read; for tests.
    #[doc(hidden)]
    pub fn with_largest_page(self, largest_page: u64) -> Client {
        Client { largest_page, ..self }
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Reads the credentials again, now. If that fails, the old ones stay in use.
    pub fn renew_credentials(&self) -> Result<(), ConfigError> {
        if let Some(auth) = self.credentials.read_again()? {
            self.agent(&auth);
        }
        Ok(())
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent for an auth. A new client certificate or CA ends all connections, watches too: they belong to the old
    /// identity.
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
        let body = self.get_object("/api/v1/namespaces/kube-system", PAGE_TIMEOUT)?;
        let namespace: Namespace =
            serde_json::from_slice(&body).map_err(|error| Error::malformed("namespace kube-system", &error))?;
        // It becomes a part of the owner annotation, and so of filters in URLs (D1).
        if !OwnerIdentity::is_id(&namespace.metadata.uid) {
            return Err(Error::Malformed("namespace kube-system: invalid UID".to_owned()));
        }
        Ok(namespace.metadata.uid)
    }

    /// Opens a watch that starts after a version. The server ends it after `lifetime`; if it does not, the client ends it
    /// a little later (K2).
    pub fn watch(&self, kind: Kind, version: &str, lifetime: Duration) -> Result<Stream, Error> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            path_of(kind),
            percent_encoded(version),
            lifetime.as_secs()
        );
        let response = self.get(metrics::Verb::Watch, &path, |request| {
            let limit = Some(lifetime + Duration::from_secs(10));
            request.config().timeout_recv_response(Some(Duration::from_secs(30))).timeout_global(limit).build()
        })?;
        Ok(BufReader::with_capacity(64 * 1024, response.into_body().into_reader()))
    }

    /// The same client with connections of its own, which a shutdown of the other does not end.
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

    /// Reads one object.
    pub(super) fn get_object(&self, path: &str, limit: Duration) -> Result<Vec<u8>, Error> {
        let end = Instant::now() + limit;
        object(
            self.get(metrics::Verb::Get, path, |request| {
                request.config().timeout_global(Some(time_left(end))).build()
            })?,
        )
    }

    /// Creates or replaces an object; returns it as it is now.
    pub(super) fn put_object(&self, verb: Verb, path: &str, body: &str, limit: Duration) -> Result<Vec<u8>, Error> {
        let (url, end) = (format!("{}{path}", self.server), Instant::now() + limit);
        let counted_as = match verb {
            Verb::Create => metrics::Verb::Create,
            Verb::Update => metrics::Verb::Update,
        };
        let response = self.authorized(counted_as, |agent, token| {
            let request = match verb {
                Verb::Create => agent.post(&url),
                Verb::Update => agent.put(&url),
            };
            let request = headers(request, token).content_type("application/json");
            request.config().timeout_global(Some(time_left(end))).build().send(body)
        })?;
        object(response)
    }

    pub(super) fn get(
        &self,
        verb: metrics::Verb,
        path: &str,
        limits: impl Fn(RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>, Error> {
        let url = format!("{}{path}", self.server);
        self.authorized(verb, |agent, token| limits(headers(agent.get(&url), token)).call())
    }

    /// Sends a request, and once more after a 401 if there are other credentials by then.
    fn authorized(
        &self,
        verb: metrics::Verb,
        send: impl Fn(&Agent, &Option<Secret>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Error> {
        let sent = self.credentials.current().map_err(|error| Error::Credentials(error.0))?;
        let answer = self.send_with(verb, &sent, &send);
        if !matches!(answer, Err(Error::Unauthorized)) {
            return answer;
        }
        match self.credentials.after_rejection(&sent) {
            Ok(Some(other)) => self.send_with(verb, &other, &send),
            Ok(None) => answer,
            Err(error) => Err(Error::Credentials(format!("the present ones are rejected (401); {error}"))),
        }
    }

    fn send_with(
        &self,
        verb: metrics::Verb,
        auth: &Auth,
        send: &impl Fn(&Agent, &Option<Secret>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, Error> {
        let response = send(&self.agent(auth), &auth.token);
        metrics::kubernetes_request(verb, response.as_ref().map_or(0, |response| response.status().as_u16()));
        let response = response.map_err(|error| Error::Unreachable(describe_error(&error)))?;
        if response.headers().get("content-encoding").is_some_and(|it| it != "identity") {
            return Err(Error::Malformed("unexpected content encoding".to_owned()));
        }
        if response.status().is_success() { Ok(response) } else { Err(rejection(response)) }
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
    /// POST.
    Create,
    /// PUT.
    Update,
}

/// The time left until a deadline; never zero, which no socket accepts.
fn time_left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

pub(super) fn object(response: Response<Body>) -> Result<Vec<u8>, Error> {
    let body = read_body(response, MAX_OBJECT)?;
    reject_html(&body)?;
    Ok(body)
}

/// An HTML page, unlike broken JSON, means that another server answered.
pub(super) fn reject_html(body: &[u8]) -> Result<(), Error> {
    if !wrong_peer::is_html(body) {
        return Ok(());
    }
    let why = "an HTML page instead of JSON; check whether a proxy or a login page answers instead of the API server";
    Err(Error::Malformed(why.to_owned()))
}

fn read_body(response: Response<Body>, limit: u64) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(limit).reader();
    reader.read_to_end(&mut body).map_err(|error| Error::Unreachable(describe_io_error(&error)))?;
    Ok(body)
}

/// The error of an answer. Its body is mostly, but not always, a `Status`: a busy server answers in plain text.
fn rejection(response: Response<Body>) -> Error {
    let code = response.status().as_u16();
    if let Some(why) = wrong_peer::redirect(code, response.headers()) {
        return Error::Malformed(why);
    }
    let after = response.headers().get("retry-after").and_then(|it| it.to_str().ok()?.parse().ok());
    // Without a body, the code alone decides.
    let body = read_body(response, 64 * 1024).unwrap_or_default();
    let mut status = Status::parse(&body);
    if status.message.is_empty() && wrong_peer::is_html(&body) {
        status.message = format!("HTTP {code} with an HTML page; a proxy in between answered");
    } else if status.code == 0 && status.message.is_empty() && code == 403 {
        status.message = "HTTP 403 without a Kubernetes Status; a proxy in between may have answered".to_owned();
    }
    status.code = code;
    Error::of_status(&status, after.map(Duration::from_secs))
}

/// The path of all objects of a kind.
pub(super) fn path_of(kind: Kind) -> String {
    let info = kinds::info(kind);
    format!("{}/{}", info.api_path, info.plural)
}

/// Tokens and versions are opaque, so everything but letters, digits and `-_.~` is encoded.
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
