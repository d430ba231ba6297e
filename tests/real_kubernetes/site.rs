//! A site that runs aci-sync in its cluster: a world, a kubelet, and a folder with a release's `deploy/` and the site's
//! own overlay, which commands of a shell apply.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sim::folder::Folder;

use crate::kubelet::{Kubelet, NAMESPACE};
use crate::world::World;

/// The site's own overlay in its folder, as docs/in-cluster.md has it.
pub const OVERLAY: &str = "deploy/sites/prod";

/// All of it. Nothing is applied yet.
pub struct Site {
    /// The cluster and the fabric.
    pub world: World,
    /// Where the Pods run.
    pub kubelet: Kubelet,
    folder: Folder,
}

impl Site {
    /// A new one.
    pub fn new() -> Site {
        let world = World::new();
        let folder = Folder::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let bin = folder.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(root.join("tests/real_kubernetes/kubectl.sh"), bin.join("kubectl")).unwrap();
        let controllers: Vec<String> = world.apic.apic().split(',').map(str::to_owned).collect();
        let kubelet = Kubelet::start(&world.cluster, folder.path(), &controllers);
        Site { world, kubelet, folder }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a shell makes of a line in the folder of the site, with kubectl as the administrator.
    pub fn try_shell(&self, script: &str) -> Output {
        let path = format!("{}:{}", self.file("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder.path()).env("PATH", path);
        command.env("KUBECONFIG", self.world.cluster.file("admin.kubeconfig")).env("PODS", self.kubelet.folder());
        command.output().unwrap()
    }

    /// The same, and it has to succeed; what it prints.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let output = self.try_shell(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}: {:?}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// The release's manifests, and the site's overlay with its own settings, not applied yet.
    pub fn prepare(&self) {
        let root = env!("CARGO_MANIFEST_DIR");
        self.shell(&format!("cp -r {root}/deploy . && mkdir deploy/sites && cp -r deploy/examples/site {OVERLAY}"));
        self.fill_in();
    }

    /// What a site has to fill in: its controllers, its user, its password, its CA.
    pub fn fill_in(&self) {
        self.edit("ACI_APIC=apic1.example.net,apic2.example.net", &format!("ACI_APIC={}", self.world.apic.apic()));
        self.edit("ACI_USERNAME=aci-sync", &format!("ACI_USERNAME={}", self.world.apic.username()));
        let write = |name: &str, text: &str| std::fs::write(self.file(OVERLAY).join(name), text).unwrap();
        write("password", self.world.apic.password());
        write("apic-ca.pem", &self.world.apic.ca_pem());
    }

    /// Replaces a text of the overlay.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let file = self.file(OVERLAY).join("kustomization.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
    }

    /// `kubectl apply -k` of the overlay.
    #[track_caller]
    pub fn apply(&self) {
        self.shell(&format!("kubectl apply -k {OVERLAY}"));
    }

    /// The Pods of aci-sync, as the server shows them.
    pub fn pods(&self) -> Vec<Value> {
        let labels = "app.kubernetes.io%2Fname%3Daci-sync";
        let pods = self.world.cluster.read(&format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={labels}"));
        pods["items"].as_array().cloned().unwrap_or_default()
    }

    /// The names of those that are ready and do not end.
    pub fn ready(&self) -> Vec<String> {
        let is_ready = |it: &&Value| {
            let mut conditions = it["status"]["conditions"].as_array().into_iter().flatten();
            let is_ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
            is_ready && !it["metadata"]["deletionTimestamp"].is_string()
        };
        self.pods().iter().filter(is_ready).map(name).collect()
    }

    /// The Node of a Pod.
    pub fn node(&self, pod: &str) -> String {
        let pods = self.pods();
        let pod = pods.iter().find(|it| name(it) == pod).unwrap();
        pod["spec"]["nodeName"].as_str().unwrap().to_owned()
    }

    /// The Pod that holds the Lease: the holder is named after its host, and so after its Pod.
    pub fn leader(&self) -> Option<String> {
        let lease = self.world.cluster.read("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/aci-sync");
        let holder = lease["spec"]["holderIdentity"].as_str()?.rsplit_once('_')?.0.to_owned();
        self.ready().into_iter().find(|it| *it == holder)
    }

    /// Waits until this number of Pods are ready, and no others are there.
    #[track_caller]
    pub fn until_ready(&self, count: usize) {
        self.world.until(&format!("{count} Pods of aci-sync are ready"), || {
            self.ready().len() == count && self.pods().len() == count
        });
    }

    /// Waits until a ready Pod leads, and says which.
    #[track_caller]
    pub fn until_led(&self) -> String {
        self.world.until("a ready Pod leads", || self.leader().is_some());
        self.leader().unwrap()
    }
}

/// The name of an object.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

impl Drop for Site {
    /// The rights stay, which other stories need.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pod in self.pods() {
                println!("--- {}: {}\n{}---", name(&pod), pod["status"], self.kubelet.log(&name(&pod)));
            }
        }
        let label = "--selector=app.kubernetes.io/name=aci-sync";
        let kinds = "deployments,poddisruptionbudgets,networkpolicies,configmaps,secrets";
        let _ = self.world.cluster.command(&["--namespace=kube-system", "delete", kinds, label]).output();
        self.world.cluster.delete("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/aci-sync");
        let end = std::time::Instant::now() + crate::e2e_world::LIMIT;
        while std::time::Instant::now() < end && !self.pods().is_empty() {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }
}
