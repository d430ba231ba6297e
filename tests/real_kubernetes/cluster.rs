//! The real control plane that `scripts/real-kubernetes` started: kubectl as the user's hands, and plain requests
//! through `kubectl proxy` for what kubectl has no command for. It shares no code with the daemon.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The running control plane.
#[derive(Clone)]
pub struct Cluster {
    folder: PathBuf,
    proxy: String,
    agent: ureq::Agent,
}

impl Cluster {
    /// The one whose folder the environment names.
    pub fn get() -> Cluster {
        let folder = std::env::var_os("REAL_KUBERNETES").expect("start this by scripts/real-kubernetes test");
        let folder = PathBuf::from(folder);
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_connect(Some(Duration::from_secs(5))).build().new_agent();
        Cluster { proxy: read(&folder.join("proxy.url")), folder, agent }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same cluster as another user sees it, whose kubeconfig is in its folder.
    pub fn as_user(&self, kubeconfig: &str) -> User {
        let mut command = self.command(&["proxy", "--port", "0"]);
        command.env("KUBECONFIG", self.file(kubeconfig)).stderr(Stdio::null());
        let mut proxy = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap();
        User { cluster: Cluster { proxy: format!("http://{address}"), ..self.clone() }, proxy }
    }

    /// kubectl as the administrator.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.file("bin/kubectl"));
        command.args(words).env("KUBECONFIG", self.file("admin.kubeconfig"));
        command.env("HOME", &self.folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What kubectl answers; it must succeed.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "kubectl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `kubectl apply` of a manifest in JSON or YAML.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.kubectl_with(&["apply", "--filename", "-"], manifest);
    }

    /// kubectl with something to read; what it answers.
    #[track_caller]
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> String {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {words:?}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a path holds; `null` if nothing answers.
    pub fn read(&self, path: &str) -> Value {
        let response = self.agent.get(format!("{}{path}", self.proxy)).call();
        response
            .ok()
            .and_then(|mut it| it.body_mut().with_config().limit(u64::MAX).read_to_vec().ok())
            .map_or(Value::Null, |body| serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A POST, or a PATCH by merge; the status code, 0 if nothing answers.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> u16 {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.proxy));
        let request = request.header("Content-Type", kind).body(body.to_string()).unwrap();
        self.code(self.agent.run(request))
    }

    /// A DELETE; options are a part of the path.
    pub fn delete(&self, path: &str) -> u16 {
        self.code(self.agent.delete(format!("{}{path}", self.proxy)).call())
    }

    /// The answer is read whole, so that its connection can be used again.
    fn code(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> u16 {
        answer.map_or(0, |mut it| {
            let _ = it.body_mut().read_to_vec();
            it.status().as_u16()
        })
    }

    /// The events of a watch from its beginning: first everything that is there as ADDED. It ends as the server's
    /// connection does.
    pub fn watch(&self, path: &str) -> impl Iterator<Item = Value> {
        let response = self.agent.get(format!("{}{path}?watch=true", self.proxy)).call().ok();
        let response = response.filter(|it| it.status().is_success());
        let lines = response.map(|it| BufReader::new(it.into_body().into_reader()).lines());
        lines.into_iter().flatten().map_while(|line| serde_json::from_str(&line.ok()?).ok())
    }

    /// Stops a part of the control plane, such as `kube-apiserver`.
    pub fn stop(&self, part: &str) {
        self.script("stop", part);
    }

    /// Starts it again and waits until it serves.
    pub fn start(&self, part: &str) {
        self.script("start", part);
    }

    fn script(&self, word: &str, part: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/real-kubernetes");
        let output = Command::new(script).arg(word).arg(&self.folder).arg(part).output().unwrap();
        assert!(output.status.success(), "{word} {part}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The ServiceAccount and its rights are as after the start, also if they were deleted.
    pub fn restore_rights(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.kubectl(&["apply", "--filename", root.join("scripts/kubernetes-rbac.yaml").to_str().unwrap()]);
        let path = std::env::join_paths([self.file("bin"), PathBuf::from("/usr/bin"), PathBuf::from("/bin")]).unwrap();
        let mut command = Command::new(root.join("scripts/make-kubeconfig"));
        let output = command.env("KUBECONFIG", self.file("admin.kubeconfig")).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        std::fs::write(self.file("service-account.kubeconfig"), &text).unwrap();
        let token = text.lines().find_map(|it| it.trim().strip_prefix("token: ")).unwrap();
        std::fs::write(self.file("service-account.token"), format!("{token}\n")).unwrap();
    }

    /// etcd forgets its history up to now.
    pub fn compact(&self) {
        let url = read(&self.file("etcd.url"));
        let ask = |path: &str, body: String| -> Value {
            let mut answer = self.agent.post(format!("{url}/v3/{path}")).send(body).unwrap();
            serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
        };
        let status = ask("maintenance/status", "{}".to_owned());
        let revision = status["header"]["revision"].as_str().unwrap().to_owned();
        let done = ask("kv/compaction", format!("{{\"revision\": \"{revision}\", \"physical\": true}}"));
        assert!(done["header"].is_object(), "{done}");
    }

    /// The requests of the daemon's ServiceAccount so far: verb and resource.
    pub fn requests(&self) -> Vec<(String, String)> {
        let log = std::fs::read_to_string(self.file("audit.log")).unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // The suite asks as the same ServiceAccount, to see what is refused.
        let is_suite = |it: &Value| ["curl/", "kubectl/"].iter().any(|own| word(&it["userAgent"]).starts_with(own));
        let lines = lines.filter(|it| !is_suite(it));
        lines.map(|it| (word(&it["verb"]), word(&it["objectRef"]["resource"]))).collect()
    }
}

/// A user with a proxy of their own, which ends when this is dropped.
pub struct User {
    /// Plain requests are theirs; kubectl is the administrator's all the same.
    pub cluster: Cluster,
    proxy: Child,
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}
