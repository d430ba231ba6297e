//! The websocket of a session: what is announced goes out, what comes in is only listened to for pings and the end.
//!
//! One thread reads and one writes, on one TLS stream behind a lock. The reader waits for bytes by peeking at the
//! TCP socket below, so that neither of them holds the lock while there is nothing to do, and there is no polling.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Error, Message, WebSocket};

use super::cluster::Cluster;
use super::session::Outgoing;
use crate::net::{Connection, Request, Stream};

/// A client that does not read for so long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Whether a request wants to become a websocket.
pub fn is_upgrade(request: &Request) -> bool {
    let upgrade = request.header("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
    upgrade && request.target.starts_with("/socket")
}

/// Serves a websocket until one side ends it. The session was checked; an error ends the connection.
pub(super) fn serve(
    cluster: &Cluster,
    controller: usize,
    session: u64,
    request: &Request,
    connection: &mut Connection,
) -> io::Result<()> {
    let key = request.header("sec-websocket-key").ok_or(ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.as_bytes());
    let (stream, rest) = connection.upgrade();
    let tcp = stream.get_ref().try_clone()?;
    tcp.set_write_timeout(Some(WRITE_LIMIT))?;
    let (outgoing, messages) = channel();
    // Open before the client knows it, so that its first subscription finds it.
    let id = cluster.change(|state| state.sessions.open(session, controller, outgoing));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let greeted = stream.write_all(head.as_bytes()).and_then(|()| stream.flush());
    let socket = Mutex::new(WebSocket::from_partially_read(stream, rest, Role::Server, None));
    thread::scope(|scope| {
        scope.spawn(|| write(&socket, &tcp, messages));
        if greeted.is_ok() {
            read(cluster, &socket, &tcp);
        }
        // Ends the writer.
        cluster.change(|state| state.sessions.close(id));
    });
    Err(ErrorKind::ConnectionAborted.into())
}

type Shared<'a> = Mutex<WebSocket<&'a mut Stream>>;

fn lock<'a, 's>(socket: &'a Shared<'s>) -> MutexGuard<'a, WebSocket<&'s mut Stream>> {
    socket.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write(socket: &Shared<'_>, tcp: &TcpStream, messages: Receiver<Outgoing>) {
    for message in messages {
        let sent = match message {
            Outgoing::Text(text) => lock(socket).send(Message::text(text)),
            Outgoing::Bytes(bytes) => lock(socket).get_mut().write_all(&bytes).map_err(Error::from),
            Outgoing::Close => {
                let mut socket = lock(socket);
                let _ = socket.close(None);
                let _ = socket.flush();
                break;
            }
        };
        if sent.is_err() {
            break;
        }
    }
    // Ends the reader.
    let _ = tcp.shutdown(Shutdown::Both);
}

fn read(cluster: &Cluster, socket: &Shared<'_>, tcp: &TcpStream) {
    while take_in(socket, tcp).is_ok() {
        if !matches!(tcp.peek(&mut [0]), Ok(1..)) {
            return;
        }
        // Deaf: what has arrived is not even looked at, pings included.
        while !cluster.wait_while(Duration::from_secs(3600), |state| state.deaf && !state.stopped) {}
    }
}

/// Reads whatever is there. Without waiting, so that the lock is free again at once.
fn take_in(socket: &Shared<'_>, tcp: &TcpStream) -> Result<(), Error> {
    let mut socket = lock(socket);
    tcp.set_nonblocking(true)?;
    let end = loop {
        match socket.read() {
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    tcp.set_nonblocking(false)?;
    end
}
