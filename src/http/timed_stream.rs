//! Time limits on a connection: for the rest of a header, for the next request, and for the client to read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::limits::Limits;
use super::peers::Peer;

/// Adds time limits to a stream. [`Peer`] says which one counts: hyper's own header timer would cut idle connections
/// as early as slow headers.
pub(super) struct TimedStream<T> {
    stream: T,
    peer: Arc<Peer>,
    header: Duration,
    idle: Duration,
    read_timer: PhaseTimer,
    /// Runs while a write is pending.
    write_timer: Option<Pin<Box<Sleep>>>,
}

/// The time limit of one phase of a [`Peer`].
struct PhaseTimer {
    phase: u64,
    sleep: Pin<Box<Sleep>>,
}

impl<T> TimedStream<T> {
    pub(super) fn new(stream: T, peer: Arc<Peer>, limits: &Limits) -> TimedStream<T> {
        let (header, idle) = (limits.header, limits.idle);
        let read_timer = PhaseTimer { phase: peer.phase(), sleep: Box::pin(sleep(header)) };
        TimedStream { stream, peer, header, idle, read_timer, write_timer: None }
    }

    /// Fails once the time of the present phase is over.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.peer.phase();
        let timer = &mut self.read_timer;
        if timer.phase != phase {
            let limit = if Peer::in_header(phase) { self.header } else { self.idle };
            timer.sleep.as_mut().reset(Instant::now() + limit);
            timer.phase = phase;
        }
        ready!(timer.sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes a write's result on; fails if the client has not taken a byte for too long.
    fn timed_write<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let limit = self.header;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_silence(cx),
            ready => {
                if buf.filled().len() > before {
                    self.peer.received();
                }
                ready
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.timed_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.timed_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed_write(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::advance;

    use super::super::peers::Peers;
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(120);

    struct Connection {
        client: DuplexStream,
        server: TimedStream<DuplexStream>,
        peer: Arc<Peer>,
    }

    fn connection() -> Connection {
        let (client, server) = duplex(8);
        let peer = Arc::new(Peer::default());
        let limits = Limits { header: HEADER, idle: IDLE, ..Limits::default() };
        Connection { client, server: TimedStream::new(server, Arc::clone(&peer), &limits), peer }
    }

    /// How long a read of everything takes until it fails.
    async fn patience(server: &mut TimedStream<DuplexStream>) -> Duration {
        let begun = Instant::now();
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        begun.elapsed().div_duration_f64(Duration::from_secs(1)).floor() as u32
            * Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_drips_gets_no_more_time() {
        let Connection { mut client, mut server, .. } = connection();
        let drip = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(3)).await;
                if client.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        client_waits_for_first_byte(&mut server).await;
        assert_eq!(patience(&mut server).await, HEADER);
        drip.abort();
    }

    async fn client_waits_for_first_byte(server: &mut TimedStream<DuplexStream>) {
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_requests_is_borne_longer() {
        let Connection { mut client, mut server, peer } = connection();
        client.write_all(b"x").await.unwrap();
        client_waits_for_first_byte(&mut server).await;
        Peers::new(1).begin(&peer);
        assert_eq!(patience(&mut server).await, IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let Connection { client, mut server, .. } = connection();
        let written = tokio::spawn(async move { server.write_all(&[0; 100]).await });
        tokio::task::yield_now().await;
        advance(HEADER + Duration::from_secs(1)).await;
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
