//! What systemd is told (sd_notify(3)): that the program is up, how it stands, and that its loop turns. Where nobody
//! listens nobody is told.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};

use log::debug;

/// How the program stands, in a few words for `systemctl status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The API server has not told everything, or cannot be reached.
    WaitingForKubernetes,
    /// No session at an APIC.
    WaitingForApic,
    /// It does not lead (K4).
    Standby,
    /// Nothing was compared yet in this session.
    FirstSync,
    /// Events may have been lost, or a list was read anew: what that leads to is not done yet.
    Syncing,
    /// The last reconcile left nothing to do; there are so many findings.
    InSync(usize),
    /// The last reconcile left what it cannot do: so many findings need somebody.
    NeedsAttention(usize),
    /// The last reconcile left what the policy `observe` keeps from being done.
    Observing,
    /// The last reconcile left something that the next one may be able to do.
    Retrying,
    /// The loop has not turned for a while.
    WaitingForAnswer,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::WaitingForKubernetes => f.write_str("waiting for Kubernetes"),
            Status::WaitingForApic => f.write_str("waiting for the APIC"),
            Status::Standby => f.write_str("standby: it does not hold the Lease"),
            Status::FirstSync => f.write_str("first comparison"),
            Status::Syncing => f.write_str("comparing"),
            Status::InSync(0) => f.write_str("in step"),
            Status::InSync(findings) => write!(f, "in step; findings in the log: {findings}"),
            Status::NeedsAttention(findings) => write!(f, "not in step; findings that need somebody: {findings}"),
            Status::Observing => f.write_str("observing: there is something to change"),
            Status::WaitingForAnswer => f.write_str("waiting for an answer of the APIC"),
            Status::Retrying => f.write_str("behind: what is left is tried again"),
        }
    }
}

/// The service manager's socket, if there is one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How it stood when that was last told.
    told: Mutex<Option<Status>>,
}

impl ServiceManager {
    /// The manager behind `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub fn at(socket: Option<&OsStr>) -> io::Result<ServiceManager> {
        let Some(name) = socket.map(OsStr::as_bytes).filter(|it| !it.is_empty()) else {
            return Ok(ServiceManager::default());
        };
        let address = match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold anybody up.
        socket.set_nonblocking(true)?;
        Ok(ServiceManager(Some(Arc::new(Inner { socket, address, told: Mutex::default() }))))
    }

    /// The configuration is valid, and all threads run.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// How it stands. It is told where it is new, or was not taken the last time.
    pub fn set_status(&self, status: Status) {
        let Some(inner) = &self.0 else { return };
        let mut told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(status) && self.tell(&format!("STATUS={status}")) {
            *told = Some(status);
        }
    }

    /// The reconciler's loop turns: the watchdog waits anew. That it is ready is said again, which changes nothing, but
    /// for a manager who was too busy to take it the first time.
    pub fn watchdog_ping(&self) {
        self.tell("READY=1\nWATCHDOG=1");
    }

    /// It stops.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// False where the manager's queue is full: it may take it later.
    fn tell(&self, what: &str) -> bool {
        let Some(Inner { socket, address, .. }) = self.0.as_deref() else { return true };
        let Err(error) = socket.send_to_addr(what.as_bytes(), address) else { return true };
        debug!("systemd cannot be told {what:?}: {error}");
        error.kind() != io::ErrorKind::WouldBlock
    }
}
