//! The same APIC without sockets, threads and wall clock: for tests that live through thousands of small worlds.
//! Time passes only by `AdminApi::advance`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::admin::AdminApi;
use super::cluster::{Cluster, State};
use super::fabric::Fabric;
use super::front::Front;
use super::requests;
use super::session::{Lifetimes, Outgoing, Sessions};
use super::signed::Certificates;
use super::variants::Variants;
use crate::net::{Request, split_target};

/// A fabric in memory, with its admin API.
pub struct InMemoryApic {
    /// The admin API.
    pub admin: AdminApi,
}

/// A session at it, with its websocket.
pub struct ApicSession {
    admin: AdminApi,
    token: String,
    events: Receiver<Outgoing>,
}

/// Sessions and subscriptions live as long as a test; it ends them itself.
const LONG: Duration = Duration::from_secs(1_000_000_000);

impl InMemoryApic {
    /// A fabric as it comes.
    pub fn new(variants: Variants) -> InMemoryApic {
        let variants = Variants { subscription_lifetime: LONG, login_throttle: None, ..variants };
        let state = State {
            fabric: Fabric::new(variants),
            sessions: Sessions::new(Lifetimes { token: LONG, maximum: LONG }),
            front: Front::default(),
            users: Vec::new(),
            domains: Vec::new(),
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
            started: None,
            skipped: Duration::ZERO,
        };
        InMemoryApic { admin: AdminApi { cluster: Arc::new(Cluster::new(state)) } }
    }

    /// Logs in and opens the websocket.
    pub fn log_in(&self, user: &str) -> ApicSession {
        let (sender, events) = channel();
        let token = self.admin.cluster.change(|state| {
            let now = state.now();
            let (session, token) = state.sessions.login(0, user, "15374", &state.fabric.variants, now);
            state.sessions.open(session, 0, sender);
            token
        });
        ApicSession { admin: self.admin.clone(), token, events }
    }
}

impl ApicSession {
    /// A request and its answer: status and body.
    pub fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let (path, query) = split_target(target);
        let request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            path,
            query,
            headers: vec![("cookie".to_owned(), format!("APIC-cookie={}", self.token))],
            body: body.as_bytes().to_vec(),
            client: None,
            connection: 0,
            read_at: Instant::now(),
        };
        let reply = self.admin.cluster.change(|state| {
            let now = state.now();
            let refusal = state.front.admit(0, false, &state.fabric.variants, now);
            refusal.unwrap_or_else(|| requests::answer(state, 0, &request).1)
        });
        (reply.status, reply.body)
    }

    /// What the websocket said since it was last asked; nothing once it is closed.
    pub fn events(&self) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        loop {
            match self.events.try_recv() {
                Ok(Outgoing::Text(text)) => texts.push(text),
                // Here are no frames that bytes could be of.
                Ok(Outgoing::Bytes(_)) => {}
                Err(TryRecvError::Empty) => return Some(texts),
                Ok(Outgoing::Close) | Err(TryRecvError::Disconnected) => return None,
            }
        }
    }
}
