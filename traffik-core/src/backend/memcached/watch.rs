//! Hangs up on servers that take too long.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use r2d2_memcache::memcache::{Client, MemcacheError, Stream};

use super::aside::{END_OF_VALUE, aside, ask};
use super::server::start_thread;
use crate::error::Result;

/// Ends commands at their deadlines, by hanging up.
///
/// A limit to reads of the socket does not: the client reads until a reply is complete, so that a
/// server which sends a byte now and then would hold its thread for minutes.
#[derive(Debug)]
pub(super) struct Watch(Arc<Board>);

/// A command that is watched until this is dropped.
#[derive(Debug)]
#[must_use = "what is not kept is not watched"]
pub(super) struct Watched<'a> {
    board: &'a Board,
    at: Place,
}

/// A connection that can be ended by anybody.
#[derive(Clone)]
pub(super) struct Line(Arc<dyn Fn() + Send + Sync>);

#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commands: BTreeMap<Place, Line>,
    next: u64,
    /// When the thread looks next. It sleeps through commands that end before, so that it wakes a
    /// few times a second at most, however many there are.
    wakes: Option<Instant>,
    closed: bool,
}

/// A deadline, and a number that keeps equal ones apart.
type Place = (Instant, u64);

impl Watch {
    /// Starts the thread that watches.
    pub(super) fn start(namespace: &str) -> Result<Watch> {
        let board = Arc::<Board>::default();
        let watch = Watch(Arc::clone(&board));
        start_thread(namespace, "watch", move || board.watch())?;
        Ok(watch)
    }

    /// Ends the line at the deadline.
    pub(super) fn over(&self, line: &Line, deadline: Instant) -> Watched<'_> {
        let mut state = self.0.lock();
        let at = (deadline, state.next);
        state.next += 1;
        state.commands.insert(at, line.clone());
        if state.wakes.is_none_or(|wakes| deadline < wakes) {
            state.wakes = Some(deadline);
            self.0.changed.notify_one();
        }
        Watched { board: &self.0, at }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Watched<'_> {
    /// The command has ended: whether its line still stands.
    pub(super) fn finish(self) -> bool {
        let stands = self.board.lock().commands.remove(&self.at).is_some();
        std::mem::forget(self);
        stands
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.board.lock().commands.remove(&self.at);
    }
}

impl Line {
    /// The connection of a client, whose server must answer before the deadline.
    pub(super) fn of(
        client: &Client,
        watch: &Watch,
        deadline: Instant,
    ) -> Result<Line, MemcacheError> {
        aside(client, |stream| {
            let line = Line::to(stream)?;
            let watched = watch.over(&line, deadline);
            // Whatever it says: what it does not let us do, each hit will be told.
            let answer = ask(stream, END_OF_VALUE, |text| text.ends_with("\r\n"));
            match watched.finish() {
                true => answer.map(|_| line),
                false => {
                    let late = "the server did not answer in time";
                    Err(io::Error::new(io::ErrorKind::TimedOut, late))
                }
            }
        })
    }

    fn hang_up(&self) {
        (self.0)();
    }

    fn to(stream: &Stream) -> io::Result<Line> {
        macro_rules! line {
            ($socket:expr) => {{
                let socket = $socket.try_clone()?;
                // That of a socket which is closed already is an error, and no harm.
                Line(Arc::new(move || drop(socket.shutdown(Shutdown::Both))))
            }};
        }
        Ok(match stream {
            Stream::Tcp(socket) => line!(socket),
            Stream::Tls(tls) => line!(tls.get_ref()),
            #[cfg(unix)]
            Stream::Unix(socket) => line!(socket),
            // Addresses of this kind are refused.
            Stream::Udp(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

impl Board {
    fn watch(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = Instant::now();
            while let Some(first) = state.commands.first_entry()
                && first.key().0 <= now
            {
                first.remove().hang_up();
            }
            state.wakes = state.commands.keys().next().map(|(deadline, _)| *deadline);
            state = match state.wakes {
                None => self.changed.wait(state),
                Some(wakes) => {
                    let waited = self.changed.wait_timeout(state, wakes - now);
                    waited
                        .map(|(state, _)| state)
                        .map_err(|error| PoisonError::new(error.into_inner().0))
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
