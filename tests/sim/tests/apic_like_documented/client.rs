//! A client that does nothing by itself: one connection a request, a websocket, no retry.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use native_tls::{Certificate, TlsConnector, TlsStream};
use serde_json::{Value, json};
use sim::apic::{Options, SimApic, Variants};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::{Message, WebSocket};

/// A hang guard, not a measure.
pub const LIMIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// HTTP status, code and text of a refusal.
    pub fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let error = &json["imdata"][0]["error"]["attributes"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("text"))
    }

    /// The DNs (or RNs) of the objects of the top level.
    pub fn dns(&self) -> Vec<String> {
        let json = self.json();
        let objects = json["imdata"].as_array().unwrap().iter();
        objects
            .map(|it| it.as_object().unwrap().values().next().unwrap()["attributes"]["dn"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A client of a controller.
pub struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    pub cookie: String,
    /// More header lines, each with its end.
    pub headers: String,
    /// What follows the token in the websocket's path.
    pub socket_query: String,
}

pub type Socket = WebSocket<TlsStream<TcpStream>>;

impl Client {
    pub fn new(apic: &SimApic, controller: usize) -> Client {
        let ca = Certificate::from_pem(apic.ca_pem().as_bytes()).unwrap();
        let tls = TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(ca).build().unwrap();
        Client {
            address: apic.controllers()[controller],
            tls,
            cookie: String::new(),
            headers: String::new(),
            socket_query: String::new(),
        }
    }

    /// A client that has logged in.
    pub fn logged_in(apic: &SimApic) -> Client {
        let mut client = Client::new(apic, 0);
        let answer = client.login(apic.username(), apic.password());
        assert_eq!(answer.status, 200, "{}", answer.body);
        client
    }

    /// Logs in; the token is kept for what follows.
    pub fn login(&mut self, name: &str, password: &str) -> Answer {
        let body = json!({"aaaUser": {"attributes": {"name": name, "pwd": password}}});
        let answer = self.post("/api/aaaLogin.json", &body);
        if answer.status == 200 {
            self.use_token_of(&answer);
        }
        answer
    }

    pub fn use_token_of(&mut self, answer: &Answer) {
        self.cookie = format!("APIC-cookie={}", token_in(answer));
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "")
    }

    pub fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, "")
    }

    pub fn post(&self, target: &str, body: &Value) -> Answer {
        self.send("POST", target, &body.to_string())
    }

    fn connect(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(LIMIT)).unwrap();
        self.tls.connect("localhost", tcp).unwrap()
    }

    pub fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let cookie = if self.cookie.is_empty() { String::new() } else { format!("Cookie: {}\r\n", self.cookie) };
        let (length, more) = (body.len(), &self.headers);
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: apic\r\nConnection: close\r\n{cookie}{more}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Opens the session's websocket.
    pub fn socket(&self) -> Socket {
        self.try_socket().unwrap()
    }

    pub fn try_socket(&self) -> Option<Socket> {
        self.socket_at(self.cookie.split_once('=').unwrap().1)
    }

    /// Opens the websocket of a token.
    pub fn socket_at(&self, token: &str) -> Option<Socket> {
        let uri = format!("wss://localhost/socket{token}{}", self.socket_query).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_header("Cookie", self.cookie.as_str());
        Some(tungstenite::client(request, self.connect()).ok()?.0)
    }

    /// Subscribes; returns the id.
    pub fn subscribe(&self, target: &str) -> String {
        let sign = if target.contains('?') { '&' } else { '?' };
        let answer = self.get(&format!("{target}{sign}subscription=yes"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["subscriptionId"].as_str().unwrap().to_owned()
    }
}

pub fn token_in(answer: &Answer) -> String {
    answer.json()["imdata"][0]["aaaLogin"]["attributes"]["token"].as_str().unwrap().to_owned()
}

/// The next event's class, DN and status.
pub fn next(socket: &mut Socket) -> (String, String, String) {
    let event = next_json(socket);
    let (class, object) = event["imdata"][0].as_object().unwrap().iter().next().unwrap();
    let text = |name: &str| object["attributes"][name].as_str().unwrap().to_owned();
    (class.clone(), text("dn"), text("status"))
}

/// The next event.
pub fn next_json(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Whether the websocket ends, after whatever was still to come.
pub fn ends(mut socket: Socket) -> bool {
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

pub const EPG: &str = "uni/tn-T/out-L/instP-E";

/// A cluster with the L3Out `uni/tn-T/out-L` in the VRF `V`, a second one, and switches turned.
pub fn apic(turn: impl FnOnce(&mut Variants)) -> SimApic {
    let mut variants = Variants { late_changes: None, ..Variants::default() };
    turn(&mut variants);
    let apic = SimApic::start(Options { variants, ..Options::default() });
    apic.setup_tenant("T", "V", &["L", "M"]).unwrap();
    apic
}

pub fn epg(name: &str, ips: &[&str]) -> Value {
    let subnets: Vec<Value> = ips.iter().map(|ip| json!({"l3extSubnet": {"attributes": {"ip": ip}}})).collect();
    json!({"l3extInstP": {"attributes": {"name": name}, "children": subnets}})
}
