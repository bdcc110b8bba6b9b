//! Hangs up on servers that take too long.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use r2d2_memcache::memcache::{Client, MemcacheError, Stream, ToMemcacheValue};

use super::connection::Fault;
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
    ///
    /// The client hands its socket to nobody but to a value that writes itself. So a value of no
    /// bytes is appended to a key that does not exist, which changes nothing.
    pub(super) fn of(
        client: &Client,
        watch: &Watch,
        deadline: Instant,
    ) -> Result<Line, MemcacheError> {
        let reach = Reach {
            watch,
            deadline,
            reached: OnceCell::new(),
        };
        let answer = client.append("tfk:nothing", &reach);
        let reached = reach.reached.into_inner();
        let reached = reached.map(|(line, watched)| (line, watched.finish()));
        match (reached, answer) {
            (Some((line, true)), Ok(())) => Ok(line),
            // It answers. What it does not let us do, each hit will be told.
            (Some((line, true)), Err(error)) if Fault::of(&error) == Fault::Refused => Ok(line),
            (Some((_, true)) | None, Err(error)) => Err(error),
            (Some((_, false)), _) | (None, Ok(())) => {
                let late = "the server did not answer in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
            }
        }
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

/// A value of no bytes that reaches for the socket it is written to.
struct Reach<'a> {
    watch: &'a Watch,
    deadline: Instant,
    reached: OnceCell<(Line, Watched<'a>)>,
}

impl ToMemcacheValue<Stream> for &Reach<'_> {
    fn get_flags(&self) -> u32 {
        0
    }

    fn get_length(&self) -> usize {
        0
    }

    fn write_to(&self, stream: &mut Stream) -> io::Result<()> {
        let line = Line::to(stream)?;
        let watched = self.watch.over(&line, self.deadline);
        let _ = self.reached.set((line, watched));
        Ok(())
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
