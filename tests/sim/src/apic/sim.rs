//! SimApic: the servers over one cluster, how they are started and stopped, and their requests' way in.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::admin::AdminApi;
use super::cluster::{Cluster, Entry, Hook, State, User};
use super::fabric::Fabric;
use super::front::Front;
use super::lab;
use super::requests::{self, Reply};
use super::session::{Lifetimes, Sessions};
use super::signed::Certificates;
use super::socket;
use super::variants::Variants;
use crate::net::{Connection, Fault, Request, Server, Service};
use crate::pki::{Authority, Pair};

/// How a cluster is set up.
pub struct Options {
    /// How many controllers.
    pub controllers: usize,
    /// Where they listen.
    pub ip: IpAddr,
    /// The first one's port, the others follow; 0: any.
    pub port: u16,
    /// Login name and password of the administrator.
    pub admin: (String, String),
    /// A token's life.
    pub token_lifetime: Duration,
    /// How long a session can be refreshed.
    pub maximum_lifetime: Duration,
    /// The switches.
    pub variants: Variants,
    /// The CA that signs the controllers' certificates; a new one if there is none.
    pub authority: Option<Authority>,
    /// The controllers' certificate; by default one for localhost and its addresses.
    pub identity: Option<Pair>,
    /// Whether `/lab/…` is served without a login.
    pub lab: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            controllers: 1,
            ip: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            admin: ("admin".to_owned(), "Secret-apic-pw1".to_owned()),
            token_lifetime: Duration::from_secs(600),
            maximum_lifetime: Duration::from_secs(86_400),
            variants: Variants::default(),
            authority: None,
            identity: None,
            lab: false,
        }
    }
}

/// A running cluster; its admin API is at hand by `Deref`. It stops when it is dropped.
pub struct SimApic {
    admin: AdminApi,
    authority: Authority,
    identity: Pair,
    addresses: Vec<SocketAddr>,
    servers: Mutex<BTreeMap<usize, Server>>,
    login: (String, String),
    lab: bool,
    keeper: Option<JoinHandle<()>>,
}

impl SimApic {
    /// Starts a cluster. It panics if the machine gives no socket: nothing can be tested then.
    pub fn start(options: Options) -> SimApic {
        let authority = options.authority.unwrap_or_else(|| Authority::new("SimApic CA"));
        let identity = options.identity.unwrap_or_else(|| authority.server(&["localhost", "127.0.0.1", "::1"]));
        let lifetimes = Lifetimes { token: options.token_lifetime, maximum: options.maximum_lifetime };
        let admin = User { name: options.admin.0.clone(), password: options.admin.1.clone() };
        let state = State {
            fabric: Fabric::new(options.variants),
            sessions: Sessions::new(lifetimes),
            front: Front::default(),
            users: vec![admin],
            domains: ["LOCAL", "fallback", "DefaultAuth"].map(str::to_owned).to_vec(),
            certificates: Certificates::default(),
            ahead: 0,
            journal: Vec::new(),
            rejections: Vec::new(),
            refused_subscriptions: Vec::new(),
            hooks: Vec::new(),
            hold: None,
            lagging: BTreeMap::new(),
            deaf: false,
            stopped: false,
            version: 0,
            started: Some(Instant::now()),
            skipped: Duration::ZERO,
        };
        let admin = AdminApi { cluster: Arc::new(Cluster::new(state)) };
        let kept = admin.cluster.clone();
        let keeper = thread::Builder::new().name("apic-keeper".to_owned()).spawn(move || kept.keep()).unwrap();
        let mut apic = SimApic {
            admin,
            authority,
            identity,
            addresses: Vec::new(),
            servers: Mutex::default(),
            login: options.admin,
            lab: options.lab,
            keeper: Some(keeper),
        };
        for index in 0..options.controllers {
            let port = if options.port == 0 { 0 } else { options.port + index as u16 };
            let server = apic.serve(index, SocketAddr::new(options.ip, port)).unwrap();
            apic.addresses.push(server.address());
            apic.servers.lock().unwrap().insert(index, server);
        }
        apic
    }

    fn serve(&self, controller: usize, address: SocketAddr) -> io::Result<Server> {
        let service = Controller { controller, admin: self.admin.clone(), lab: self.lab };
        Server::start(address, &self.identity, Arc::new(service))
    }

    /// The addresses of the controllers; they stay the same over a stop.
    pub fn controllers(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What `ACI_APIC` wants: all controllers, separated by commas.
    pub fn apic(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// The administrator's login name.
    pub fn username(&self) -> &str {
        &self.login.0
    }

    /// The administrator's first password.
    pub fn password(&self) -> &str {
        &self.login.1
    }

    /// The CA's certificate as PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The fingerprint of the controllers' certificate, as openssl prints it.
    pub fn fingerprint(&self) -> String {
        self.identity.fingerprint()
    }

    /// Another key to the admin API.
    pub fn admin(&self) -> AdminApi {
        self.admin.clone()
    }

    /// Stops a controller: its port is closed, its sessions are gone.
    pub fn stop(&self, controller: usize) {
        let server = self.servers.lock().unwrap().remove(&controller);
        drop(server);
        self.admin.cluster.change(|state| state.sessions.forget_controller(controller));
    }

    /// Starts a stopped controller again, at its address. Another server of this machine may have it for a while.
    pub fn start_again(&self, controller: usize) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(180);
        let server = loop {
            match self.serve(controller, self.addresses[controller]) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                served => break served?,
            }
        };
        self.servers.lock().unwrap().insert(controller, server);
        Ok(())
    }

    /// Cuts a controller's connections and every new one at once; its sessions stay.
    pub fn pause(&self, controller: usize) {
        self.with(controller, Server::pause);
    }

    /// Ends a pause.
    pub fn resume(&self, controller: usize) {
        self.with(controller, Server::resume);
    }

    /// Cuts all connections of a controller once, websockets included.
    pub fn cut(&self, controller: usize) {
        self.with(controller, Server::cut_all);
    }

    /// From now on answers carry the header `Date`, from clocks that are so many seconds ahead of ours.
    pub fn show_date(&self, ahead: i64) {
        self.servers.lock().unwrap().values().for_each(|it| it.show_date(ahead));
        self.admin.cluster.change(|state| state.ahead = ahead);
    }

    /// Trouble with requests, at all controllers; the number of times counts at each.
    pub fn fault(&self, fault: Fault) {
        for server in self.servers.lock().unwrap().values() {
            server.fault(fault.clone());
        }
    }

    /// Trouble with requests at one controller.
    pub fn fault_at(&self, controller: usize, fault: Fault) {
        self.with(controller, |server| server.fault(fault));
    }

    /// How many requests met with trouble so far, at the controllers that run.
    pub fn troubled(&self) -> usize {
        self.servers.lock().unwrap().values().map(Server::troubled).sum()
    }

    /// Ends all trouble with requests.
    pub fn clear_faults(&self) {
        for server in self.servers.lock().unwrap().values() {
            server.clear_faults();
        }
    }

    fn with(&self, controller: usize, work: impl FnOnce(&Server)) {
        if let Some(server) = self.servers.lock().unwrap().get(&controller) {
            work(server);
        }
    }
}

impl Deref for SimApic {
    type Target = AdminApi;

    fn deref(&self) -> &AdminApi {
        &self.admin
    }
}

impl Drop for SimApic {
    fn drop(&mut self) {
        self.admin.cluster.change(|state| state.stopped = true);
        self.servers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// One controller's way in.
struct Controller {
    controller: usize,
    admin: AdminApi,
    lab: bool,
}

impl Controller {
    fn entry(&self, request: &Request, user: String, status: u16) -> Entry {
        Entry {
            at: request.read_at,
            controller: self.controller,
            user,
            method: request.method.clone(),
            path: request.path.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            status,
        }
    }

    fn answer(&self, request: &Request) -> Reply {
        // One step: who sees what a request did finds it in the journal too.
        let (reply, hook) = self.admin.cluster.change(|state| {
            // What is over by now is over before the request is looked at.
            let now = state.now();
            state.sessions.expire(&state.fabric.variants, now);
            let (user, reply) = requests::answer(state, self.controller, request);
            state.note(self.entry(request, user, reply.status));
            let fits = |it: &Hook| it.method == request.method && request.target.contains(&it.target);
            let hook = state.hooks.iter().position(fits).map(|at| state.hooks.remove(at));
            (reply, hook)
        });
        if let Some(hook) = hook {
            (hook.then)(&self.admin);
        }
        reply
    }

    /// The token stands in the path as it is, after `/socket`.
    fn websocket(&self, request: &Request, connection: &mut Connection) -> io::Result<()> {
        let target = request.target.strip_prefix("/socket").unwrap_or_default();
        let (token, challenge) = target.split_once('?').unwrap_or((target, ""));
        let session = self.admin.cluster.change(|state| {
            let signer = state.certificates.signer(request, &state.fabric.variants, state.ahead);
            let session = state.sessions.of_token(self.controller, token, challenge, state.now());
            // The websocket of a signed session is opened by a signed request.
            let session = session.filter(|it| !state.sessions.is_signed(*it) || matches!(signer, Ok(Some(_))));
            state.note(self.entry(request, String::new(), if session.is_some() { 101 } else { 403 }));
            session
        });
        match session {
            Some(session) => socket::serve(&self.admin.cluster, self.controller, session, request, connection),
            None => connection.respond(403, &[("Content-Type", "text/html")], b"Forbidden"),
        }
    }
}

impl Service for Controller {
    fn handle(&self, request: Request, connection: &mut Connection) -> io::Result<()> {
        if self.lab && request.path.starts_with("/lab/") {
            let (status, body) = lab::answer(&self.admin, &request);
            return connection.respond(status, &[("Content-Type", "application/json")], body.as_bytes());
        }
        let is_upgrade = socket::is_upgrade(&request);
        let (hold, refusal, latency) = self.admin.cluster.change(|state| {
            let hold = state.next_hold();
            let now = state.now();
            let refusal = state.front.admit(self.controller, is_upgrade, &state.fabric.variants, now);
            if let Some(refusal) = refusal.as_ref().filter(|_| hold.is_none()) {
                state.note(self.entry(&request, String::new(), refusal.status));
            }
            (hold, refusal, state.fabric.variants.latency)
        });
        if let Some(hold) = hold {
            if hold.done && !is_upgrade && refusal.is_none() {
                self.answer(&request);
            }
            let _ = hold.arrived.send(());
            // The other end is dropped, nothing is ever sent.
            let _ = hold.key.recv();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if is_upgrade && refusal.is_none() {
            connection.wait(latency)?;
            return self.websocket(&request, connection);
        }
        self.admin.cluster.change(|state| state.front.began());
        let reply = refusal.unwrap_or_else(|| self.answer(&request));
        let waited = connection.wait(latency);
        self.admin.cluster.change(|state| state.front.ended());
        waited?;
        let cookie = reply.cookie.map(|it| format!("APIC-cookie={it}; path=/; HttpOnly; Secure"));
        let mut headers = vec![("Server", "Cisco APIC"), ("Content-Type", reply.kind)];
        headers.extend(cookie.as_deref().map(|it| ("Set-Cookie", it)));
        headers.extend(reply.retry_after.then_some(("Retry-After", "1")));
        connection.respond(reply.status, &headers, reply.body.as_bytes())
    }
}
