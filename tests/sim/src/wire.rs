//! A TCP relay in front of a server, for trouble below TLS: a peer that falls silent without an end of the connection,
//! bytes that drip within a TLS record. The meaning of the bytes does not matter here.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How bytes flow from the server to the client. What the client sends always gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// As they come.
    Free,
    /// Not at all; the end of the connection does not get through either.
    Mute,
    /// One at a time, with this pause before each.
    Drip(Duration),
}

struct State {
    flow: Mutex<Flow>,
    changed: Condvar,
    /// Every socket there ever was; nothing once the relay has stopped.
    sockets: Mutex<Option<Vec<TcpStream>>>,
}

/// A running relay. It stops when it is dropped.
pub struct Wire {
    address: SocketAddr,
    state: Arc<State>,
}

impl Wire {
    /// A relay to a server, on a port of its own.
    pub fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            State { flow: Mutex::new(Flow::Free), changed: Condvar::new(), sockets: Mutex::new(Some(Vec::new())) };
        let state = Arc::new(state);
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let pair = || Some([client.try_clone().ok()?, server.try_clone().ok()?]);
                match (&mut *shared.sockets.lock().unwrap(), pair()) {
                    (Some(sockets), Some(pair)) => sockets.extend(pair),
                    _ => return,
                }
                let (Ok(back), Ok(forth)) = (client.try_clone(), server.try_clone()) else { continue };
                let shared = shared.clone();
                std::thread::spawn(move || relay(client, server, None));
                std::thread::spawn(move || relay(forth, back, Some(&shared)));
            }
        });
        Wire { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the flow, on open connections too.
    pub fn set(&self, flow: Flow) {
        *self.state.flow.lock().unwrap() = flow;
        self.state.changed.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for socket in self.state.sockets.lock().unwrap().take().unwrap_or_default() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.set(Flow::Free);
        // One more connection wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// Copies until either side ends.
fn relay(mut from: TcpStream, mut to: TcpStream, shaped: Option<&State>) {
    let mut bytes = [0; 16 * 1024];
    'copying: while let Ok(read) = from.read(&mut bytes) {
        let mut left = bytes.get(..read).unwrap_or_default();
        while let Some(state) = shaped {
            let flow = state.flow.lock().unwrap();
            match *flow {
                Flow::Free => break,
                Flow::Mute => drop(state.changed.wait(flow).unwrap()),
                Flow::Drip(pause) => {
                    let Some((byte, rest)) = left.split_first() else { break };
                    // A changed flow ends the pause early, which does no harm.
                    drop(state.changed.wait_timeout(flow, pause).unwrap());
                    if to.write_all(&[*byte]).is_err() {
                        break 'copying;
                    }
                    left = rest;
                }
            }
        }
        if read == 0 || to.write_all(left).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
