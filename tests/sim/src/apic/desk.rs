//! The same APIC without sockets, threads and wall clock: for tests that live through thousands of small worlds.
//! Time passes only by `Door::advance`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::cluster::{Cluster, State};
use super::door::Door;
use super::fabric::Fabric;
use super::front::Front;
use super::quirks::Quirks;
use super::requests;
use super::session::{Lifetimes, Outgoing, Sessions};
use crate::net::{Request, split_target};

/// A fabric behind a desk; its side door is at hand.
pub struct Desk {
    /// The side door.
    pub door: Door,
}

/// A session at the desk, with its websocket.
pub struct Seat {
    door: Door,
    token: String,
    events: Receiver<Outgoing>,
}

/// Sessions and subscriptions live as long as a test; it ends them itself.
const LONG: Duration = Duration::from_secs(1_000_000_000);

impl Desk {
    /// A fabric as it comes.
    pub fn new(quirks: Quirks) -> Desk {
        let quirks = Quirks { subscription_lifetime: LONG, login_throttle: None, ..quirks };
        let state = State {
            fabric: Fabric::new(quirks),
            sessions: Sessions::new(Lifetimes { token: LONG, maximum: LONG }),
            front: Front::default(),
            users: Vec::new(),
            domains: Vec::new(),
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
        Desk { door: Door { cluster: Arc::new(Cluster::new(state)) } }
    }

    /// Logs in and opens the websocket.
    pub fn sit_down(&self, user: &str) -> Seat {
        let (sender, events) = channel();
        let token = self.door.cluster.change(|state| {
            let now = state.now();
            let (session, token) = state.sessions.login(0, user, "15374", &state.fabric.quirks, now);
            state.sessions.open(session, 0, sender);
            token
        });
        Seat { door: self.door.clone(), token, events }
    }
}

impl Seat {
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
        let reply = self.door.cluster.change(|state| {
            let now = state.now();
            let refusal = state.front.admit(0, false, &state.fabric.quirks, now);
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
