//! A headless Chromium, driven over the Chrome DevTools Protocol.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sim::folder::Folder;
use tungstenite::{Message, WebSocket};

use crate::world::LIMIT;

/// A browser with one tab.
pub struct Browser {
    process: Child,
    socket: RefCell<WebSocket<TcpStream>>,
    session: String,
    last_id: Cell<u64>,
    events: RefCell<Vec<Value>>,
    _profile: Folder,
}

impl Browser {
    /// Starts it with an empty tab. It reaches nothing but this machine.
    pub fn start() -> Browser {
        let profile = Folder::new();
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank");
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("Chromium starts");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.expect("Chromium names its address");
        // What it prints further is of no interest, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.trim_start_matches("ws://").split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (socket, _) = tungstenite::client(&url, stream).unwrap();
        let (socket, session) = (RefCell::new(socket), String::new());
        let (last_id, events) = Default::default();
        let mut browser = Browser { process, socket, session, last_id, events, _profile: profile };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.command("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Network", "Audits", "Log", "Runtime"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and returns its result.
    #[track_caller]
    pub fn command(&self, method: &str, params: Value) -> Value {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut command = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.socket.borrow_mut().send(Message::text(command.to_string())).unwrap();
        let mut answer = self.receive(|message| message["id"] == id);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Reads until a message comes; events are kept.
    #[track_caller]
    fn receive(&self, is_awaited: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.socket.borrow_mut().read().expect("Chromium answers");
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let is_event = message.get("method").is_some();
            if is_event {
                self.events.borrow_mut().push(message.clone());
            }
            if is_awaited(&message) {
                return message;
            }
        }
    }

    /// Loads a page, and forgets what happened before.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.events.borrow_mut().clear();
        let result = self.command("Page.navigate", json!({"url": url}));
        assert!(result.get("errorText").is_none(), "{url}: {result}");
        self.until_loaded();
    }

    /// Waits until a page is loaded since the last call of [`Browser::open`] or [`Browser::forget`].
    #[track_caller]
    pub fn until_loaded(&self) {
        // What comes before the navigation is about the page before, be it the empty one of the start.
        let is_new = |it: &Value| it["params"]["frame"]["url"].as_str().is_some_and(|it| it.starts_with("http"));
        let is_loaded = || {
            let events = self.events.borrow();
            events.iter().skip_while(|it| !is_new(it)).any(|it| it["method"] == "Page.loadEventFired")
        };
        while !is_loaded() {
            self.receive(|message| message["method"] == "Page.loadEventFired");
        }
    }

    /// Waits for an event since then.
    #[track_caller]
    pub fn until_event(&self, method: &str) {
        if self.events(method).is_empty() {
            self.receive(|message| message["method"] == method);
        }
    }

    /// Forgets the events.
    pub fn forget(&self) {
        self.events.borrow_mut().clear();
    }

    /// The parameters of the events of a kind.
    pub fn events(&self, method: &str) -> Vec<Value> {
        let events = self.events.borrow();
        events.iter().filter(|it| it["method"] == method).map(|it| it["params"].clone()).collect()
    }

    /// The value of an expression in the page; of a promise what it resolves to.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.command("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression:.200}: {result}");
        result["result"]["value"].take()
    }

    /// The same, as text.
    #[track_caller]
    pub fn text(&self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_else(|| panic!("{expression} is no text")).to_owned()
    }

    /// Sets the size of the window and the colour scheme.
    pub fn look(&self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// A picture of the whole page as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let params = json!({"format": "png", "captureBeyondViewport": true, "optimizeForSpeed": false});
        let picture = self.command("Page.captureScreenshot", params);
        openssl::base64::decode_block(picture["data"].as_str().unwrap()).unwrap()
    }

    /// Presses and releases a key.
    pub fn press(&self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.command("Input.dispatchKeyEvent", params);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
