//! A shared stream with a deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

/// The time limit for a connection, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected socket that several threads may use.
pub trait Socket: Send + Sync + 'static {
    /// Reads, for `timeout` at most.
    fn read_within(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize>;
    /// Writes, for `timeout` at most.
    fn write_within(&self, buffer: &[u8], timeout: Duration) -> io::Result<usize>;
    /// Ends all reads and writes.
    fn close(&self);
}

impl<S: AsFd + Send + Sync + 'static> Socket for S
where
    for<'a> &'a S: Read + Write,
{
    fn read_within(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        set_socket_timeout(self, Timeout::Recv, Some(timeout))?;
        (&*self).read(buffer)
    }

    fn write_within(&self, buffer: &[u8], timeout: Duration) -> io::Result<usize> {
        set_socket_timeout(self, Timeout::Send, Some(timeout))?;
        (&*self).write(buffer)
    }

    fn close(&self) {
        let _ = shutdown(self, Shutdown::Both);
    }
}

/// A stream with a deadline for all reads and writes together; a timeout of the socket starts over with each byte.
#[derive(Debug)]
pub struct DeadlineStream<S: ?Sized = TcpStream> {
    stream: Arc<S>,
    deadline: Instant,
}

impl<S: Socket + ?Sized> DeadlineStream<S> {
    /// The deadline is `timeout` from now.
    pub fn new(stream: Arc<S>, timeout: Duration) -> DeadlineStream<S> {
        DeadlineStream { stream, deadline: Instant::now() + timeout }
    }

    /// Moves the deadline to `timeout` from now.
    pub fn extend(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // The socket's own error on a timeout; the only one after which OpenSSL lets reading go on.
        if left.is_zero() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(left) }
    }
}

impl<S: Socket + ?Sized> Read for DeadlineStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read_within(buffer, self.left()?) {
                // OpenSSL takes a read that a signal interrupted for the end of the connection.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl<S: Socket + ?Sized> Write for DeadlineStream<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write_within(buffer, self.left()?)
    }

    /// Sockets buffer nothing here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// F4: a peer that sends single bytes, each well in time, does not hold up a read forever.
    #[test]
    fn drips_do_not_extend_a_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (mut peer, _) = listener.accept().unwrap();
        let drip = std::thread::spawn(move || {
            while peer.write_all(b"x").is_ok() {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        let mut limited = DeadlineStream::new(stream.clone(), Duration::from_millis(200));
        let end = limited.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(limited.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it stays over");
        limited.extend(Duration::from_secs(60));
        assert_eq!(limited.read(&mut [0]).unwrap(), 1, "until there is more time");
        stream.close();
        drop((limited, stream));
        drip.join().unwrap();
    }
}
