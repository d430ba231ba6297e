//! What the threads of the APIC side share: the session, its socket, and the wish for a new one.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ureq::Agent;

use super::client::Client;

/// A handle on the session for those who do not make it.
#[derive(Clone, Default)]
pub struct SessionHandle(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    client: Option<Client>,
    login: Option<Agent>,
    socket: Weak<TcpStream>,
    request: Option<Request>,
}

/// Somebody's wish for a new session.
pub(super) struct Request {
    pub(super) why: String,
    /// The APIC refused the session: the next login must not come too soon (W8).
    pub(super) refused: bool,
}

impl SessionHandle {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, while there is one.
    pub fn current(&self) -> Option<Client> {
        self.shared().client.clone()
    }

    /// The APIC does not accept this session any more: log in again, at most once a minute after the first time (W8).
    pub fn relogin(&self, client: &Client, why: &str) {
        self.request(client, why, true);
    }

    /// The controller of this session does not answer, or the session has had its time: make one at the next
    /// controller (A1).
    pub fn reconnect(&self, client: &Client, why: &str) {
        self.request(client, why, false);
    }

    /// A complaint about a session that was replaced meanwhile is late, and its successor is left alone.
    fn request(&self, client: &Client, why: &str, refused: bool) {
        let mut shared = self.shared();
        if shared.client.as_ref().is_some_and(|it| it.is(client)) {
            shared.request.get_or_insert(Request { why: why.to_owned(), refused });
            close(&shared.socket);
        }
    }

    /// Ends the websocket and a login in flight, because the program stops or leads no more.
    pub fn stop(&self) {
        let mut shared = self.shared();
        close(&shared.socket);
        if let Some(agent) = shared.login.take() {
            agent.shutdown();
        }
    }

    /// This process leads no more (K4): the session ends at once, with whatever is in flight.
    pub fn close_on_lost_leadership(&self, why: &str) {
        let mut shared = self.shared();
        if let Some(client) = &shared.client {
            client.shutdown();
            shared.request = Some(Request { why: why.to_owned(), refused: false });
        }
        drop(shared);
        self.stop();
    }

    /// The agent of a login in flight, which nobody else knows yet; nothing when it is over.
    pub(super) fn set_login(&self, agent: Option<Agent>) {
        self.shared().login = agent;
    }

    pub(super) fn set_client(&self, client: Option<Client>) {
        self.shared().client = client;
    }

    pub(super) fn set_socket(&self, socket: &Arc<TcpStream>) {
        self.shared().socket = Arc::downgrade(socket);
    }

    pub(super) fn take_request(&self) -> Option<Request> {
        self.shared().request.take()
    }

    /// Wishes that concern an older session.
    pub(super) fn clear_request(&self) {
        self.shared().request = None;
    }
}

/// Ends reads that are blocked on a socket. It may be gone already; then there is nothing to end.
fn close(socket: &Weak<TcpStream>) {
    if let Some(socket) = socket.upgrade() {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::client::tests::session;

    /// W8: a complaint about a session that is gone neither ends its successor nor costs a login.
    #[test]
    fn a_late_complaint_ends_no_new_session() {
        let link = SessionHandle::default();
        let (old, new) = (session(), session());
        link.relogin(&old, "there is no session");
        assert!(link.take_request().is_none());
        link.set_client(Some(new.clone()));
        link.relogin(&old, "403");
        link.reconnect(&old, "silence");
        assert!(link.take_request().is_none());
        link.relogin(&new.clone(), "403");
        link.reconnect(&new, "silence");
        let request = link.take_request().unwrap();
        assert_eq!((request.why.as_str(), request.refused), ("403", true), "the first reason counts");
    }
}
