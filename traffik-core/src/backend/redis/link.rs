//! Connections: one per backend and thread, made when needed and replaced when lost.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;

use super::pipe::{Mouth, Pipe};
use super::script::Program;
use super::stream::Stream;
use super::trip::Trips;
use crate::backend::BoxFuture;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::patience::{Patience, in_time};

/// A connection of any kind whose clones share one stream.
pub(super) trait Wire: ConnectionLike + Send + Sync {
    fn fork(&self) -> Box<dyn Wire>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Wire for C {
    fn fork(&self) -> Box<dyn Wire> {
        Box::new(self.clone())
    }
}

/// What a link asks on.
pub(super) enum Reached {
    Wire(Box<dyn Wire>),
    Stream(Box<dyn Stream>),
}

/// Makes connections.
pub(super) trait Connect: fmt::Debug + Send + Sync {
    /// One to whoever serves the keys.
    fn connect(&self) -> BoxFuture<'static, RedisResult<Box<dyn Wire>>>;

    /// The same, by a connection of our own if there can be one.
    fn reach(&self) -> BoxFuture<'static, RedisResult<Reached>> {
        self.reach_as_ever()
    }

    /// By the client's.
    fn reach_as_ever(&self) -> BoxFuture<'static, RedisResult<Reached>> {
        let connecting = self.connect();
        Box::pin(async { Ok(Reached::Wire(connecting.await?)) })
    }

    /// Whether a script can only use keys of one slot.
    fn has_slots(&self) -> bool {
        false
    }

    /// See [`Backend::shard_of`](crate::Backend::shard_of).
    fn shard_of(&self, key: &Key) -> u64 {
        let _ = key;
        0
    }

    /// The same with certificates of the user's.
    #[cfg(feature = "redis-tls")]
    fn with_certificates(&self, certificates: &redis::TlsCertificates) -> Result<Arc<dyn Connect>> {
        let _ = certificates;
        Err(Error::invalid(
            "certificates go with the URLs of a server or a cluster; sentinels take those in the \
             file that SSL_CERT_FILE names, and a function that connects brings its own",
        ))
    }

    /// One to each server that holds a part of the keys.
    fn connect_all(&self) -> BoxFuture<'static, RedisResult<Vec<Box<dyn Wire>>>> {
        let connecting = self.connect();
        Box::pin(async { Ok(vec![connecting.await?]) })
    }
}

/// The connections of one backend.
///
/// One per thread, because a connection's driver then runs on the thread that asks: with one for
/// all threads every answer wakes another thread, which costs a third of the throughput.
#[derive(Debug)]
pub(super) struct Links {
    id: u64,
    connect: Arc<dyn Connect>,
    times: Times,
    all: Mutex<Vec<Arc<Link>>>,
    era: Arc<AtomicU64>,
}

/// How long is waited for a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For a decision, by a server that we are connected to.
    pub(super) decide: Duration,
    /// For a connection, from when it is begun.
    pub(super) connect: Duration,
}

/// What a thread remembers of its link.
struct Seat {
    links: u64,
    runtime: Id,
    link: Weak<Link>,
    /// Tells [`Links`] that the thread lives and still uses the link.
    _occupied: Arc<()>,
}

thread_local! {
    static SEATS: RefCell<Vec<Seat>> = const { RefCell::new(Vec::new()) };
}

impl Links {
    pub(super) fn new(connect: Arc<dyn Connect>, times: Times) -> Links {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Links {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            connect,
            times,
            all: Mutex::default(),
            era: Arc::default(),
        }
    }

    /// A new one begins when a connection is lost. What was seen in an earlier era was possibly
    /// another server's.
    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Has everything that was seen doubted, though no connection was lost.
    pub(super) fn begin_era(&self) {
        self.era.fetch_add(1, Ordering::Release);
    }

    pub(super) fn connect(&self) -> &Arc<dyn Connect> {
        &self.connect
    }

    /// The link of this thread.
    ///
    /// # Errors
    ///
    /// If there is no tokio runtime.
    pub(super) fn of_this_thread(&self) -> Result<Arc<Link>> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::invalid("the redis backend needs a tokio runtime, such as actix's")
                .with_source(error)
        })?;
        let (links, runtime) = (self.id, runtime.id());
        SEATS.with_borrow_mut(|seats| {
            let known = seats
                .iter()
                .find(|seat| seat.links == links && seat.runtime == runtime)
                .and_then(|seat| seat.link.upgrade());
            if let Some(link) = known {
                return Ok(link);
            }
            // Links of dropped backends, and this one's in a runtime that has ended: a
            // connection's driver lives and dies with its runtime.
            seats.retain(|seat| seat.links != links && seat.link.strong_count() > 0);
            let occupied = Arc::new(());
            let link = self.open(Arc::downgrade(&occupied));
            seats.push(Seat {
                links,
                runtime,
                link: Arc::downgrade(&link),
                _occupied: occupied,
            });
            Ok(link)
        })
    }

    fn open(&self, seat: Weak<()>) -> Arc<Link> {
        let link = Arc::new(Link {
            connect: Arc::clone(&self.connect),
            times: self.times,
            era: Arc::clone(&self.era),
            seat,
            state: Mutex::default(),
            changed: Notify::new(),
            timeouts: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            trips: Trips::default(),
        });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|link| link.seat.strong_count() > 0);
        all.push(Arc::clone(&link));
        link
    }

    /// Hangs up.
    pub(super) fn close(&self) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for link in &*all {
            link.lock().connection = None;
        }
    }
}

/// The connection of one thread, or the lack of one.
pub(super) struct Link {
    connect: Arc<dyn Connect>,
    times: Times,
    era: Arc<AtomicU64>,
    seat: Weak<()>,
    state: Mutex<State>,
    changed: Notify,
    /// Commands in a row that were not answered in time.
    timeouts: AtomicU32,
    /// Connections in a row that were lost, or refused in words, before anything was decided.
    losses: AtomicU32,
    trips: Trips,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections, so that whoever finds one broken does not hang up on its successor.
    epoch: u64,
    /// The scripts that were sent on this connection.
    sent: Vec<Arc<Program>>,
    /// Since when one is being made.
    connecting: Option<Instant>,
    failure: Option<Failure>,
    /// Why the last attempt failed, until one succeeds.
    complaint: Option<Arc<RedisError>>,
}

enum Connection {
    Wire(Box<dyn Wire>),
    Pipe(Pipe),
}

/// A connection to ask on.
pub(super) struct Line {
    way: Way,
    epoch: u64,
}

enum Way {
    Wire(Box<dyn Wire>),
    Mouth(Arc<Mouth>),
}

/// Why there is no connection, and until when none is attempted.
struct Failure {
    until: Instant,
    error: Arc<RedisError>,
}

/// Why a command has no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// It was never sent, or refused unread.
    Unexecuted(Arc<RedisError>),
    /// It may have been executed.
    Interrupted(Arc<RedisError>),
    /// The server's complaint.
    Refused(RedisError),
    /// It may have been executed, or still will be: there was no answer within this time.
    Late(Duration),
}

impl Link {
    /// Once a server did not accept a connection, the next attempt is not made before this. Until
    /// then decisions fail at once.
    const COOL_OFF: Duration = Duration::from_millis(10);

    /// A server that accepts connections and then refuses to decide, as a replica does or one that
    /// loads its data, is asked again after twice as long each time, up to this: each connection
    /// takes up a port for a minute after its end.
    const LONGEST_COOL_OFF: Duration = Duration::from_millis(500);

    /// A connection that takes longer than this to establish is given up, unless the user has said
    /// that it may. Decisions need not wait for it that long.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

    /// After so many timeouts in a row the connection is given up: the server may have been
    /// replaced by one at the same address without telling us.
    const MOST_TIMEOUTS: u32 = 3;

    pub(super) fn trips(&self) -> &Trips {
        &self.trips
    }

    /// Has the next trip made by whoever makes them on this connection; `false` if nobody does.
    pub(super) fn wake(&self) -> bool {
        match &self.lock().connection {
            Some(Connection::Pipe(pipe)) => pipe.wake(),
            Some(Connection::Wire(_)) | None => false,
        }
    }

    /// How long a decision may take.
    pub(super) fn deadline(&self) -> Duration {
        self.times.decide
    }

    /// Whether a script is still to be sent on a connection, as it now will be.
    pub(super) fn brings(&self, epoch: u64, program: &Arc<Program>) -> bool {
        let mut state = self.lock();
        if state.epoch != epoch {
            return true;
        }
        let brings = !state.sent.iter().any(|sent| Arc::ptr_eq(sent, program));
        if brings {
            state.sent.push(Arc::clone(program));
        }
        brings
    }

    /// Sends a command on a connection, and waits for the answer as long as there is patience. It
    /// begins with the first command that is sent.
    pub(super) async fn ask(
        &self,
        line: Line,
        command: &Cmd,
        patience: &mut Option<Patience>,
    ) -> Result<Value, Lost> {
        let limit = self.times.decide;
        let patience = patience.get_or_insert_with(|| Patience::new(limit));
        match patience.wait(self.send(line, command)).await {
            Some(reply) => reply,
            None => {
                self.timed_out();
                Err(Lost::Late(limit))
            }
        }
    }

    async fn send(&self, line: Line, command: &Cmd) -> Result<Value, Lost> {
        let Line { way, epoch } = line;
        let reply: BoxFuture<'_, _> = match way {
            Way::Wire(mut wire) => Box::pin(async move { wire.req_packed_command(command).await }),
            Way::Mouth(mouth) => Box::pin(async move { mouth.ask(command).await }),
        };
        let (reply, waited) = awaited(reply).await;
        match reply.and_then(Value::extract_error) {
            Ok(value) => {
                self.answered();
                self.decided();
                Ok(value)
            }
            Err(error) => {
                self.answered();
                Err(self.explain(error, epoch, waited))
            }
        }
    }

    pub(super) fn explain(&self, error: RedisError, epoch: u64, waited: bool) -> Lost {
        use redis::{ErrorKind, ServerErrorKind};
        let refused = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
            ) | ErrorKind::ClusterConnectionNotFound
        );
        let answered = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        if answered && !refused {
            return Lost::Refused(error);
        }
        // The server is gone, or not the one to ask any longer. A connection to a cluster follows
        // slots and replaces nodes by itself, while it serves the others; it is lost if it knows
        // no node, or fails at once.
        let found = error.kind() != ErrorKind::ClusterConnectionNotFound;
        let error = Arc::new(error);
        if !(self.connect.has_slots() && waited && found) {
            self.hang_up(epoch, &error);
        }
        match refused || !waited {
            true => Lost::Unexecuted(error),
            false => Lost::Interrupted(error),
        }
    }

    /// Takes note that a command was not answered in time.
    pub(super) fn timed_out(&self) {
        if self.connect.has_slots() {
            // Perhaps one node hangs, and the connections to the others are as good as ever.
            return;
        }
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= Self::MOST_TIMEOUTS {
            self.answered();
            self.give_up(&mut self.lock());
        }
    }

    pub(super) fn answered(&self) {
        // A load is cheaper than a store, and this is the hot path.
        if self.timeouts.load(Ordering::Relaxed) > 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn decided(&self) {
        if self.losses.load(Ordering::Relaxed) > 0 {
            self.losses.store(0, Ordering::Relaxed);
        }
    }

    /// The first connection that is lost is replaced at once: its server may have a successor.
    pub(super) fn hang_up(&self, epoch: u64, error: &Arc<RedisError>) {
        let mut state = self.lock();
        if state.epoch == epoch && self.give_up(&mut state) {
            let cool_off = self.lose();
            if cool_off > Duration::ZERO {
                state.fail(cool_off, Arc::clone(error));
            }
        }
    }

    /// Whether there was a connection.
    fn give_up(&self, state: &mut State) -> bool {
        let connected = state.connection.take().is_some();
        if connected {
            self.era.fetch_add(1, Ordering::Release);
        }
        connected
    }

    /// Counts a connection on which nothing may ever be decided, and tells how long to make none.
    fn lose(&self) -> Duration {
        match self.losses.fetch_add(1, Ordering::Relaxed) {
            0 => Duration::ZERO,
            // More doublings than lead from the shortest to the longest.
            before => (Self::COOL_OFF * (1 << (before - 1).min(9))).min(Self::LONGEST_COOL_OFF),
        }
    }

    /// The present connection, or a new one if there is none.
    ///
    /// Connecting has a time of its own. But who comes when that is over, while the attempt goes on,
    /// waits for no longer than for a decision.
    pub(super) async fn line(self: &Arc<Self>) -> Result<Line, Lost> {
        match self.try_line() {
            Some(line) => Ok(line),
            // Boxed, since it is rare and would enlarge the future of every trip.
            None => Box::pin(self.line_in_time()).await,
        }
    }

    async fn line_in_time(self: &Arc<Self>) -> Result<Line, Lost> {
        let connected = self.connected();
        let left = self.time_to_connect();
        match in_time(left, connected).await {
            Some(line) => line.map_err(Lost::Unexecuted),
            None => Err(Lost::Unexecuted(self.not_yet(left))),
        }
    }

    fn try_line(&self) -> Option<Line> {
        self.lock().line()
    }

    fn time_to_connect(&self) -> Duration {
        let since = self.lock().connecting;
        let spent = since.map_or(Duration::ZERO, |since| since.elapsed());
        let left = self.times.connect.saturating_sub(spent);
        left.max(self.times.decide)
    }

    fn not_yet(&self, after: Duration) -> Arc<RedisError> {
        let mut text = format!("there was no connection within {after:.0?}");
        if let Some(complaint) = &self.lock().complaint {
            text = format!("{text}, and before: {complaint}");
        }
        Arc::new(io::Error::new(io::ErrorKind::TimedOut, text).into())
    }

    async fn connected(self: &Arc<Self>) -> Result<Line, Arc<RedisError>> {
        let mut waited = false;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(line) = state.line() {
                    return Ok(line);
                }
                if let Some(Failure { until, error }) = &state.failure
                    && (waited || Instant::now() < *until)
                {
                    return Err(Arc::clone(error));
                }
                if state.connecting.is_none() {
                    state.connecting = Some(Instant::now());
                    state.failure = None;
                    // In a task of its own, so that a decision's deadline does not end it.
                    tokio::spawn(Arc::clone(self).dial());
                }
            }
            changed.await;
            waited = true;
        }
    }

    async fn dial(self: Arc<Self>) {
        let mut call = Call {
            link: &self,
            outcome: None,
        };
        let longest = Self::CONNECT_TIMEOUT.max(self.times.connect);
        let dialled = in_time(longest, self.connect.reach()).await;
        let late = || {
            let text = format!("there was no connection within {longest:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        };
        call.outcome = Some(dialled.unwrap_or_else(late));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reply, and whether it had to be waited for. What fails at once was never sent: the driver had hung up
/// before.
pub(super) async fn awaited<T>(mut reply: BoxFuture<'_, T>) -> (T, bool) {
    let mut waited = false;
    let reply = poll_fn(|context| {
        let polled = reply.as_mut().poll(context);
        waited |= polled.is_pending();
        polled
    });
    (reply.await, waited)
}

impl Line {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl State {
    fn line(&self) -> Option<Line> {
        let way = match self.connection.as_ref()? {
            Connection::Wire(wire) => Way::Wire(wire.fork()),
            Connection::Pipe(pipe) => Way::Mouth(Arc::clone(pipe.mouth())),
        };
        let epoch = self.epoch;
        Some(Line { way, epoch })
    }

    fn fail(&mut self, cool_off: Duration, error: Arc<RedisError>) {
        let until = Instant::now() + cool_off;
        self.complaint = Some(Arc::clone(&error));
        self.failure = Some(Failure { until, error });
    }
}

/// An attempt to connect, which ends when this is dropped, be it because the user's function that
/// connects has panicked: nobody must wait for it then.
struct Call<'a> {
    link: &'a Arc<Link>,
    outcome: Option<RedisResult<Reached>>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let mut driver = None;
        let mut state = self.link.lock();
        state.connecting = None;
        let panicked = || Err(io::Error::other("connecting to redis panicked").into());
        match outcome.unwrap_or_else(panicked) {
            Ok(reached) => {
                state.epoch += 1;
                state.connection = Some(match reached {
                    Reached::Wire(wire) => Connection::Wire(wire),
                    Reached::Stream(stream) => {
                        let (pipe, task) = Pipe::new(stream, self.link, state.epoch);
                        driver = Some(task);
                        Connection::Pipe(pipe)
                    }
                });
                state.sent.clear();
                state.complaint = None;
            }
            Err(error) => {
                // Whoever answers nothing at all costs no port, and may be back at any time.
                let cool_off = match error.is_io_error() {
                    true => Duration::ZERO,
                    false => self.link.lose(),
                };
                state.fail(cool_off.max(Link::COOL_OFF), Arc::new(error));
            }
        }
        drop(state);
        if let Some(driver) = driver {
            // What was connected to was so by a task that runs right now.
            tokio::spawn(driver);
        }
        self.link.changed.notify_waiters();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Link")
            .field("connected", &state.connection.is_some())
            .field("connecting", &state.connecting.is_some())
            .finish_non_exhaustive()
    }
}
