//! Sessions, their tokens, their websockets and subscriptions. Each controller has its own; events go to all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::dn;
use super::error::ApiError;
use super::fabric::Fabric;
use super::json;
use super::query::{Query, Scope};
use super::signed::Signer;
use super::tree::Change;
use super::variants::{Order, TokenStyle, Variants};

/// What a websocket's thread has to send.
#[derive(Debug)]
pub enum Outgoing {
    /// A message.
    Text(String),
    /// Bytes as they are, whatever the protocol says of them.
    Bytes(Vec<u8>),
    /// A close frame, and the end.
    Close,
}

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// `refreshTimeoutSeconds`: a token's life.
    pub token: Duration,
    /// `maximumLifetimeSeconds`: how long a session can be refreshed.
    pub maximum: Duration,
}

#[derive(Debug)]
struct Session {
    controller: usize,
    user: String,
    uid: String,
    begun: Duration,
    /// The `urlToken` that requests and the websocket must name, if the login asked for one.
    challenge: Option<String>,
    /// Tokens and when they end.
    tokens: Vec<(String, Duration)>,
    /// A `webtokenSession`.
    is_signed: bool,
    ends_with_socket: bool,
}

impl Session {
    fn new(controller: usize, user: String, uid: String, begun: Duration, tokens: Vec<(String, Duration)>) -> Session {
        Session { controller, user, uid, begun, challenge: None, tokens, is_signed: false, ends_with_socket: false }
    }
}

#[derive(Debug)]
struct Socket {
    session: u64,
    controller: usize,
    outgoing: Sender<Outgoing>,
}

#[derive(Debug)]
struct Subscription {
    session: u64,
    socket: u64,
    /// The request target that it came from, for people.
    target: String,
    query: Query,
    life: Duration,
    ends: Duration,
    /// Accepted, and never served.
    silent: bool,
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The session.
    pub session: u64,
    /// The login name.
    pub user: String,
    /// The user's number.
    pub uid: String,
    /// The cookie came twice: subscriptions stay silent.
    pub doubled: bool,
}

/// All sessions of all controllers.
#[derive(Debug)]
pub struct Sessions {
    /// How long they last.
    pub lifetimes: Lifetimes,
    sessions: BTreeMap<u64, Session>,
    sockets: BTreeMap<u64, Socket>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// Logins that a controller still takes, and when that was counted.
    allowance: BTreeMap<usize, (f64, Duration)>,
    logins: usize,
    next: u64,
}

/// How the ids of subscriptions begin: 17 digits.
const FIRST_SUBSCRIPTION: u64 = 72_059_075_820_650_497;
/// Longer than any test.
const ENDLESS: Duration = Duration::from_secs(1_000_000_000);
/// Logins that are taken at once before the throttle counts.
const LOGIN_BURST: f64 = 8.0;

impl Sessions {
    /// None yet.
    pub fn new(lifetimes: Lifetimes) -> Sessions {
        Sessions {
            lifetimes,
            sessions: BTreeMap::new(),
            sockets: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            allowance: BTreeMap::new(),
            logins: 0,
            next: 0,
        }
    }

    /// Whether the throttle lets a login through.
    pub fn login_allowed(&mut self, controller: usize, variants: &Variants, now: Duration) -> bool {
        let Some(rate) = variants.login_throttle else { return true };
        let (left, at) = self.allowance.entry(controller).or_insert((LOGIN_BURST, now));
        *left = (*left + now.saturating_sub(*at).as_secs_f64() * f64::from(rate)).min(LOGIN_BURST);
        *at = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }

    /// A new session; returns its number and token.
    pub fn login(
        &mut self,
        controller: usize,
        user: &str,
        uid: &str,
        variants: &Variants,
        now: Duration,
    ) -> (u64, String) {
        self.next += 1;
        self.logins += 1;
        let token = new_token(variants.token_style);
        let tokens = vec![(token.clone(), now + self.lifetimes.token.min(self.lifetimes.maximum))];
        let (user, uid) = (user.to_owned(), uid.to_owned());
        self.sessions.insert(self.next, Session::new(controller, user, uid, now, tokens));
        (self.next, token)
    }

    /// The token of a new `webtokenSession`.
    pub fn webtoken(&mut self, controller: usize, caller: &Caller, variants: &Variants, now: Duration) -> String {
        self.next += 1;
        let token = new_token(variants.token_style);
        let life = if variants.webtoken_expires { self.lifetimes.token } else { ENDLESS };
        let tokens = vec![(token.clone(), now + life)];
        let (user, uid) = (caller.user.clone(), caller.uid.clone());
        let ends_with_socket = variants.webtoken_ends_with_socket;
        let session = Session::new(controller, user, uid, now, tokens);
        self.sessions.insert(self.next, Session { is_signed: true, ends_with_socket, ..session });
        token
    }

    /// Whether a session is a `webtokenSession`.
    pub fn is_signed(&self, session: u64) -> bool {
        self.sessions.get(&session).is_some_and(|it| it.is_signed)
    }

    /// Whose request a signed one is. Without a session it cannot subscribe.
    pub fn signed_caller(&self, controller: usize, signer: Signer, variants: &Variants, now: Duration) -> Caller {
        let named = signer.websocket.as_deref().and_then(|token| self.with_token(controller, token, now));
        let latest = || {
            let sockets = self.sockets.values().rev().filter(|it| it.controller == controller);
            sockets.map(|it| it.session).find(|it| self.sessions.get(it).is_some_and(|it| it.user == signer.user))
        };
        let session = if variants.signed_subscriptions_name_socket { named.map(|it| it.0) } else { latest() };
        Caller { session: session.unwrap_or(0), user: signer.user.clone(), uid: "15373".to_owned(), doubled: false }
    }

    /// Gives a session a `urlToken`.
    pub fn challenge(&mut self, session: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.challenge = Some(new_token(TokenStyle::Jwt).replace('.', ""));
        }
    }

    /// The `urlToken` of a session.
    pub fn challenge_of(&self, session: u64) -> Option<&str> {
        self.sessions.get(&session)?.challenge.as_deref()
    }

    /// How many logins there were so far.
    pub fn logins(&self) -> usize {
        self.logins
    }

    /// A new token for a session; nothing once its maximum life is over.
    pub fn refresh(&mut self, session: u64, variants: &Variants, now: Duration) -> Result<String, ApiError> {
        let refused = || ApiError::token(variants.expired_status);
        let Lifetimes { token: life, maximum } = self.lifetimes;
        let session = self.sessions.get_mut(&session).filter(|it| now < it.begun + maximum).ok_or_else(refused)?;
        let token = new_token(variants.token_style);
        if !variants.old_token_lives {
            session.tokens.clear();
        }
        session.tokens.push((token.clone(), (now + life).min(session.begun + maximum)));
        Ok(token)
    }

    /// Ends a session, its websockets with it.
    pub fn logout(&mut self, session: u64) {
        self.sessions.remove(&session);
        let sockets: Vec<u64> =
            self.sockets.iter().filter(|(_, it)| it.session == session).map(|(id, _)| *id).collect();
        sockets.into_iter().for_each(|id| self.close(id));
    }

    /// Whose token these cookies hold.
    pub fn caller(
        &self,
        controller: usize,
        cookies: &[&str],
        variants: &Variants,
        now: Duration,
    ) -> Result<Caller, ApiError> {
        let pairs = cookies.iter().flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
        let tokens: Vec<&str> =
            pairs.filter(|(name, _)| name.eq_ignore_ascii_case("APIC-cookie")).map(|(_, value)| value).collect();
        let token = tokens.first().ok_or_else(ApiError::no_cookie)?;
        let (session, it) =
            self.with_token(controller, token, now).ok_or_else(|| ApiError::token(variants.expired_status))?;
        Ok(Caller { session, user: it.user.clone(), uid: it.uid.clone(), doubled: tokens.len() > 1 })
    }

    /// The session of the token in a websocket's path. If it has a `urlToken`, that must be the path's query.
    pub fn of_token(&self, controller: usize, token: &str, challenge: &str, now: Duration) -> Option<u64> {
        let (id, session) = self.with_token(controller, token, now)?;
        session.challenge.as_ref().is_none_or(|it| it == challenge).then_some(id)
    }

    fn with_token(&self, controller: usize, token: &str, now: Duration) -> Option<(u64, &Session)> {
        let has = |it: &Session| it.tokens.iter().any(|(text, ends)| text == token && now < *ends);
        let found = self.sessions.iter().find(|(_, it)| it.controller == controller && has(it));
        found.map(|(id, session)| (*id, session))
    }

    /// A websocket was opened.
    pub fn open(&mut self, session: u64, controller: usize, outgoing: Sender<Outgoing>) -> u64 {
        self.next += 1;
        self.sockets.insert(self.next, Socket { session, controller, outgoing });
        self.next
    }

    /// A websocket ends, and its subscriptions with it.
    pub fn close(&mut self, socket: u64) {
        if let Some(socket) = self.sockets.remove(&socket) {
            let _ = socket.outgoing.send(Outgoing::Close);
            if self.sessions.get(&socket.session).is_some_and(|it| it.ends_with_socket) {
                self.sessions.remove(&socket.session);
            }
        }
        self.subscriptions.retain(|_, it| it.socket != socket);
    }

    /// Sends bytes on all websockets.
    pub fn send_bytes(&self, bytes: &[u8]) {
        for socket in self.sockets.values() {
            let _ = socket.outgoing.send(Outgoing::Bytes(bytes.to_vec()));
        }
    }

    /// The ids of all subscriptions.
    pub fn subscription_ids(&self) -> Vec<String> {
        self.subscriptions.keys().map(u64::to_string).collect()
    }

    /// Ends all websockets; the sessions stay.
    pub fn close_all(&mut self) {
        let sockets: Vec<u64> = self.sockets.keys().copied().collect();
        sockets.into_iter().for_each(|id| self.close(id));
    }

    /// A controller forgets all that it knew.
    pub fn forget_controller(&mut self, controller: usize) {
        let ids = self.sessions.iter().filter(|(_, it)| it.controller == controller).map(|(id, _)| *id);
        ids.collect::<Vec<_>>().into_iter().for_each(|id| self.logout(id));
        let sockets = self.sockets.iter().filter(|(_, it)| it.controller == controller).map(|(id, _)| *id);
        sockets.collect::<Vec<_>>().into_iter().for_each(|id| self.close(id));
    }

    /// Whether this session can subscribe: it needs an open websocket, the latest counts.
    fn socket_of(&self, session: u64) -> Result<u64, ApiError> {
        let socket = self.sockets.iter().rev().find(|(_, it)| it.session == session);
        socket.map(|it| *it.0).ok_or_else(|| {
            let text =
                "Subscription request failed, unable to locate opened web socket. Please re-login to the application";
            ApiError::new(405, 405, text)
        })
    }

    /// A new subscription; returns its id.
    pub fn subscribe(
        &mut self,
        caller: &Caller,
        target: &str,
        query: &Query,
        fabric: &Fabric,
        now: Duration,
    ) -> Result<u64, ApiError> {
        let socket = self.socket_of(caller.session)?;
        let variants = &fabric.variants;
        let missing = matches!(&query.scope, Scope::Object(dn) if fabric.tree.get(dn).is_none());
        let silent = caller.doubled || (missing && !variants.missing_dn_announced);
        let life = query.refresh_timeout.map_or(variants.subscription_lifetime, Duration::from_secs);
        self.next += 1;
        let id = FIRST_SUBSCRIPTION + self.next;
        let (session, target, query) = (caller.session, target.to_owned(), query.clone());
        self.subscriptions.insert(id, Subscription { session, socket, target, query, life, ends: now + life, silent });
        Ok(id)
    }

    /// `subscription=no`: the same query is not served any more.
    pub fn unsubscribe(&mut self, caller: &Caller, query: &Query) {
        self.subscriptions.retain(|_, it| it.session != caller.session || it.query.scope != query.scope);
    }

    /// Prolongs a subscription. Of the id only the digits at its beginning count.
    pub fn refresh_subscription(
        &mut self,
        caller: &Caller,
        id: &str,
        variants: &Variants,
        now: Duration,
    ) -> Result<(), ApiError> {
        let digits = id.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let id: u64 = digits.parse().unwrap_or_default();
        let live = |it: &&mut Subscription| it.session == caller.session && now < it.ends;
        let subscription = self.subscriptions.get_mut(&id).filter(live);
        match subscription {
            Some(subscription) => subscription.ends = now + subscription.life,
            None if variants.dead_ids_refreshed => {}
            None => return Err(ApiError::bad(400, "Subscription refresh timeout")),
        }
        Ok(())
    }

    /// Ends what is over. A session without tokens is gone; whether its websocket goes too is not established.
    pub fn expire(&mut self, variants: &Variants, now: Duration) {
        for session in self.sessions.values_mut() {
            session.tokens.retain(|(_, ends)| now < *ends);
        }
        let over: Vec<u64> = self.sessions.iter().filter(|(_, it)| it.tokens.is_empty()).map(|(id, _)| *id).collect();
        for id in over {
            if variants.socket_ends_with_token {
                self.logout(id);
            } else {
                self.sessions.remove(&id);
            }
        }
        if variants.lapsed_are_silent {
            self.subscriptions.retain(|_, it| now < it.ends);
        }
    }

    /// When something here will next be over; what is over already may stay, and is no reason to wake up.
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        let tokens = self.sessions.values().flat_map(|it| it.tokens.iter().map(|(_, ends)| *ends));
        tokens.chain(self.subscriptions.values().map(|it| it.ends)).filter(|it| *it > now).min()
    }

    /// All tokens end now.
    pub fn end_tokens(&mut self, variants: &Variants, now: Duration) {
        for session in self.sessions.values_mut() {
            session.tokens.clear();
        }
        self.expire(variants, now);
    }

    /// All subscriptions end now, without a message.
    pub fn end_subscriptions(&mut self) {
        self.subscriptions.clear();
    }

    /// The request targets that are subscribed now.
    pub fn subscribed(&self, now: Duration) -> Vec<String> {
        self.subscriptions.values().filter(|it| now < it.ends).map(|it| it.target.clone()).collect()
    }

    /// How many sessions and websockets there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.sockets.len())
    }

    /// Notifies the subscriptions of what changed: one message an object and websocket.
    pub fn announce(&self, changes: &[Change], fabric: &Fabric, now: Duration) {
        for change in ordered(changes, &fabric.variants) {
            let (dn, mo) = (change.dn(), change.mo());
            let is_tag = matches!(mo.class.name, "tagAnnotation" | "tagTag");
            if (is_tag && !fabric.variants.tag_events) || is_unsettled(change, fabric, now) {
                continue;
            }
            let serves = |it: &Subscription| (now < it.ends || !fabric.variants.lapsed_are_silent) && !it.silent;
            let mut ids: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (id, it) in self.subscriptions.iter().filter(|(_, it)| serves(it) && it.query.watches(dn, mo)) {
                ids.entry(it.socket).or_default().push(*id);
            }
            let mod_ts = change.mod_ts(&fabric.variants);
            let object = if ids.is_empty() { String::new() } else { json::event_object(change, mod_ts) };
            for (socket, ids) in ids {
                if let Some(socket) = self.sockets.get(&socket) {
                    let _ = socket.outgoing.send(Outgoing::Text(json::event(&ids, &object)));
                }
            }
        }
    }
}

/// The changes in the order in which they are sent; those that are not sent are left out.
fn ordered<'a>(changes: &'a [Change], variants: &Variants) -> Vec<&'a Change> {
    if variants.created_order == Order::ParentsFirst && variants.deleted_order == Order::ParentsFirst {
        return changes.iter().collect();
    }
    let (deleted, others): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|it| matches!(it, Change::Deleted { .. }));
    let arrange = |mut list: Vec<&'a Change>, order: Order| {
        match order {
            Order::ParentsFirst => {}
            Order::ChildrenFirst => list.reverse(),
            Order::ParentsOnly => {
                let dns: BTreeSet<String> = list.iter().map(|it| it.dn().to_owned()).collect();
                list.retain(|it| !dns.contains(&it.mo().parent));
            }
        }
        list
    };
    let mut all = arrange(deleted, variants.deleted_order);
    all.extend(arrange(others, variants.created_order));
    all
}

/// Whether something above the object is so new that what happens below it has no events yet.
fn is_unsettled(change: &Change, fabric: &Fabric, now: Duration) -> bool {
    let settle = fabric.variants.settle;
    let mo = change.mo();
    let same_request =
        |it: &super::tree::Mo| it.transaction == mo.transaction && matches!(change, Change::Created { .. });
    let young = |dn: &str| fabric.tree.get(dn).is_some_and(|it| now < it.born + settle && !same_request(it));
    !settle.is_zero() && std::iter::successors(Some(mo.parent.as_str()), |dn| dn::split(dn).map(|it| it.0)).any(young)
}

fn new_token(style: TokenStyle) -> String {
    let mut bytes = [0; 46];
    openssl::rand::rand_bytes(&mut bytes).unwrap();
    let text = openssl::base64::encode_block(&bytes);
    match style {
        // Whatever chance made of it, the characters that clients get wrong are in it.
        TokenStyle::Base64 => format!("a/+{text}"),
        TokenStyle::Jwt => {
            let part = |from: usize| text[from..from + 20].replace(['+', '/', '='], "_");
            format!("eyJ{}.{}.{}", part(0), part(20), part(40))
        }
    }
}
