//! A TCP stream that several own, whose reads and writes end in time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A stream with a deadline for all that is done with it, however many bytes come until then: a timeout of the socket
/// alone begins anew with each byte.
#[derive(Debug)]
pub struct DeadlineStream {
    stream: Arc<TcpStream>,
    deadline: Instant,
}

impl DeadlineStream {
    /// What is done with it has so long.
    pub fn new(stream: Arc<TcpStream>, timeout: Duration) -> DeadlineStream {
        DeadlineStream { stream, deadline: Instant::now() + timeout }
    }

    /// From now on there is so long.
    pub fn extend(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // What the socket itself says; to OpenSSL it is the one error after which reading may go on.
        if left.is_zero() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(Some(left)) }
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.left()?)?;
            match (&*self.stream).read(buffer) {
                // OpenSSL takes a read that a signal interrupted for the end of the connection.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        (&*self.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.stream).flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// F4: a peer that sends one byte after another, each well in time, does not hold a read up for ever.
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
        let mut sock = DeadlineStream::new(stream.clone(), Duration::from_millis(200));
        let end = sock.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(sock.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it stays over");
        sock.extend(Duration::from_secs(60));
        assert_eq!(sock.read(&mut [0]).unwrap(), 1, "until there is more time");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        drop((sock, stream));
        drip.join().unwrap();
    }
}
