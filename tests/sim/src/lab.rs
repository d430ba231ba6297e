//! The lab: both simulators as one process, described by files in a folder; and the words by which people and scripts
//! act on a running one without any other tool.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::apic::{self, SimApic};
use crate::client::{Answer, Client};
use crate::kube::{self, Credential, SimKube};
use crate::pki::KeyForm;

/// A running lab. It stops when it is dropped.
pub struct Lab {
    /// The fabric.
    pub apic: SimApic,
    /// The cluster. Its Deployments get their Pods by themselves.
    pub kube: SimKube,
}

/// Where the description of a lab lies.
pub struct Folder(pub PathBuf);

impl Lab {
    /// Starts both simulators; port 0 takes any.
    pub fn start(controllers: usize, apic_port: u16, kube_port: u16) -> Lab {
        let options = apic::Options { controllers, port: apic_port, lab: true, ..apic::Options::default() };
        let apic = SimApic::start(options);
        let address = ([127, 0, 0, 1], kube_port).into();
        let kube = SimKube::start(kube::Options { address, controllers: true, ..kube::Options::default() });
        Lab { apic, kube }
    }

    /// Writes the files; `lab.env` comes last, so that who sees it sees all of them.
    pub fn describe(&self, folder: &Folder) -> io::Result<()> {
        fs::create_dir_all(&folder.0)?;
        let client = self.kube.client("kubernetes-admin", KeyForm::Pkcs8);
        folder.write("apic-ca.pem", &self.apic.ca_pem())?;
        folder.write("apic-password", self.apic.password())?;
        folder.write("kube-ca.pem", &self.kube.ca_pem())?;
        folder.write("kube-client.crt", &client.certificate_pem())?;
        folder.write("kube-client.key", &client.key_pem(KeyForm::Pkcs8))?;
        folder.write("kube-token", kube::TOKEN)?;
        folder.write("kubeconfig", &self.kube.kubeconfig(Credential::Certificate(KeyForm::Sec1)))?;
        let _ = fs::remove_file(folder.0.join("apic-token"));
        let file = |name: &str| fs::canonicalize(&folder.0).map(|it| it.join(name).display().to_string());
        let settings = [
            ("ACI_APIC", self.apic.apic()),
            ("ACI_USERNAME", self.apic.username().to_owned()),
            ("ACI_SYNC_PASSWORD_FILE", file("apic-password")?),
            ("ACI_SYNC_APIC_CA", file("apic-ca.pem")?),
            ("ACI_SYNC_KUBECONFIG", file("kubeconfig")?),
            ("LAB_KUBE", self.kube.url()),
        ];
        let text: String = settings.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        folder.write("lab.env.new", &text)?;
        fs::rename(folder.0.join("lab.env.new"), folder.0.join("lab.env"))
    }

    /// How to talk to it, for people.
    pub fn how_to(&self, folder: &Folder) -> String {
        let folder = folder.0.display();
        let (apic, kube) = (self.apic.controllers()[0], self.kube.url());
        format!(
            "The lab runs.
  APIC        https://{apic}   (all controllers: {all})
  Kubernetes  {kube}
  Credentials and certificates are in {folder}.

Run the daemon against it:
  set -a; . {folder}/lab.env; set +a; aci-sync run

Send requests to the APIC and to Kubernetes, and show the fabric:
  lab --dir {folder} apic GET '/api/class/l3extSubnet.json'
  lab --dir {folder} kube GET /api/v1/pods
  lab --dir {folder} fabric

The same with curl:
  curl --cacert {folder}/apic-ca.pem -c {folder}/cookies -d '{{\"aaaUser\":{{\"attributes\":{{\"name\":\"{user}\",\"pwd\":\"'$(cat {folder}/apic-password)'\"}}}}}}' https://{apic}/api/aaaLogin.json
  curl --cacert {folder}/apic-ca.pem -b {folder}/cookies https://{apic}/api/class/l3extSubnet.json
  curl --cacert {folder}/apic-ca.pem https://{apic}/lab/journal
  curl --cacert {folder}/kube-ca.pem --cert {folder}/kube-client.crt --key {folder}/kube-client.key {kube}/api/v1/pods
",
            all = self.apic.apic(),
            user = self.apic.username(),
        )
    }
}

impl Folder {
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(name), text)?;
        private(&self.0.join(name))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// A setting of `lab.env`.
    fn setting(&self, name: &str) -> io::Result<String> {
        let text = self.read("lab.env")?;
        let value = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        value
            .map(|it| it.trim_matches('\'').to_owned())
            .ok_or_else(|| io::Error::other(format!("lab.env has no {name}")))
    }

    /// Asks the first controller that answers, as the administrator. The session is kept for the next time.
    pub fn apic(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let mut last = io::Error::other("there is no controller");
        for address in self.setting("ACI_APIC")?.split(',') {
            match self.apic_at(address, method, target, body) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn apic_at(&self, address: &str, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let client = Client::new(address, self.read("apic-ca.pem")?.as_bytes(), None)?;
        let file = "apic-token";
        // A token is good at the controller that gave it.
        let kept = self.read(file).unwrap_or_default();
        if let Some(token) = kept.strip_prefix(&format!("{address} ")) {
            let answer = client.send(method, target, &[("Cookie", &format!("APIC-cookie={token}"))], body)?;
            let is_void = answer.status == 401 || (answer.status == 403 && answer.body.contains("Token was invalid"));
            if !is_void {
                return Ok(answer);
            }
        }
        let user = json!({"name": self.setting("ACI_USERNAME")?, "pwd": self.read("apic-password")?});
        let login = json!({"aaaUser": {"attributes": user}}).to_string();
        let welcome = client.send("POST", "/api/aaaLogin.json", &[], &login)?;
        let welcome: Value = serde_json::from_str(&welcome.body)?;
        let token = welcome["imdata"][0]["aaaLogin"]["attributes"]["token"].as_str().unwrap_or_default();
        self.write(file, &format!("{address} {token}"))?;
        client.send(method, target, &[("Cookie", &format!("APIC-cookie={token}"))], body)
    }

    /// Asks the API server as its administrator. A PATCH is a merge patch.
    pub fn kube(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let url = self.setting("LAB_KUBE")?;
        let address = url.trim_start_matches("https://");
        let (certificate, key) = (self.read("kube-client.crt")?, self.read("kube-client.key")?);
        let own = Some((certificate.as_bytes(), key.as_bytes()));
        let client = Client::new(address, self.read("kube-ca.pem")?.as_bytes(), own)?;
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        client.send(method, target, &[("Content-Type", kind), ("Accept", "application/json")], body)
    }

    /// A table of the EPGs and subnets below a DN.
    pub fn fabric(&self, dn: &str) -> io::Result<String> {
        let target = format!("/api/mo/{dn}.json?query-target=subtree&target-subtree-class=l3extInstP,l3extSubnet");
        let answer = self.apic("GET", &target, "")?;
        let answer: Value = serde_json::from_str(&answer.body)?;
        let of = |object: &Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let mut rows = vec![("SUBNET".to_owned(), "SCOPE".to_owned(), "NAME".to_owned())];
        let mut epgs: Vec<(String, Vec<usize>)> = Vec::new();
        for object in answer["imdata"].as_array().into_iter().flatten() {
            let (epg, subnet) = (&object["l3extInstP"]["attributes"], &object["l3extSubnet"]["attributes"]);
            if epg.is_object() {
                epgs.push((of(epg, "dn"), Vec::new()));
            } else if let Some((_, subnets)) = epgs.last_mut() {
                subnets.push(rows.len());
                rows.push((of(subnet, "ip"), of(subnet, "scope"), of(subnet, "name")));
            }
        }
        if epgs.is_empty() {
            return Ok("(no external EPG)\n".to_owned());
        }
        let width = |column: fn(&(String, String, String)) -> &String| rows.iter().map(|it| column(it).len()).max();
        let (first, second) = (width(|it| &it.0).unwrap_or_default(), width(|it| &it.1).unwrap_or_default());
        let mut text = String::new();
        for (dn, subnets) in epgs {
            text += &format!("{dn}\n");
            for (ip, scope, name) in [0].iter().chain(&subnets).map(|at| &rows[*at]) {
                text += format!("  {ip:first$}  {scope:second$}  {name}").trim_end();
                text += "\n";
            }
        }
        Ok(text)
    }
}

/// A password lies in one of them.
fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
