use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of the loopback interface for a server that can neither choose one nor take a socket over,
/// and that has to get the same one when it is started again. As long as this lives nobody else gets
/// it, and nobody listens there but the server: until then whoever connects is refused.
///
/// A port that was free a moment ago is not reserved: another test, another run of the tests or any
/// connection that somebody makes may have it by now.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reserved: Vec<TcpSocket>,
}

/// How far above its own port the second one of a cluster's node is.
const SECOND: u16 = 10_000;

impl Port {
    /// One that nobody has, and whose second one, 10,000 above, nobody has either.
    pub(crate) fn reserve() -> Port {
        // Nearly all of them are such.
        let mut last = None;
        for _ in 0..1_000 {
            match Self::try_reserve() {
                Ok(port) => return port,
                Err(error) => last = Some(error),
            }
        }
        panic!("no port is free: {last:?}");
    }

    fn try_reserve() -> io::Result<Port> {
        let first = alone(0)?;
        let number = first.local_addr()?.port();
        let second = number.checked_add(SECOND).ok_or(io::ErrorKind::AddrInUse)?;
        let reserved = [first, alone(second)?];
        for socket in &reserved {
            // From now on a server that says the same may listen beside us. Nobody else can: whoever
            // takes any port is given another, and whoever wants to be alone is refused.
            socket.set_reuseaddr(true)?;
        }
        Ok(Port {
            number,
            // Elsewhere the server would be refused as well. What is left is that the port was free.
            _reserved: match cfg!(target_os = "linux") {
                true => reserved.into(),
                false => Vec::new(),
            },
        })
    }

    /// One that a server cannot get, though nobody listens.
    pub(crate) fn taken() -> Port {
        let socket = alone(0).expect("a free port");
        Port {
            number: socket.local_addr().expect("it is bound").port(),
            _reserved: vec![socket],
        }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// A socket that has a port to itself, and does not listen.
fn alone(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(false)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}
