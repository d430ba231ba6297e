//! One Pod with a process: its volumes, its environment and its namespaces, all from the Pod as the server shows it.
//! What the objects say nothing about is the image's: `scripts/image` makes it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::e2e_world::LIMIT;
use crate::kubelet::NAMESPACE;

/// The entrypoint of the image.
const PROGRAM: &str = "/aci-sync";
/// What a container runtime adds to the environment.
const RUNTIME: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/")];

/// Files by volume and name.
type Volumes = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// Where connections of the Pod lead: an address and a port as the Pod sees them, and the socket file on the other side.
pub type Forward = (String, String, PathBuf);

/// The Pod's folder, its files and its process.
pub struct Container {
    folder: PathBuf,
    /// The address of the Pod.
    pub address: String,
    volumes: Volumes,
    writes: u32,
    /// Of `unshare`, whose only child is the process: the first one of its own numbering, with whose end all in there end.
    outside: Child,
    id: u32,
}

impl Container {
    /// Starts it as the Pod describes it. `None` if a Secret or ConfigMap that it needs is missing.
    pub fn start(
        cluster: &Cluster,
        pod: &Value,
        folder: PathBuf,
        address: String,
        image: &Path,
        forwards: &[Forward],
    ) -> Option<Container> {
        let volumes = volumes(cluster, &pod["spec"])?;
        let environment = environment(cluster, pod, &address)?;
        for made in [folder.clone(), folder.join("root")] {
            fs::create_dir_all(&made).unwrap();
            fs::set_permissions(made, Permissions::from_mode(0o755)).unwrap();
        }
        write_volumes(&folder, &pod["spec"], &volumes, &Volumes::new(), 0);
        let outside = spawn(pod, &folder, &address, image, forwards, &environment);
        let id = first_child(outside.id());
        fs::write(folder.join("pid"), id.to_string()).unwrap();
        Some(Container { folder, address, volumes, writes: 1, outside, id })
    }

    /// Brings its files up to date. A volume whose source is gone stays.
    pub fn refresh(&mut self, cluster: &Cluster, pod: &Value) {
        let Some(now) = volumes(cluster, &pod["spec"]) else { return };
        write_volumes(&self.folder, &pod["spec"], &now, &self.volumes, self.writes);
        self.writes += 1;
        self.volumes = now;
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.outside.try_wait().unwrap()
    }

    /// Sends a signal, unless it has ended and another process may have its id.
    pub fn signal(&mut self, signal: &str) {
        if self.ended().is_none() {
            let status = Command::new("kill").args([&format!("-{signal}"), &self.id.to_string()]).status().unwrap();
            assert!(status.success() || self.ended().is_some(), "{signal} was not sent");
        }
    }

    /// The status code of an HTTP probe as kubelet sends it, 0 without an answer.
    pub fn probe(&self, pod: &Value, probe: &Value) -> u16 {
        let get = &probe["httpGet"];
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        let port = ports.iter().find(|it| it["name"] == get["port"]).expect("a named port")["containerPort"].clone();
        let host = get["host"].as_str().unwrap_or(&self.address);
        let url = format!("http://{host}:{port}{}", get["path"].as_str().unwrap());
        let timeout = probe["timeoutSeconds"].to_string();
        let output = Command::new("nsenter")
            .args(["--target", &self.id.to_string(), "--net", "curl", "--silent", "--max-time", &timeout])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}", &url])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).parse().unwrap_or(0)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.outside.wait();
    }
}

/// The process that another one has started, or will start in a moment.
fn first_child(parent: u32) -> u32 {
    let end = Instant::now() + LIMIT;
    loop {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(Instant::now() < end, "unshare starts nothing");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Its process, below which all mounts are, so that they end with it.
fn spawn(
    pod: &Value,
    folder: &Path,
    address: &str,
    image: &Path,
    forwards: &[Forward],
    environment: &[(String, String)],
) -> Child {
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    let number = |name: &str| spec["securityContext"][name].as_u64().unwrap().to_string();
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "other roots are not played");
    assert!(!container["command"].is_array(), "the entrypoint is the image's");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--net", "--ipc", "--pid", "--fork", "bash"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_kubernetes/container.sh"));
    command.arg(folder.join("root")).args([name, address]);
    command.args([number("runAsUser"), number("runAsGroup"), number("fsGroup")]);
    command.arg("mount").arg(image).arg(PROGRAM);
    // kubelet makes this file; there is no name server here.
    let hosts = folder.join("hosts");
    fs::write(&hosts, format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{name}\n")).unwrap();
    fs::set_permissions(&hosts, Permissions::from_mode(0o644)).unwrap();
    command.arg("mount").arg(&hosts).arg("/etc/hosts");
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert!(!mount["subPath"].is_string(), "a subPath is not played");
        let volume = folder.join("volumes").join(mount["name"].as_str().unwrap());
        command.arg("mount").arg(volume).arg(mount["mountPath"].as_str().unwrap());
    }
    for (address, port, socket) in forwards {
        command.args(["forward", address, port]).arg(socket);
    }
    command.arg("--").args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg(PROGRAM);
    command.args(container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn object(cluster: &Cluster, kind: &str, name: &Value) -> Option<Value> {
    let name = name.as_str().unwrap();
    let object = cluster.read(&format!("/api/v1/namespaces/{NAMESPACE}/{kind}/{name}"));
    (object["metadata"]["name"] == name).then_some(object)
}

/// The content of the volumes, as the server has it now.
fn volumes(cluster: &Cluster, spec: &Value) -> Option<Volumes> {
    let mut all = Volumes::new();
    for volume in spec["volumes"].as_array().unwrap() {
        let (secret, settings) = (&volume["secret"], &volume["configMap"]);
        let files = if secret.is_object() {
            let object = object(cluster, "secrets", &secret["secretName"])?;
            let decode = |it: &Value| openssl::base64::decode_block(it.as_str().unwrap()).unwrap();
            object["data"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), decode(value))).collect()
        } else if settings.is_object() {
            match object(cluster, "configmaps", &settings["name"]) {
                None if settings["optional"] != true => return None,
                object => {
                    texts(&object.unwrap_or_default()).into_iter().map(|(name, it)| (name, it.into_bytes())).collect()
                }
            }
        } else {
            panic!("a volume of this kind is not played: {volume}")
        };
        all.insert(volume["name"].as_str().unwrap().to_owned(), files);
    }
    Some(all)
}

/// The data of a ConfigMap.
fn texts(object: &Value) -> Vec<(String, String)> {
    let data = object["data"].as_object().into_iter().flatten();
    data.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Writes what differs as kubelet's AtomicWriter does: the files of a volume are links into a folder that is replaced as a
/// whole, root's, and readable by the Pod's group.
fn write_volumes(folder: &Path, spec: &Value, now: &Volumes, before: &Volumes, number: u32) {
    let group = spec["securityContext"]["fsGroup"].as_u64().map(|it| it as u32);
    for (name, files) in now.iter().filter(|(name, files)| before.get(*name) != Some(files)) {
        let volume = folder.join("volumes").join(name);
        let version = volume.join(format!("..{number}"));
        fs::create_dir_all(&version).unwrap();
        let described = spec["volumes"].as_array().unwrap().iter().find(|it| it["name"] == name.as_str()).unwrap();
        let source = ["secret", "configMap"].into_iter().map(|it| &described[it]).find(|it| it.is_object()).unwrap();
        let mode = source["defaultMode"].as_u64().unwrap() as u32;
        for made in [&volume, &version] {
            fs::set_permissions(made, Permissions::from_mode(0o755)).unwrap();
        }
        for (name, content) in files {
            let file = version.join(name);
            fs::write(&file, content).unwrap();
            std::os::unix::fs::chown(&file, Some(0), group).expect("run this as root");
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let link = volume.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        symlink(version.file_name().unwrap(), volume.join("..new")).unwrap();
        fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    }
}

/// The environment in kubelet's order; of two variables of a name the later one counts.
fn environment(cluster: &Cluster, pod: &Value, address: &str) -> Option<Vec<(String, String)>> {
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let mut all: Vec<(String, String)> = RUNTIME.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    all.push(("HOSTNAME".to_owned(), name.to_owned()));
    let links = if spec["enableServiceLinks"] == false { "" } else { NAMESPACE };
    for namespace in ["default", links] {
        let services = cluster.read(&format!("/api/v1/namespaces/{namespace}/services"));
        for service in services["items"].as_array().into_iter().flatten() {
            let name = service["metadata"]["name"].as_str().unwrap();
            if namespace == "default" && name != "kubernetes" {
                continue;
            }
            let prefix = name.to_uppercase().replace('-', "_");
            let (host, port) = (service["spec"]["clusterIP"].as_str().unwrap(), &service["spec"]["ports"][0]["port"]);
            all.push((format!("{prefix}_SERVICE_HOST"), host.to_owned()));
            all.push((format!("{prefix}_SERVICE_PORT"), port.to_string()));
            all.push((format!("{prefix}_PORT"), format!("tcp://{host}:{port}")));
        }
    }
    for source in container["envFrom"].as_array().into_iter().flatten() {
        all.extend(texts(&object(cluster, "configmaps", &source["configMapRef"]["name"])?));
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let path = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        let value = match (variable["value"].as_str(), path) {
            (Some(value), _) => value,
            (None, Some("metadata.name")) => name,
            (None, Some("status.podIP")) => address,
            _ => panic!("a variable of this kind is not played: {variable}"),
        };
        all.push((variable["name"].as_str().unwrap().to_owned(), value.to_owned()));
    }
    Some(all)
}

/// How long a Pod may take to stop before it is killed.
pub fn grace(pod: &Value) -> Duration {
    Duration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30))
}
