//! One request, one answer: paths, sessions, and which part of the simulator it is for.
//!
//! Left out: XML (`.xml` gets a 404), and whatever is not below `/api/`.

use serde_json::json;

use super::cluster::State;
use super::error::ApiError;
use super::fabric::Author;
use super::query::{self, Query, Scope};
use super::session::Caller;
use super::variants::{PostAnswer, Variants};
use super::{answers, dn, json, signed};
use crate::net::Request;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// A token for `Set-Cookie`.
    pub cookie: Option<String>,
    /// Whether the header says `Retry-After: 1`.
    pub retry_after: bool,
    /// The body.
    pub body: String,
}

impl Reply {
    fn json(body: String) -> Reply {
        Reply { status: 200, kind: "application/json", cookie: None, retry_after: false, body }
    }

    /// A refusal of the APIC's program.
    pub fn error(error: &ApiError, variants: &Variants) -> Reply {
        Reply { status: error.status, ..Reply::json(json::error(error, variants)) }
    }

    /// A refusal of the web server in front of it.
    pub fn html(status: u16) -> Reply {
        Reply { kind: "text/html", status, ..Reply::json(json::html(status)) }
    }
}

/// Answers a request; returns the login name with it.
pub(super) fn answer(state: &mut State, controller: usize, request: &Request) -> (String, Reply) {
    let variants = &state.fabric.variants;
    let line = request.method.len() + request.target.len() + " HTTP/1.1".len() + 1;
    if line > variants.request_line {
        return (String::new(), Reply::html(414));
    }
    if request.body.len() > variants.body_limit {
        return (String::new(), Reply::html(413));
    }
    let mut user = String::new();
    let reply = route(state, controller, request, &mut user);
    let reply = reply.unwrap_or_else(|error| Reply::error(&error, &state.fabric.variants));
    (user, reply)
}

fn route(state: &mut State, controller: usize, request: &Request, user: &mut String) -> Result<Reply, ApiError> {
    let Some(path) = request.path.strip_prefix("/api/").and_then(|it| it.strip_suffix(".json")) else {
        return Ok(Reply::html(404));
    };
    let method = request.method.as_str();
    match (method, path) {
        ("POST", "aaaLogin") => return login(state, controller, request, user),
        ("GET", "aaaListDomains") => {
            let domains: Vec<_> = state.domains.iter().map(|it| json!({"name": it, "type": "OTHER"})).collect();
            return Ok(Reply::json(json!({"imdata": domains}).to_string()));
        }
        _ => {}
    }
    let now = state.now();
    let cookies: Vec<&str> = request.headers.iter().filter(|it| it.0 == "cookie").map(|it| it.1.as_str()).collect();
    let signer = state.certificates.signer(request, &state.fabric.variants, state.ahead)?;
    let signed = signer.map(|it| state.sessions.signed_caller(controller, it, &state.fabric.variants, now));
    let by_token = || state.sessions.caller(controller, &cookies, &state.fabric.variants, now);
    let caller = match signed.map_or_else(by_token, Ok) {
        Err(error) if error.is_about_token() && state.fabric.variants.html_forbidden => return Ok(Reply::html(403)),
        other => other?,
    };
    user.clone_from(&caller.user);
    if state.sessions.challenge_of(caller.session).is_some_and(|it| request.header("apic-challenge") != Some(it)) {
        return Err(ApiError::challenge());
    }
    let empty = |state: &State| Ok(Reply::json(json::envelope(0, "", None, &state.fabric.variants)));
    let path = dn::tidy(path);
    let path = path.strip_prefix("node/").unwrap_or(&path);
    match (method, path.split_once('/').unwrap_or((path, ""))) {
        ("GET" | "POST", ("aaaRefresh", "")) => {
            let token = state.sessions.refresh(caller.session, &state.fabric.variants, now)?;
            Ok(welcome(state, controller, caller.session, &caller.user, token))
        }
        ("GET", ("webtokenSession", "")) => {
            let token = state.sessions.webtoken(controller, &caller, &state.fabric.variants, now);
            let body = json!({"webtokenSession": {"attributes": {"token": token}}}).to_string();
            Ok(Reply::json(json::envelope(1, &body, None, &state.fabric.variants)))
        }
        ("POST", ("aaaLogout", "")) => {
            state.sessions.logout(caller.session);
            empty(state)
        }
        ("GET", ("subscriptionRefresh", "")) => {
            let id = request.parameter("id").unwrap_or_default();
            state.sessions.refresh_subscription(&caller, id, &state.fabric.variants, now)?;
            empty(state)
        }
        ("GET", ("mo", dn)) => {
            let scope = Scope::Object(readable(state, dn)?);
            read(state, controller, &caller, request, scope)
        }
        ("GET", ("class", "firmwareCtrlrRunning")) => {
            let attributes = json!({"dn": "topology/pod-1/node-1/sys/ctrlrfwstatuscont/ctrlrrunning",
                "version": state.fabric.variants.version, "type": "controller"});
            let body = json!({"firmwareCtrlrRunning": {"attributes": attributes}}).to_string();
            Ok(Reply::json(json::envelope(1, &body, None, &state.fabric.variants)))
        }
        ("GET", ("class", rest)) => {
            let below = dn::split(rest).filter(|it| !it.0.is_empty());
            let class = below.map_or(rest, |it| it.1).to_owned();
            let below = below.map(|it| readable(state, it.0)).transpose()?;
            read(state, controller, &caller, request, Scope::Class { class, below })
        }
        ("POST", ("mo", dn)) => post(state, &caller, request, dn),
        ("DELETE", ("mo", dn)) => {
            refuse_if_told(state, dn, "")?;
            let author = Author { user: &caller.user, uid: &caller.uid };
            let changes = state.fabric.delete(now, author, dn)?;
            state.announce(&changes);
            let variants = &state.fabric.variants;
            let objects = match request.parameter("rsp-subtree") {
                Some("modified") => answers::deleted(&changes, variants),
                _ => Vec::new(),
            };
            Ok(Reply::json(json::envelope(objects.len(), &objects.join(","), None, variants)))
        }
        _ => Ok(Reply::html(404)),
    }
}

fn login(state: &mut State, controller: usize, request: &Request, user: &mut String) -> Result<Reply, ApiError> {
    let now = state.now();
    if !state.sessions.login_allowed(controller, &state.fabric.variants, now) {
        return Ok(Reply::html(503));
    }
    let body: serde_json::Value = serde_json::from_slice(&request.body).map_err(|_| ApiError::incomplete(1))?;
    let attributes = &body["aaaUser"]["attributes"];
    let text = |name: &str| attributes[name].as_str().unwrap_or_default();
    let (name, password) = (text("name"), text("pwd"));
    *user = name.to_owned();
    // `apic:DOMAIN\user` and `apic#DOMAIN\user` name a login domain.
    let (domain, plain) = match name.strip_prefix("apic:").or(name.strip_prefix("apic#")) {
        Some(rest) => rest.split_once('\\').unwrap_or(("", rest)),
        None => ("", name),
    };
    let domain_known = domain.is_empty() || state.domains.iter().any(|it| it == domain);
    let position = state.users.iter().position(|it| it.name == plain && it.password == password);
    let Some(position) = position.filter(|_| domain_known) else {
        let text = "Username or password is incorrect - FAILED local authentication";
        return Err(ApiError::new(401, 401, text));
    };
    let uid = (15_374 + position).to_string();
    let (session, token) = state.sessions.login(controller, name, &uid, &state.fabric.variants, now);
    if request.parameter("gui-token-request") == Some("yes") {
        state.sessions.challenge(session);
    }
    Ok(welcome(state, controller, session, name, token))
}

/// The answer to aaaLogin and aaaRefresh.
fn welcome(state: &State, controller: usize, session: u64, user: &str, token: String) -> Reply {
    let seconds = |it: std::time::Duration| it.as_secs().to_string();
    let lifetimes = state.sessions.lifetimes;
    let mut attributes = json!({
        "token": token,
        "siteFingerprint": "9GkLTxJ2bMkXlhVk",
        "refreshTimeoutSeconds": seconds(lifetimes.token),
        "maximumLifetimeSeconds": seconds(lifetimes.maximum),
        "guiIdleTimeoutSeconds": "1200",
        "restTimeoutSeconds": "90",
        "creationTime": "1764000000",
        "firstLoginTime": "1764000000",
        "userName": user,
        "remoteUser": "false",
        "unixUserId": "15374",
        "sessionId": "OlhcyLnpQOmnXVk1kWu8oA==",
        "lastName": "",
        "firstName": "",
        "changePassword": if state.fabric.variants.change_password { "yes" } else { "no" },
        "version": state.fabric.variants.version,
        "buildTime": "Wed Apr 02 20:32:27 UTC 2025",
        "node": format!("topology/pod-1/node-{}", controller + 1),
    });
    if let Some(challenge) = state.sessions.challenge_of(session) {
        attributes["urlToken"] = json!(challenge);
    }
    let domain = json!({"aaaUserDomain": {"attributes": {"name": "all", "rolesR": "admin", "rolesW": "admin"}}});
    let mut children = vec![domain];
    if let Some(privileges) = state.fabric.variants.write_privileges {
        let tenants = state.fabric.tree.of_class("fvTenant").filter(|it| state.fabric.variants.shows(it.0));
        for (dn, _) in tenants {
            let entry = json!({"dn": dn, "readPrivileges": "admin", "writePrivileges": privileges});
            children.push(json!({"DnDomainMapEntry": {"attributes": entry}}));
        }
    }
    let body = json!({"aaaLogin": {"attributes": attributes, "children": children}});
    let body = json::envelope(1, &body.to_string(), None, &state.fabric.variants);
    Reply { cookie: Some(token), ..Reply::json(body) }
}

/// A DN that is asked for: in its one spelling where there can be objects here, as it is written elsewhere.
fn readable(state: &State, dn: &str) -> Result<String, ApiError> {
    if dn::is_unsimulated(dn) { Ok(dn.to_owned()) } else { dn::place(dn, &state.fabric.variants).map(|it| it.dn) }
}

fn read(
    state: &mut State,
    controller: usize,
    caller: &Caller,
    request: &Request,
    scope: Scope,
) -> Result<Reply, ApiError> {
    let now = state.now();
    let fabric = &state.fabric;
    let query = Query::new(scope, &request.query, &fabric.variants)?;
    let is_refused = |it: &String| request.target.contains(it) || request.path.contains(it);
    let refused = fabric.variants.subscriptions_refused || state.refused_subscriptions.iter().any(is_refused);
    if query.subscription == Some(true) && refused {
        return Err(ApiError::bad(400, "Subscription request failed, the query cannot be subscribed to"));
    }
    let mut id = None;
    match query.subscription {
        Some(true) => id = Some(state.sessions.subscribe(caller, &request.target, &query, fabric, now)?),
        Some(false) => state.sessions.unsubscribe(caller, &query),
        None => {}
    }
    let (total, objects) = match id {
        Some(_) if caller.doubled => (0, String::new()),
        _ => query.run(state.lagging.get(&controller).unwrap_or(&fabric.tree), &fabric.variants)?,
    };
    Ok(Reply::json(json::envelope(total, &objects, id, &fabric.variants)))
}

fn post(state: &mut State, caller: &Caller, request: &Request, dn: &str) -> Result<Reply, ApiError> {
    refuse_if_told(state, dn, &String::from_utf8_lossy(&request.body))?;
    if let Some(certificate) = signed::posted(dn, &request.body) {
        state.certificates.0.insert(dn.to_owned(), certificate);
        return Ok(Reply::json(json::envelope(0, "", None, &state.fabric.variants)));
    }
    let now = state.now();
    let author = Author { user: &caller.user, uid: &caller.uid };
    let (root, changes) = state.fabric.post(now, author, dn, &request.body)?;
    state.announce(&changes);
    let fabric = &state.fabric;
    let variants = &fabric.variants;
    let objects = match (request.parameter("rsp-subtree"), variants.post_answer) {
        (Some("modified"), _) => answers::written(&fabric.tree, &root.dn, &changes, variants),
        (Some("full"), PostAnswer::Flat) => answers::flat(&changes),
        (Some("full"), PostAnswer::Nested) => query::whole(&fabric.tree, &root.dn, variants).into_iter().collect(),
        _ => Vec::new(),
    };
    Ok(Reply::json(json::envelope(objects.len(), &objects.join(","), None, &fabric.variants)))
}

fn refuse_if_told(state: &mut State, dn: &str, body: &str) -> Result<(), ApiError> {
    let fits = |text: &str| dn.contains(text) || body.contains(text);
    let Some(at) = state.rejections.iter().position(|it| fits(&it.containing)) else { return Ok(()) };
    let error = state.rejections[at].error.clone();
    if let Some(times) = &mut state.rejections[at].times {
        *times -= 1;
        if *times == 0 {
            state.rejections.remove(at);
        }
    }
    Err(error)
}
