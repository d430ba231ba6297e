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
pub enum Standing {
    /// The API server has not told everything, or cannot be reached.
    WaitsForKubernetes,
    /// No session at an APIC.
    WaitsForApic,
    /// It does not lead (K4).
    Standby,
    /// Nothing was compared yet in this session.
    FirstSync,
    /// Events may have been lost, or a list was read anew: what that leads to is not done yet.
    Syncing,
    /// The last reconcile left nothing to do; there are so many findings.
    InStep(usize),
    /// The last reconcile left what it cannot do: so many findings need somebody.
    NeedsSomebody(usize),
    /// The last reconcile left what the policy `observe` keeps from being done.
    Observing,
    /// The last reconcile left something that the next one may be able to do.
    Behind,
    /// The loop has not turned for a while.
    Busy,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::WaitsForKubernetes => f.write_str("waiting for Kubernetes"),
            Standing::WaitsForApic => f.write_str("waiting for the APIC"),
            Standing::Standby => f.write_str("standby: it does not hold the Lease"),
            Standing::FirstSync => f.write_str("first comparison"),
            Standing::Syncing => f.write_str("comparing"),
            Standing::InStep(0) => f.write_str("in step"),
            Standing::InStep(findings) => write!(f, "in step; findings in the log: {findings}"),
            Standing::NeedsSomebody(findings) => write!(f, "not in step; findings that need somebody: {findings}"),
            Standing::Observing => f.write_str("observing: there is something to change"),
            Standing::Busy => f.write_str("waiting for an answer of the APIC"),
            Standing::Behind => f.write_str("behind: what is left is tried again"),
        }
    }
}

/// The service manager's socket, if there is one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Manager(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How it stood when that was last told.
    told: Mutex<Option<Standing>>,
}

impl Manager {
    /// The manager behind `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub fn at(socket: Option<&OsStr>) -> io::Result<Manager> {
        let Some(name) = socket.map(OsStr::as_bytes).filter(|it| !it.is_empty()) else { return Ok(Manager::default()) };
        let address = match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold anybody up.
        socket.set_nonblocking(true)?;
        Ok(Manager(Some(Arc::new(Inner { socket, address, told: Mutex::default() }))))
    }

    /// The configuration is valid, and all threads run.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// How it stands. It is told where it is new, or was not taken the last time.
    pub fn stands(&self, standing: Standing) {
        let Some(inner) = &self.0 else { return };
        let mut told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(standing) && self.tell(&format!("STATUS={standing}")) {
            *told = Some(standing);
        }
    }

    /// The reconciler's loop turns: the watchdog waits anew. That it is ready is said again, which changes nothing, but
    /// for a manager who was too busy to take it the first time.
    pub fn turns(&self) {
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
