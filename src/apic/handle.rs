//! What the threads share of the current session, so that others than the session manager can end it.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ureq::Agent;

use super::client::Client;

/// A handle on the current session. Clones share it.
#[derive(Clone, Default)]
pub struct SessionHandle(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    client: Option<Client>,
    /// The agent of a login in flight.
    login: Option<Agent>,
    /// The TCP connection of the websocket.
    socket: Weak<TcpStream>,
    request: Option<NewSession>,
}

/// A request for a new session in place of the current one.
pub(super) struct NewSession {
    pub(super) reason: String,
    /// The APIC refused the session: the next login must not come too soon (W8).
    pub(super) is_refused: bool,
}

impl SessionHandle {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current session.
    pub fn current(&self) -> Option<Client> {
        self.shared().client.clone()
    }

    /// The APIC does not accept this session any more: logs in again, at most once a minute after the first time (W8).
    pub fn relogin(&self, client: &Client, reason: &str) {
        self.request(client, NewSession { reason: reason.to_owned(), is_refused: true });
    }

    /// The controller of this session does not answer, or the session reached its maximum lifetime: makes a new one at the
    /// next controller (A1).
    pub fn reconnect(&self, client: &Client, reason: &str) {
        self.request(client, NewSession { reason: reason.to_owned(), is_refused: false });
    }

    /// A request about a session that was replaced meanwhile is ignored. The first reason counts.
    fn request(&self, client: &Client, request: NewSession) {
        let mut shared = self.shared();
        if shared.client.as_ref().is_some_and(|it| it.is(client)) {
            shared.request.get_or_insert(request);
            close(&shared.socket);
        }
    }

    /// Ends the websocket and a login in flight, because the program is stopping or leadership is lost.
    pub fn stop(&self) {
        let mut shared = self.shared();
        close(&shared.socket);
        if let Some(agent) = shared.login.take() {
            agent.shutdown();
        }
    }

    /// Leadership is lost (K4): ends the session at once, with the requests in flight.
    pub fn close_on_lost_leadership(&self, reason: &str) {
        let mut shared = self.shared();
        if let Some(client) = &shared.client {
            client.shutdown();
            shared.request = Some(NewSession { reason: reason.to_owned(), is_refused: false });
        }
        drop(shared);
        self.stop();
    }

    /// The agent of a login in flight, which has no session yet; `None` when it is over.
    pub(super) fn set_login(&self, agent: Option<Agent>) {
        self.shared().login = agent;
    }

    pub(super) fn set_client(&self, client: Option<Client>) {
        self.shared().client = client;
    }

    pub(super) fn set_socket(&self, socket: &Arc<TcpStream>) {
        self.shared().socket = Arc::downgrade(socket);
    }

    pub(super) fn take_request(&self) -> Option<NewSession> {
        self.shared().request.take()
    }

    /// Drops a request that was about an older session.
    pub(super) fn clear_request(&self) {
        self.shared().request = None;
    }
}

/// Ends reads that are blocked on a socket, unless it is gone already.
fn close(socket: &Weak<TcpStream>) {
    if let Some(socket) = socket.upgrade() {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::client::tests::session;

    /// W8: a request about a session that is gone neither ends its successor nor costs a login.
    #[test]
    fn a_late_request_ends_no_new_session() {
        let handle = SessionHandle::default();
        let (old, new) = (session(), session());
        handle.relogin(&old, "there is no session");
        assert!(handle.take_request().is_none());
        handle.set_client(Some(new.clone()));
        handle.relogin(&old, "403");
        handle.reconnect(&old, "silence");
        assert!(handle.take_request().is_none());
        handle.relogin(&new.clone(), "403");
        handle.reconnect(&new, "silence");
        let request = handle.take_request().unwrap();
        assert_eq!((request.reason.as_str(), request.is_refused), ("403", true), "the first reason counts");
    }
}
