//! Connections of our own: what is sent and read on them, [`Pipe`](super::pipe::Pipe) does.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::SockRef;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisResult,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};

use super::node::tcp_settings;
use crate::backend::BoxFuture;

/// Bytes to and from a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Connects and logs in; `None` if the connection is to be encrypted, which is left to the client.
pub(super) async fn open(info: &ConnectionInfo) -> RedisResult<Option<Box<dyn Stream>>> {
    let stream: Box<dyn Stream> = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Box::new(by_tcp(host, *port).await?),
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        _ => return Ok(None),
    };
    log_in(info.redis_settings(), stream).await.map(Some)
}

/// Whichever of the server's addresses is the first to answer.
async fn by_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let connect = |address| Box::pin(TcpStream::connect(address)) as BoxFuture<'_, _>;
    let mut connecting: Vec<_> = lookup_host((host, port)).await?.map(connect).collect();
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut failed = Err(nowhere());
    let stream: TcpStream = poll_fn(|context| {
        let mut connected = None;
        connecting.retain_mut(|connecting| match connecting.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(stream)) => {
                connected = Some(stream);
                false
            }
            Poll::Ready(Err(error)) => {
                failed = Err(error);
                false
            }
        });
        match connected {
            Some(stream) => Poll::Ready(Ok(stream)),
            None if connecting.is_empty() => {
                Poll::Ready(std::mem::replace(&mut failed, Err(nowhere())))
            }
            None => Poll::Pending,
        }
    })
    .await?;
    let settings = tcp_settings();
    stream.set_nodelay(settings.nodelay())?;
    let socket = SockRef::from(&stream);
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(stream)
}

/// Who we are, the database and the version of the protocol: the client knows how to say so.
async fn log_in(
    settings: &RedisConnectionInfo,
    stream: Box<dyn Stream>,
) -> RedisResult<Box<dyn Stream>> {
    let ours = Arc::new(Mutex::new(stream));
    let config = AsyncConnectionConfig::new();
    let lent = Lent(Arc::clone(&ours));
    // Nothing of it is left then: everything that was asked has been answered.
    drop(MultiplexedConnection::new_with_config(settings, lent, config).await?);
    let stream = Arc::into_inner(ours).expect("the client has just been dropped, with its stream");
    Ok(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A stream that comes back.
struct Lent(Arc<Mutex<Box<dyn Stream>>>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Box<dyn Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(context)
    }
}
