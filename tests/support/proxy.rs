use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Stands between a client and a server, and does to their connections what networks do.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    line: Arc<Line>,
}

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Everything comes later by this.
    Delay(Duration),
    /// Replies come byte by byte, each this much after the one before.
    Trickle(Duration),
    /// Connections end in the middle of a reply.
    Cut,
    /// Once: what begins so comes through, and its connection ends before the reply. One word at most: clients may write
    /// each on its own.
    Lose(&'static str),
    /// Nothing comes through, and nobody is told, as when a switch fails. What was sent comes
    /// through when the fault is over, since TCP sends it again.
    BlackHole,
}

#[derive(Debug)]
struct Line {
    /// The port of the server.
    server: AtomicU16,
    fault: Mutex<(Fault, Ended)>,
    changed: Condvar,
}

type Ended = bool;

impl Proxy {
    /// A proxy before a server on this host.
    pub(crate) fn before(server: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let line = Arc::new(Line {
            server: AtomicU16::new(server),
            fault: Mutex::new((Fault::None, false)),
            changed: Condvar::new(),
        });
        let proxy = Proxy {
            port,
            line: Arc::clone(&line),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if line.fault.lock().unwrap().1 {
                    return;
                }
                // A server that is down refuses, so we hang up at once.
                let server = (Ipv4Addr::LOCALHOST, line.server.load(Ordering::Relaxed));
                if let Ok(server) = TcpStream::connect(server) {
                    line.join(&client, &server);
                }
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whoever connects from now on finds another server, as at an address that moves.
    pub(crate) fn redirect(&self, server: u16) {
        self.line.server.store(server, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.line.fault.lock().unwrap().0 = fault;
        self.line.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.line.fault.lock().unwrap() = (Fault::None, true);
        self.line.changed.notify_all();
        // Wakes the thread that listens.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Line {
    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let lost = Arc::new(AtomicBool::new(false));
        for (from, to, is_reply) in [(client, server, false), (server, client, true)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            to.set_nodelay(true).unwrap();
            let (line, lost) = (Arc::clone(self), Arc::clone(&lost));
            std::thread::spawn(move || {
                line.pump(&from, &to, is_reply, &lost);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    /// Passes on what comes until either side hangs up.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, is_reply: bool, lost: &AtomicBool) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            match self.fault_now() {
                Fault::Cut if is_reply => {
                    let _ = to.write_all(&buffer[..read / 2]);
                    return;
                }
                Fault::Lose(what) if !is_reply && buffer[..read].starts_with(what.as_bytes()) => {
                    self.fault.lock().unwrap().0 = Fault::None;
                    lost.store(true, Ordering::SeqCst);
                }
                _ if is_reply && lost.load(Ordering::SeqCst) => return,
                Fault::Delay(delay) => std::thread::sleep(delay),
                Fault::Trickle(pause) if is_reply => {
                    let trickled = buffer[..read].iter().try_for_each(|byte| {
                        std::thread::sleep(pause);
                        to.write_all(&[*byte])
                    });
                    match trickled {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
                _ => {}
            }
            if to.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
    }

    /// The fault that is in force, once it is not that nothing comes through.
    fn fault_now(&self) -> Fault {
        let fault = self.fault.lock().unwrap();
        let swallowed = |(fault, _): &mut (Fault, Ended)| *fault == Fault::BlackHole;
        self.changed.wait_while(fault, swallowed).unwrap().0
    }
}
