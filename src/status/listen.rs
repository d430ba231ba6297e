//! Where the status server listens (`--listen`): addresses, and sockets that are bound to them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::net::{Socket, dial};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A host name or an address, and a port.
    Tcp(String, u16),
    /// A socket file.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Reads `HOST:PORT`, `[v6]:PORT`, `:PORT` (all addresses) or `unix:/PATH`.
    pub fn parse(text: &str) -> Result<ListenAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_valid = path.starts_with('/') && path.len() < 108;
            let path = is_valid.then(|| ListenAddress::Unix(path.into()));
            return path.ok_or_else(|| format!("{text:?} is not unix: and an absolute path of at most 107 bytes"));
        }
        let invalid = || format!("{text:?} is not HOST:PORT, [v6]:PORT, :PORT or unix:/PATH");
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(invalid)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| invalid())?.to_string(),
            None if host.contains([':', '/', '[', ']', ' ']) => return Err(invalid()),
            None if host.is_empty() => "::".to_owned(),
            None => host.to_owned(),
        };
        Ok(ListenAddress::Tcp(host, port))
    }

    /// Binds. A leftover socket file is replaced if no process serves it.
    pub fn bind(&self) -> io::Result<Listener> {
        match self {
            ListenAddress::Tcp(host, port) => match TcpListener::bind((host.as_str(), *port)) {
                // A machine without IPv6.
                Err(_) if host == "::" => TcpListener::bind(("0.0.0.0", *port)).map(Listener::Tcp),
                bound => bound.map(Listener::Tcp),
            },
            ListenAddress::Unix(path) => {
                refuse_shared_folder(path)?;
                let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
                if is_socket {
                    if UnixStream::connect(path).is_ok() {
                        return Err(io::Error::new(ErrorKind::AddrInUse, "another process serves this socket"));
                    }
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                // The folder decides who may connect.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }

    /// Connects to a server, for the commands that ask it.
    pub fn connect(&self) -> io::Result<Arc<dyn Socket>> {
        match self {
            ListenAddress::Unix(path) => Ok(Arc::new(UnixStream::connect(path)?)),
            ListenAddress::Tcp(host, port) => {
                let dialed = match host.as_str() {
                    // All addresses. The name localhost is unknown in a container without /etc/hosts.
                    "::" => dial("127.0.0.1", *port).or_else(|_| dial("::1", *port)),
                    host => dial(host, *port),
                };
                let (stream, _) = dialed.map_err(io::Error::other)?;
                Ok(Arc::new(stream))
            }
        }
    }
}

/// In a folder that every user may write and clean up, another user could replace the socket by a link to any file, whose
/// permissions would then be changed.
fn refuse_shared_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mode = std::fs::metadata(folder)?.permissions().mode();
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(io::Error::other("other users may write its folder"));
    }
    Ok(())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            ListenAddress::Tcp(host, port) => write!(f, "{host}:{port}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a socket file, which is removed when this is dropped.
    Unix(UnixListener, PathBuf),
}

/// A client.
pub struct Accepted {
    /// Its connection.
    pub socket: Arc<dyn Socket>,
    /// Its address, on TCP.
    pub peer: Option<IpAddr>,
}

impl Listener {
    /// Waits for the next client.
    pub fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                Ok(Accepted { socket: Arc::new(socket), peer: Some(peer.ip().to_canonical()) })
            }
            Listener::Unix(listener, _) => {
                let (socket, _) = listener.accept()?;
                Ok(Accepted { socket: Arc::new(socket), peer: None })
            }
        }
    }

    /// Whether only processes of this machine can reach it over TCP: then the `Host` of a request is checked, because a
    /// browser of this machine can be led here by a name (DNS rebinding).
    pub fn is_loopback(&self) -> bool {
        let Listener::Tcp(listener) = self else { return false };
        listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Ends [`Listener::accept`], now and later.
    pub fn close(&self) {
        let _ = match self {
            Listener::Tcp(listener) => rustix::net::shutdown(listener, rustix::net::Shutdown::Read),
            Listener::Unix(listener, _) => rustix::net::shutdown(listener, rustix::net::Shutdown::Read),
        };
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T1: the forms of `--listen`.
    #[test]
    fn addresses_are_parsed() {
        for (text, shown) in [
            ("127.0.0.1:9847", "127.0.0.1:9847"),
            ("localhost:1", "localhost:1"),
            (":9847", "[::]:9847"),
            ("[::1]:9847", "[::1]:9847"),
            ("unix:/run/aci-sync/aci-sync.sock", "unix:/run/aci-sync/aci-sync.sock"),
        ] {
            assert_eq!(ListenAddress::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in
            ["", "9847", "host", "host:0", "host:65536", "host:x", "[::1:9847", "::1:9847", "a/b:1", "unix:x", "unix:"]
        {
            assert!(ListenAddress::parse(text).is_err(), "{text}");
        }
    }

    /// T5: a daemon on all addresses is asked on a loopback address, of either kind.
    #[test]
    fn all_addresses_are_reached_by_loopback() {
        for bound in ["127.0.0.1", "::1", "::"] {
            // A machine without IPv6.
            let Ok(listener) = TcpListener::bind((bound, 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(ListenAddress::parse(&format!(":{port}")).unwrap().connect().is_ok(), "{bound}");
        }
    }
}
