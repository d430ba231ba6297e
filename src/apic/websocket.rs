//! The websocket of a session: how it is opened, and how it is read until it is lost.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, ClientRequestBuilder, HandshakeError, Message, WebSocket};

use super::controller::Controller;
use super::error::Error;
use crate::net::{CONNECT_TIMEOUT, DeadlineStream, Tls, TlsStream, dial};
use crate::secret::Secret;

/// A websocket without a whole message for this long is pinged. If there is none for as long again, it is lost.
const SILENCE: Duration = Duration::from_secs(30);

/// The largest message that is read, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// The most that may wait to be sent, in bytes: pings and pongs of at most 125 bytes each.
const MAX_BACKLOG: usize = 1 << 20;

/// An open websocket.
pub(super) struct EventSocket {
    socket: WebSocket<TlsStream<DeadlineStream>>,
    is_pinged: bool,
}

impl EventSocket {
    /// Opens `wss://CONTROLLER/socketTOKEN`. The path is a secret, as the cookie is: no error may show them.
    ///
    /// `connected` gets the TCP connection before anything is sent over it; its error ends the attempt.
    pub(super) fn open(
        tls: &Tls,
        controller: &Controller,
        path: &Secret,
        cookie: &Secret,
        connected: &dyn Fn(&Arc<TcpStream>) -> Result<(), Error>,
    ) -> Result<EventSocket, Error> {
        let (stream, address) = dial(&controller.host, controller.port).map_err(unreachable)?;
        // A small frame must not wait for the next one.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        connected(&stream)?;
        let tls_stream = tls
            .connect(&controller.host, DeadlineStream::new(stream, CONNECT_TIMEOUT))
            .map_err(|error| unreachable(tls.explain(error, &controller.host, address).to_string()))?;

        let uri = format!("wss://{}{}", controller.authority(), path.expose());
        let uri = uri.parse().map_err(|_| unreachable("the token does not fit into a path".to_owned()))?;
        let request = ClientRequestBuilder::new(uri).with_header("Cookie", cookie.expose());
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .max_write_buffer_size(MAX_BACKLOG)
            .read_buffer_size(16 * 1024);
        match client_with_config(request, tls_stream, Some(config)) {
            Ok((socket, _)) => Ok(EventSocket { socket, is_pinged: false }),
            Err(HandshakeError::Failure(error)) => Err(handshake_error(&error)),
            Err(HandshakeError::Interrupted(_)) => Err(unreachable("no answer in time".to_owned())),
        }
    }

    /// Waits for the next message. Nothing if something else came, or if silence led to a ping. The error is the reason
    /// for which the websocket is lost.
    pub(super) fn read(&mut self) -> Result<Option<Bytes>, String> {
        // The deadline is for a whole message: one that trickles in is silence too.
        self.extend_deadline();
        let message = match self.socket.read() {
            Ok(Message::Close(_)) => return Err("closed by the APIC".to_owned()),
            Ok(message) => message,
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => return self.ping().map(|()| None),
            Err(error) => return Err(describe(&error)),
        };
        self.is_pinged = false;
        match message {
            Message::Text(_) | Message::Binary(_) => Ok(Some(message.into_data())),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(None),
        }
    }

    fn ping(&mut self) -> Result<(), String> {
        if self.is_pinged {
            return Err("the APIC did not answer a ping".to_owned());
        }
        self.is_pinged = true;
        self.extend_deadline();
        self.socket.send(Message::Ping(Bytes::new())).map_err(|error| describe(&error))
    }

    fn extend_deadline(&mut self) {
        self.socket.get_mut().get_mut().extend(SILENCE);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn unreachable(reason: String) -> Error {
    Error::Unreachable(format!("websocket: {reason}"))
}

/// The decision that a refused handshake calls for: the HTTP status says whether the session is still good.
fn handshake_error(error: &tungstenite::Error) -> Error {
    let reason = format!("websocket: {}", describe(error));
    match error {
        tungstenite::Error::Http(response) => match response.status().as_u16() {
            401 | 403 => Error::Unauthorized(reason),
            429 | 503 => Error::Busy(reason),
            _ => Error::Unreachable(reason),
        },
        _ => Error::Unreachable(reason),
    }
}

/// Describes an error. Only kinds that hold nothing of the request are shown as they are.
fn describe(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Http(response) => format!("the APIC answers HTTP {}", response.status().as_u16()),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => "closed".to_owned(),
        tungstenite::Error::Protocol(error) => error.to_string(),
        tungstenite::Error::Capacity(_) => "a message is too large".to_owned(),
        tungstenite::Error::Utf8(_) => "a message is not UTF-8".to_owned(),
        _ => "an error of the websocket".to_owned(),
    }
}
