//! The HTTP side: paths, verbs, rights, pages, watch streams, and errors in the recorded shapes.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::store::{Change, RESOURCES, Refusal, now, resource};
use super::{Entry, Shared, controllers, events};
use crate::net::{Connection, Request, Service};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The user of a request without a credential; by default real servers accept it, without any permission.
const ANONYMOUS: &str = "system:anonymous";

/// A refused request: code, reason, message, and what else a `Status` carries.
struct Refused {
    code: u16,
    reason: &'static str,
    message: String,
    details: Value,
    metadata: Value,
}

impl Refused {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, reason, message: message.into(), details: Value::Null, metadata: json!({}) }
    }

    fn status(&self) -> Value {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure",
            "message": self.message});
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

/// What a path names.
struct Target<'a> {
    resource: &'static str,
    api: &'static str,
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl Target<'_> {
    fn group(&self) -> &str {
        self.api.split_once('/').map_or("", |it| it.0)
    }

    /// The resource with its group.
    fn full(&self) -> String {
        let group = self.group();
        if group.is_empty() { self.resource.to_owned() } else { format!("{}.{group}", self.resource) }
    }

    /// What a `Status` says of it.
    fn details(&self, name: &str) -> Value {
        let mut details = json!({"name": name, "kind": self.resource});
        if !self.group().is_empty() {
            details["group"] = self.group().into();
        }
        details
    }
}

impl Service for Shared {
    fn handle(&self, request: Request, connection: &mut Connection) -> io::Result<()> {
        let user = self.user(&request);
        self.journal.lock().unwrap().push(Entry {
            at: request.read_at,
            method: request.method.clone(),
            target: request.target.clone(),
            user: user.clone().unwrap_or_default(),
        });
        let answer = user.ok_or_else(|| Refused::new(401, "Unauthorized", "Unauthorized"));
        let answer = answer.and_then(|user| self.answer(&request, &user, connection));
        match answer {
            Ok(Some((code, value))) => respond(connection, code, &value),
            Ok(None) => Ok(()),
            Err(refused) if refused.code == 404 && refused.reason.is_empty() => {
                connection.respond(404, &[("Content-Type", "text/plain; charset=utf-8")], b"404 page not found\n")
            }
            Err(refused) if refused.code == 0 => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(refused) => respond(connection, refused.code, &refused.status()),
        }
    }
}

fn respond(connection: &mut Connection, code: u16, value: &Value) -> io::Result<()> {
    let mut body = serde_json::to_vec(value)?;
    body.push(b'\n');
    respond_bytes(connection, code, &body)
}

fn respond_bytes(connection: &mut Connection, code: u16, body: &[u8]) -> io::Result<()> {
    // Small bodies have a length, all others come in chunks whose borders lie anywhere.
    if body.len() < 2048 {
        return connection.respond(code, &[JSON], body);
    }
    connection.start_chunked(code, &[JSON])?;
    let (first, rest) = body.split_at(2048);
    connection.chunk(first)?;
    for piece in rest.chunks(32 * 1024) {
        connection.chunk(piece)?;
    }
    connection.end()
}

impl Shared {
    fn user(&self, request: &Request) -> Option<String> {
        if let Some(token) = request.header("authorization").and_then(|it| it.strip_prefix("Bearer ")) {
            return self.tokens.lock().unwrap().contains(token).then(|| "system:serviceaccount:sim".to_owned());
        }
        // A request without a credential is anonymous; one with a wrong credential is refused.
        let Some(client) = &request.client else { return Some(ANONYMOUS.to_owned()) };
        let is_known = client.issuer == "sim-kubernetes-ca" && !self.refused.lock().unwrap().contains(&client.user);
        is_known.then(|| client.user.clone())
    }

    fn answer(
        &self,
        request: &Request,
        user: &str,
        connection: &mut Connection,
    ) -> Result<Option<(u16, Value)>, Refused> {
        let nowhere = || Refused::new(404, "", "");
        let path = request.path.strip_prefix(&self.options.prefix).ok_or_else(nowhere)?;
        match path {
            "/readyz" => {
                return connection.respond(200, &[("Content-Type", "text/plain")], b"ok").map(|()| None).map_err(cut);
            }
            "/version" => return Ok(Some((200, json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0-sim"})))),
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" if request.method == "POST" => {
                return self.review(request, user).map(Some);
            }
            _ => {}
        }
        let target = target_of(path).ok_or_else(|| if is_served(path) { no_resource() } else { nowhere() })?;
        let watch = matches!(request.parameter("watch"), Some("true" | "1"));
        let verb = match (request.method.as_str(), target.name.is_empty()) {
            ("GET", true) if watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", true) => "create",
            ("PUT", false) => "update",
            ("PATCH", false) => "patch",
            ("DELETE", false) => "delete",
            _ => {
                return Err(Refused::new(
                    405,
                    "MethodNotAllowed",
                    "the server does not allow this method on the requested resource",
                ));
            }
        };
        self.check_right(user, verb, &target)?;
        match verb {
            "list" => {
                let body = self.list(request, &target)?;
                respond_bytes(connection, 200, &body).map(|()| None).map_err(cut)
            }
            "watch" => self.watch(request, &target, connection).map(|()| None),
            "get" => {
                let object = self.store.get(target.resource, target.namespace, target.name);
                object.map(|it| Some((200, it))).ok_or_else(|| not_found(&target))
            }
            _ => {
                let answer = self.write(verb, request, &target);
                if self.options.controllers {
                    controllers::settle(&self.store);
                }
                answer.map(Some)
            }
        }
    }

    /// SelfSubjectAccessReview: every authenticated user may ask, and nothing is stored.
    fn review(&self, request: &Request, user: &str) -> Result<(u16, Value), Refused> {
        let bad = |_| Refused::new(400, "BadRequest", "the object provided is unrecognized");
        let mut review: Value = serde_json::from_slice(&request.body).map_err(bad)?;
        let text = |name: &str| review["spec"]["resourceAttributes"][name].as_str().unwrap_or_default().to_owned();
        let is_denied = self.denied.lock().unwrap().contains(&(text("verb"), text("resource")));
        review["status"] = json!({"allowed": user != ANONYMOUS && !is_denied});
        Ok((201, review))
    }

    fn check_right(&self, user: &str, verb: &str, target: &Target<'_>) -> Result<(), Refused> {
        let is_denied = self.denied.lock().unwrap().contains(&(verb.to_owned(), target.resource.to_owned()));
        if user != ANONYMOUS && !is_denied {
            return Ok(());
        }
        let group = target.group();
        let (name, space) = match (target.name, target.namespace) {
            ("", "") => (String::new(), "at the cluster scope".to_owned()),
            ("", space) => (String::new(), format!("in the namespace \"{space}\"")),
            (name, "") => (format!(" \"{name}\""), "at the cluster scope".to_owned()),
            (name, space) => (format!(" \"{name}\""), format!("in the namespace \"{space}\"")),
        };
        let message = format!(
            "{}{name} is forbidden: User \"{user}\" cannot {verb} resource \"{}\" in API group \"{group}\" {space}",
            target.full(),
            target.resource
        );
        let mut details = json!({"kind": target.resource});
        if !group.is_empty() {
            details["group"] = group.into();
        }
        if !target.name.is_empty() {
            details["name"] = target.name.into();
        }
        Err(Refused { details, ..Refused::new(403, "Forbidden", message) })
    }

    fn list(&self, request: &Request, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
        if let Err(why) = version_of(request) {
            return Err(Refused::new(400, "BadRequest", format!("invalid resource version: {why}")));
        }
        let limit = request.parameter("limit").and_then(|it| it.parse().ok()).unwrap_or(0);
        let token = request.parameter("continue").filter(|it| !it.is_empty());
        let after =
            match token {
                Some(token) => Some(read_continue(token).ok_or_else(|| {
                    Refused::new(400, "BadRequest", "continue key is not valid: invalid continue token")
                })?),
                None => None,
            };
        let after = after.as_ref().map(|(version, start)| (*version, start.as_str()));
        let Some(page) = self.store.page(target.resource, target.namespace, limit, after) else {
            let message = "The provided continue parameter is too old to display a consistent list result.";
            let start = after.map_or("", |it| it.1);
            let metadata = json!({"continue": write_continue(-1, start)});
            return Err(Refused { metadata, ..Refused::new(410, "Expired", message) });
        };
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if let Some((start, remaining)) = page.rest {
            metadata["continue"] = write_continue(page.version as i64, &start).into();
            metadata["remainingItemCount"] = remaining.into();
        }
        let head = json!({"kind": format!("{}List", target.kind), "apiVersion": target.api, "metadata": metadata});
        let mut body = head.to_string().into_bytes();
        body.pop();
        body.extend(b",\"items\":[");
        let name = request.parameter("fieldSelector").and_then(|it| it.strip_prefix("metadata.name="));
        let items = page.items.iter().filter(|it| name.is_none_or(|name| it.name() == name));
        for (n, item) in items.enumerate() {
            if n > 0 {
                body.push(b',');
            }
            body.extend(item.item());
        }
        body.extend(b"]}\n");
        Ok(body)
    }

    fn watch(&self, request: &Request, target: &Target<'_>, connection: &mut Connection) -> Result<(), Refused> {
        let mut version = version_of(request).map_err(|why| Refused::new(500, "", why))?;
        let bookmarks = request.parameter("allowWatchBookmarks") == Some("true");
        let lifetime = request.parameter("timeoutSeconds").and_then(|it| it.parse().ok()).unwrap_or(1800);
        let begun = Instant::now();
        let end = begun + Duration::from_secs(lifetime);
        let mut bookmark_at = begun + Duration::from_secs(lifetime.saturating_sub(2).min(60));
        let mut sent = version;
        let mut present = Vec::new();
        if version == 0 {
            (version, present) = self.store.list(target.resource, target.namespace);
        }
        let too_old =
            Refused::new(410, "Expired", format!("too old resource version: {version} ({})", self.store.version()));
        let failing = self.failing.lock().unwrap().clone();
        let too_old = failing.map_or(too_old, |(code, message)| Refused::new(code, "", message));
        if self.options.gone_as_status && self.changes(target, version, Duration::ZERO).is_none() {
            return Err(too_old);
        }
        connection.start_chunked(200, &[JSON]).map_err(cut)?;
        for object in present {
            let event = json!({"type": "ADDED", "object": object});
            connection.chunk(format!("{event}\n").as_bytes()).map_err(cut)?;
        }
        while connection.is_live() {
            let now = Instant::now();
            if now >= end {
                return connection.end().map_err(cut);
            }
            let patience = (end - now).min(bookmark_at.saturating_duration_since(now)).min(Duration::from_millis(50));
            let Some((upto, changes)) = self.changes(target, version, patience) else {
                let event = json!({"type": "ERROR", "object": too_old.status()});
                connection.chunk(format!("{event}\n").as_bytes()).map_err(cut)?;
                return connection.end().map_err(cut);
            };
            version = upto;
            for change in changes {
                self.handed.lock().unwrap().note(change.version);
                connection.chunk(&change.line).map_err(cut)?;
                sent = change.version;
            }
            if bookmarks && Instant::now() >= bookmark_at {
                bookmark_at = Instant::now() + Duration::from_secs(60);
                if version > sent {
                    sent = version;
                    let object = json!({"kind": target.kind, "apiVersion": target.api,
                        "metadata": {"resourceVersion": version.to_string()}, "spec": {"containers": null}, "status": {}});
                    let event = json!({"type": "BOOKMARK", "object": object});
                    connection.chunk(format!("{event}\n").as_bytes()).map_err(cut)?;
                }
            }
        }
        Err(cut(io::ErrorKind::ConnectionAborted.into()))
    }

    fn changes(&self, target: &Target<'_>, after: u64, patience: Duration) -> Option<(u64, Vec<Change>)> {
        self.store.changes(target.resource, target.namespace, after, patience)
    }

    fn write(&self, verb: &str, request: &Request, target: &Target<'_>) -> Result<(u16, Value), Refused> {
        let object = || -> Result<Value, Refused> {
            let bad =
                |_| Refused::new(400, "BadRequest", "the object provided is unrecognized: couldn't get version/kind");
            let mut object: Value = serde_json::from_slice(&request.body).map_err(bad)?;
            if !object["metadata"].is_object() {
                object["metadata"] = json!({});
            }
            if !target.namespace.is_empty() {
                object["metadata"]["namespace"] = target.namespace.into();
            }
            if target.resource == "leases" {
                check_lease(&object, verb)?;
            }
            Ok(object)
        };
        let mut name = target.name.to_owned();
        let done = match verb {
            "create" => {
                let mut object = object()?;
                if target.resource == "events" {
                    self.check_event(&mut object)?;
                }
                if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
                    return Err(nameless(target));
                }
                name = object["metadata"]["name"].as_str().unwrap().to_owned();
                self.store.create(target.resource, object).map(|it| (201, it))
            }
            "update" => self.store.replace(target.resource, object()?).map(|it| (200, it)),
            "patch" => {
                let patch: Value = serde_json::from_slice(&request.body)
                    .map_err(|_| Refused::new(400, "BadRequest", "error decoding patch"))?;
                if request.header("content-type") == Some("application/json") {
                    let message = "the body of the request was in an unknown format - accepted media types include: \
                                   application/json-patch+json, application/merge-patch+json";
                    return Err(Refused::new(415, "UnsupportedMediaType", message));
                }
                if target.resource == "events" {
                    let before = self.store.get("events", target.namespace, target.name);
                    before.map_or(Ok(()), |it| events::patched(&it, &patch)).map_err(|it| invalid(target.name, &it))?;
                }
                self.store.patch(target.resource, target.namespace, target.name, &patch).map(|it| (200, it))
            }
            _ => return self.delete(request, target),
        };
        done.map_err(|refusal| match refusal {
            Refusal::Missing => not_found(target),
            Refusal::Exists => {
                let message = format!("{} \"{name}\" already exists", target.full());
                Refused { details: target.details(&name), ..Refused::new(409, "AlreadyExists", message) }
            }
            Refusal::Conflict => {
                let message = format!(
                    "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your \
                     changes to the latest version and try again",
                    target.full(),
                );
                Refused { details: target.details(&name), ..Refused::new(409, "Conflict", message) }
            }
        })
    }

    /// A new Event: its namespace must not be on its way out, and it must be whole. It gets what all have.
    fn check_event(&self, event: &mut Value) -> Result<(), Refused> {
        let text = |name: &str| event["metadata"][name].as_str().unwrap_or_default().to_owned();
        let (name, namespace) = (text("name"), text("namespace"));
        let phase = self.store.get("namespaces", "", &namespace).map(|it| it["status"]["phase"].clone());
        if phase.is_some_and(|it| it == "Terminating") {
            let cause = json!({"reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated")});
            let details = json!({"name": name, "group": "events.k8s.io", "kind": "events", "causes": [cause]});
            let message = format!(
                "events.events.k8s.io \"{name}\" is forbidden: unable to create new content in namespace {namespace} \
                 because it is being terminated"
            );
            return Err(Refused { details, ..Refused::new(403, "Forbidden", message) });
        }
        events::made(event).map_err(|it| invalid(&name, &it))
    }

    /// A Pod on a node is asked to end and has its time; it goes when it is deleted with a grace of 0 seconds, as its
    /// kubelet does. One that is on no node, or has ended, goes at once. A foreground deletion marks its object too.
    fn delete(&self, request: &Request, target: &Target<'_>) -> Result<(u16, Value), Refused> {
        let Target { resource, namespace, name, .. } = *target;
        let missing = || not_found(target);
        let before = self.store.get(resource, namespace, name).ok_or_else(missing)?;
        let is_pod = resource == "pods";
        let is_foreground = request.parameter("propagationPolicy") == Some("Foreground");
        let mut grace = 0;
        if is_pod || is_foreground {
            let metadata = &before["metadata"];
            let has_ended = matches!(before["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if is_pod && before["spec"]["nodeName"].is_string() && !has_ended {
                let asked = request.parameter("gracePeriodSeconds").and_then(|it| it.parse().ok());
                let own = || metadata["deletionGracePeriodSeconds"].as_u64();
                let usual = || before["spec"]["terminationGracePeriodSeconds"].as_u64();
                grace = asked.or_else(own).or_else(usual).unwrap_or(30);
            }
            let mut mark = json!({"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace});
            if metadata["deletionTimestamp"].is_string() {
                mark["deletionTimestamp"] = metadata["deletionTimestamp"].clone();
            }
            if is_foreground {
                mark["finalizers"] = json!(["foregroundDeletion"]);
            }
            let marked =
                self.store.patch(resource, namespace, name, &json!({"metadata": mark})).map_err(|_| missing())?;
            if is_foreground || grace > 0 {
                return Ok((200, marked));
            }
        }
        let gone = self.store.delete(resource, namespace, name).ok_or_else(missing)?;
        if is_pod {
            return Ok((200, gone));
        }
        let mut details = target.details(name);
        details["uid"] = gone["metadata"]["uid"].clone();
        Ok((
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        ))
    }
}

/// The connection is gone; there is no client to answer.
fn cut(_: io::Error) -> Refused {
    Refused::new(0, "", "")
}

fn invalid(event: &str, (field, why): &(&str, String)) -> Refused {
    let reason = if why == "Required value" { "FieldValueRequired" } else { "FieldValueInvalid" };
    let details = json!({"name": event, "kind": "Event",
        "causes": [{"reason": reason, "message": why, "field": field}]});
    let message = format!("Event \"{event}\" is invalid: {field}: {why}");
    Refused { details, ..Refused::new(422, "Invalid", message) }
}

fn nameless(target: &Target<'_>) -> Refused {
    let why = "Required value: name or generateName is required";
    let cause = json!({"reason": "FieldValueRequired", "message": why, "field": "metadata.name"});
    let mut details = json!({"kind": target.kind, "causes": [cause]});
    if !target.group().is_empty() {
        details["group"] = target.group().into();
    }
    let message = format!("{} \"\" is invalid: metadata.name: {why}", target.kind);
    Refused { details, ..Refused::new(422, "Invalid", message) }
}

fn no_resource() -> Refused {
    Refused { details: json!({}), ..Refused::new(404, "NotFound", "the server could not find the requested resource") }
}

/// The version from which a request asks, 0 if it names none; or why it is no version.
fn version_of(request: &Request) -> Result<u64, String> {
    let text = request.parameter("resourceVersion").filter(|it| !it.is_empty()).unwrap_or("0");
    let why =
        || format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax");
    text.parse().map_err(|_| why())
}

fn not_found(target: &Target<'_>) -> Refused {
    let message = format!("{} \"{}\" not found", target.full(), target.name);
    Refused { details: target.details(target.name), ..Refused::new(404, "NotFound", message) }
}

/// What a Lease must be: recorded, as all of it is.
fn check_lease(lease: &Value, verb: &str) -> Result<(), Refused> {
    for field in ["acquireTime", "renewTime"] {
        let Some(time) = lease["spec"][field].as_str() else { continue };
        let (_, rest) = time.split_at_checked(19).unwrap_or_default();
        let is_micro = rest.strip_prefix('.').and_then(|it| it.strip_suffix('Z'));
        if !is_micro.is_some_and(|it| it.len() == 6 && it.bytes().all(|it| it.is_ascii_digit())) {
            let message = format!(
                "Lease in version \"v1\" cannot be handled as a Lease: parsing time \"{time}\" as \
                 \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"{rest}\" as \".000000\""
            );
            return Err(Refused::new(400, "BadRequest", message));
        }
    }
    let invalid = |resource: &str, kind: &str, field: &str, why: &str| {
        let name = lease["metadata"]["name"].as_str().unwrap_or_default();
        let cause = json!({"reason": "FieldValueInvalid", "message": why, "field": field});
        let details = json!({"name": name, "group": "coordination.k8s.io", "kind": kind, "causes": [cause]});
        let message = format!("{resource}.coordination.k8s.io \"{name}\" is invalid: {field}: {why}");
        Err(Refused { details, ..Refused::new(422, "Invalid", message) })
    };
    if verb == "update" && lease["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty) {
        let why = "Invalid value: 0: must be specified for an update";
        return invalid("leases", "leases", "metadata.resourceVersion", why);
    }
    match lease["spec"]["leaseDurationSeconds"].as_i64() {
        Some(seconds) if seconds <= 0 => {
            let why = format!("Invalid value: {seconds}: must be greater than 0");
            invalid("Lease", "Lease", "spec.leaseDurationSeconds", &why)
        }
        _ => Ok(()),
    }
}

/// Whether a path is below a group and version that has resources.
fn is_served(path: &str) -> bool {
    RESOURCES.iter().any(|(_, api, _)| {
        let below = if api.contains('/') { format!("/apis/{api}/") } else { format!("/api/{api}/") };
        path.starts_with(&below)
    })
}

/// `/api/v1/...` and `/apis/group/version/...`, with or without a namespace, a name and a subresource.
fn target_of(path: &str) -> Option<Target<'_>> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (version, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, name, own) = match rest {
        [own] => ("", "", *own),
        ["namespaces", name] => ("", *name, "namespaces"),
        ["namespaces", namespace, own] => (*namespace, "", *own),
        ["namespaces", namespace, own, name] | ["namespaces", namespace, own, name, "status"] => {
            (*namespace, *name, *own)
        }
        _ => return None,
    };
    let (resource, api, kind) = resource(own)?;
    (api == version).then_some(Target { resource, api, kind, namespace, name })
}

/// A continue token: opaque for clients, base64 without padding.
fn write_continue(version: i64, start: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": start}).to_string();
    openssl::base64::encode_block(token.as_bytes()).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn read_continue(token: &str) -> Option<(u64, String)> {
    let mut token = token.replace('-', "+").replace('_', "/");
    while !token.len().is_multiple_of(4) {
        token.push('=');
    }
    let token: Value = serde_json::from_slice(&openssl::base64::decode_block(&token).ok()?).ok()?;
    // The inconsistent rest of an expired list has version -1; no client should ask for it.
    Some((token["rv"].as_i64()?.try_into().ok()?, token["start"].as_str()?.to_owned()))
}
