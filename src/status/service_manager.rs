//! What the service manager hears (sd_notify(3)): that the program is up, its state, and that its loop makes progress. Without
//! a service manager nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};

use log::debug;

use super::State;

/// The service manager's socket, if there is one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The state that was sent last.
    sent: Mutex<Option<State>>,
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
        // A manager that does not read must not hold up the event loop.
        socket.set_nonblocking(true)?;
        Ok(ServiceManager(Some(Arc::new(Inner { socket, address, sent: Mutex::default() }))))
    }

    /// The configuration is valid, and all threads run.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The state, which is sent if it is new or was not accepted the last time.
    pub fn set_state(&self, state: State) {
        let Some(inner) = &self.0 else { return };
        let mut sent = inner.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if *sent != Some(state) && self.send(&format!("STATUS={state}")) {
            *sent = Some(state);
        }
    }

    /// The event loop makes progress: the watchdog starts over. `READY=1` is sent again, which changes nothing, except for
    /// a manager that was too busy to accept it the first time.
    pub fn watchdog_ping(&self) {
        self.send("READY=1\nWATCHDOG=1");
    }

    /// The program shuts down.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// False if the manager's queue is full: it may accept the message later.
    fn send(&self, message: &str) -> bool {
        let Some(Inner { socket, address, .. }) = self.0.as_deref() else { return true };
        let Err(error) = socket.send_to_addr(message.as_bytes(), address) else { return true };
        debug!(error:%; "failed to notify systemd");
        error.kind() != io::ErrorKind::WouldBlock
    }
}
