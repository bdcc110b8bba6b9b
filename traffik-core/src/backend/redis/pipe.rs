//! A connection that a task of ours writes to and reads from.
//!
//! redis-rs hands each command on through two channels to a task of its own, and makes a tree of each reply.
//! Trips need none of that: whoever writes them also reads what became of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use tokio::task::{unconstrained, yield_now};
use tokio::time::Instant;

use super::answer::{Answers, nonsense};
use super::link::{Link, Lost};
use super::resp;
use super::stream::Stream;
use super::trip::{Again, Arrival, Ready, Trip, carry};
use crate::patience::{Patience, Pulse};

/// The connection of a link. Dropped, it makes no more trips, and hangs up once nobody waits for an answer.
#[derive(Debug)]
pub(super) struct Pipe(Arc<Mouth>);

/// Where commands are put that are no trips, or irregular ones.
#[derive(Debug, Default)]
pub(super) struct Mouth(Mutex<Inbox>);

#[derive(Debug, Default)]
struct Inbox {
    asked: Vec<Asked>,
    driver: Option<Waker>,
    /// No more trips are to be made.
    retired: bool,
    /// Nobody reads this any more.
    ended: bool,
}

#[derive(Debug)]
struct Asked {
    command: Vec<u8>,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Pipe {
    /// A pipe, and the task that makes the trips of the link on it.
    pub(super) fn new(
        stream: Box<dyn Stream>,
        link: &Arc<Link>,
        epoch: u64,
    ) -> (Pipe, impl Future<Output = ()> + Send + 'static + use<>) {
        let mouth = Arc::new(Mouth::default());
        let driver = Driver {
            mouth: Arc::clone(&mouth),
            link: Arc::downgrade(link),
            epoch,
            stream,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            flights: VecDeque::new(),
            arrivals: VecDeque::new(),
            pulse: Pulse::new(link.deadline()),
            up: None,
            end: End::Cancelled,
        };
        // What it does in one turn is bounded by what was asked.
        (Pipe(mouth), unconstrained(driver.drive()))
    }

    pub(super) fn mouth(&self) -> &Arc<Mouth> {
        &self.0
    }

    /// Has it make the trips of its link; `false` if it cannot any more.
    pub(super) fn wake(&self) -> bool {
        let inbox = self.0.lock();
        inbox.wake();
        !inbox.ended
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut inbox = self.0.lock();
        inbox.retired = true;
        inbox.wake();
    }
}

impl Mouth {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Consistent between statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command, and waits for the reply.
    pub(super) async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        let (answer, answered) = oneshot::channel();
        let command = command.get_packed_command();
        {
            let mut inbox = self.lock();
            if inbox.ended {
                return Err(hung_up());
            }
            inbox.asked.push(Asked { command, answer });
            inbox.wake();
        }
        answered.await.unwrap_or_else(|_| Err(hung_up()))
    }
}

impl Inbox {
    fn wake(&self) {
        // If there is none, the driver is about to look for the first time.
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }
}

fn hung_up() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection was closed").into()
}

/// The task.
struct Driver {
    mouth: Arc<Mouth>,
    link: Weak<Link>,
    epoch: u64,
    stream: Box<dyn Stream>,
    outgoing: Outgoing,
    incoming: Incoming,
    /// What has been written or will be, and not been answered.
    flights: VecDeque<Flight>,
    /// What has been answered, and not all of it told.
    arrivals: VecDeque<Arrival>,
    pulse: Pulse,
    /// When the time of some was up, who get one more look at the socket.
    up: Option<Instant>,
    end: End,
}

/// Why the task is over.
enum End {
    /// The runtime has ended, or there is a mistake in here.
    Cancelled,
    Retired,
    Broken(RedisError),
}

/// A command under way.
struct Flight {
    asker: Asker,
    /// Of its bytes, among all that were ever to be written.
    end: u64,
}

enum Asker {
    Trip(Ready, Waiting),
    Other(oneshot::Sender<RedisResult<Value>>),
    /// Whoever asked has been told that it took too long.
    Nobody,
}

#[derive(Clone, Copy)]
struct Waiting {
    era: u64,
    since: Instant,
    until: Instant,
}

impl Driver {
    async fn drive(mut self) {
        loop {
            let turned = poll_fn(|context| match self.turn(context) {
                Ok(turned) => turned.map(Ok),
                Err(end) => Poll::Ready(Err(end)),
            });
            match turned.await {
                // Others run, and sockets are looked at.
                Ok(()) => yield_now().await,
                Err(end) => {
                    self.end = end;
                    return;
                }
            }
        }
    }

    /// Does what can be done now; ready if it is to go on at once.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, End> {
        let link = self.link.upgrade().ok_or(End::Retired)?;
        let is_retired = self.take_what_is_asked(context);
        self.read(&link, context)?;
        self.expire(&link);
        let tells_more = self.tell(&link);
        match is_retired {
            false => self.depart(&link),
            true => leave_to_others(&link),
        }
        self.write(context)?;
        if is_retired && self.arrivals.is_empty() && self.flights.iter().all(Flight::is_forgotten) {
            return Err(End::Retired);
        }
        match tells_more || self.is_up(is_retired, context) {
            true => Ok(Poll::Ready(())),
            false => Ok(Poll::Pending),
        }
    }

    /// Whether no more trips are to be made.
    fn take_what_is_asked(&mut self, context: &Context<'_>) -> bool {
        let mut inbox = self.mouth.lock();
        match &mut inbox.driver {
            Some(driver) => driver.clone_from(context.waker()),
            None => inbox.driver = Some(context.waker().clone()),
        }
        if !inbox.asked.is_empty() {
            for Asked { command, answer } in inbox.asked.drain(..) {
                self.outgoing.bytes.extend_from_slice(&command);
                let asker = Asker::Other(answer);
                let end = self.outgoing.end();
                self.flights.push_back(Flight { asker, end });
            }
        }
        inbox.retired
    }

    fn read(&mut self, link: &Arc<Link>, context: &mut Context<'_>) -> Result<(), End> {
        let mut incoming = std::mem::take(&mut self.incoming);
        loop {
            while let Some(length) = resp::length(incoming.unread())? {
                self.receive(link, &incoming.unread()[..length]);
                incoming.start += length;
            }
            match incoming.read(&mut *self.stream, context) {
                Poll::Ready(read) => read?,
                Poll::Pending => break,
            }
        }
        self.incoming = incoming;
        Ok(())
    }

    fn receive(&mut self, link: &Arc<Link>, reply: &[u8]) {
        if resp::is_push(reply) {
            return;
        }
        match self.flights.pop_front().map(|flight| flight.asker) {
            Some(Asker::Trip(ready, waiting)) => self.arrive(link, ready, waiting, reply),
            Some(Asker::Other(answer)) => {
                // Whoever has gone away needs no answer.
                let _ = answer.send(redis::parse_redis_value(reply));
            }
            Some(Asker::Nobody) | None => {}
        }
    }

    fn arrive(&mut self, link: &Arc<Link>, mut ready: Ready, waiting: Waiting, reply: &[u8]) {
        link.answered();
        if let Some(text) = resp::text(reply) {
            link.decided();
            let kept = ready.trip.keep_reply(text);
            match Answers::parse(kept, waiting.era) {
                Ok(answers) => self.arrivals.push_back(Arrival::of(ready, answers)),
                Err(error) => ready.trip.fail(&error),
            }
            return;
        }
        let error = match redis::parse_redis_value(reply).and_then(Value::extract_error) {
            Err(error) => error,
            Ok(_) => return ready.trip.fail(&nonsense()),
        };
        let again = match link.explain(error, self.epoch, true) {
            // The server has answered, if only this: the decision begins anew.
            lost if lost.is_unknown_script() => Again {
                loaded: true,
                ..Again::default()
            },
            Lost::Unexecuted(_) => Again {
                resent: true,
                patience: Some(Patience::until(waiting.until, link.deadline())),
                ..Again::default()
            },
            lost => return ready.trip.fail(&lost.into()),
        };
        carry(ready, link, again);
    }

    /// Tells some of those who wait what became of their batches; whether there are more.
    fn tell(&mut self, link: &Link) -> bool {
        let mut portion = Trip::PORTION;
        while let Some(mut arrival) = self.arrivals.pop_front() {
            if !arrival.tell(&mut portion) {
                self.arrivals.push_front(arrival);
                break;
            }
            link.trips().keep(arrival.into_trip());
        }
        !self.arrivals.is_empty()
    }

    fn depart(&mut self, link: &Link) {
        while let Some(mut ready) = link.trips().depart() {
            let era = ready.inner.links.era();
            let brings = link.brings(self.epoch, ready.trip.program());
            ready.pack(era, brings, &mut self.outgoing.bytes);
            let since = Instant::now();
            let waiting = Waiting {
                era,
                since,
                until: self.pulse.start(since),
            };
            self.flights.push_back(Flight {
                asker: Asker::Trip(ready, waiting),
                end: self.outgoing.end(),
            });
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.outgoing.write(&mut *self.stream, context) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    /// Whether anybody's time is up.
    fn is_up(&mut self, is_retired: bool, context: &mut Context<'_>) -> bool {
        loop {
            if is_retired {
                // Since nobody tells when he forgets: also after a beat, be there a trip that waits or none.
                self.pulse.start(Instant::now());
            }
            let Poll::Ready(beat) = self.pulse.poll(context) else {
                return false;
            };
            let (mut soonest, mut is_up) = (None, false);
            for waiting in self.flights.iter_mut().filter_map(Flight::waiting) {
                beat.prolong(&mut waiting.until, waiting.since);
                match waiting.until <= beat.now {
                    true => is_up = true,
                    // Whoever set out first is the first whose time is up.
                    false => soonest = soonest.or(Some(waiting.until)),
                }
            }
            self.pulse.go_on(beat.now, soonest);
            if is_up {
                self.up = Some(beat.now);
                return true;
            }
        }
    }

    /// The sockets have been looked at once more.
    fn expire(&mut self, link: &Link) {
        let Some(now) = self.up.take() else {
            return;
        };
        for flight in &mut self.flights {
            if flight.waiting().is_none_or(|waiting| waiting.until > now) {
                continue;
            }
            if let Asker::Trip(mut ready, _) = std::mem::replace(&mut flight.asker, Asker::Nobody) {
                ready.trip.fail(&Lost::Late(link.deadline()).into());
                link.timed_out();
            }
        }
    }
}

/// Trips for which there will be another connection.
fn leave_to_others(link: &Arc<Link>) {
    while let Some(ready) = link.trips().depart() {
        carry(ready, link, Again::default());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let asked = {
            let mut inbox = self.mouth.lock();
            inbox.ended = true;
            std::mem::take(&mut inbox.asked)
        };
        // They learn of it by that.
        drop(asked);
        let Some(link) = self.link.upgrade() else {
            return;
        };
        let error = match std::mem::replace(&mut self.end, End::Cancelled) {
            End::Broken(error) => Arc::new(error),
            End::Retired => return leave_to_others(&link),
            End::Cancelled => {
                link.hang_up(self.epoch, &Arc::new(hung_up()));
                // They learn of it as the others do.
                while link.trips().depart().is_some() {}
                return;
            }
        };
        link.hang_up(self.epoch, &error);
        for mut arrival in self.arrivals.drain(..) {
            arrival.tell(&mut { usize::MAX });
        }
        let written = self.outgoing.written;
        for flight in self.flights.drain(..) {
            let Asker::Trip(mut ready, waiting) = flight.asker else {
                continue;
            };
            match flight.end <= written {
                true => ready
                    .trip
                    .fail(&Lost::Interrupted(Arc::clone(&error)).into()),
                // No server executes half a command.
                false => carry(
                    ready,
                    &link,
                    Again {
                        resent: true,
                        patience: Some(Patience::until(waiting.until, link.deadline())),
                        ..Again::default()
                    },
                ),
            }
        }
        leave_to_others(&link);
    }
}

impl Flight {
    fn waiting(&mut self) -> Option<&mut Waiting> {
        match &mut self.asker {
            Asker::Trip(_, waiting) => Some(waiting),
            Asker::Other(_) | Asker::Nobody => None,
        }
    }

    fn is_forgotten(&self) -> bool {
        match &self.asker {
            Asker::Trip(..) => false,
            Asker::Other(answer) => answer.is_closed(),
            Asker::Nobody => true,
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Broken(error.into())
    }
}

/// Bytes to or from the server whose buffer is kept.
const MOST_KEPT: usize = 64 * 1024;

/// Bytes on their way to the server.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them have been written.
    start: usize,
    /// How many have been ever.
    written: u64,
}

impl Outgoing {
    /// Of all that is to be written so far.
    fn end(&self) -> u64 {
        self.written + (self.bytes.len() - self.start) as u64
    }

    fn write(
        &mut self,
        stream: &mut dyn Stream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.start < self.bytes.len() {
            let stream = Pin::new(&mut *stream);
            match stream.poll_write(context, &self.bytes[self.start..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.start += count;
                    self.written += count as u64;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        (self.start, self.bytes) = match self.bytes.capacity() <= MOST_KEPT {
            true => {
                self.bytes.clear();
                (0, std::mem::take(&mut self.bytes))
            }
            false => (0, Vec::new()),
        };
        Poll::Ready(Ok(()))
    }
}

/// Bytes from the server.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Of what has been received, and of what of it is still to be read.
    end: usize,
    start: usize,
}

impl Incoming {
    const LEAST: usize = 8 * 1024;

    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn read(&mut self, stream: &mut dyn Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > MOST_KEPT {
                self.bytes = Vec::new();
            }
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            let length = (2 * self.end).max(Self::LEAST);
            self.bytes.resize(length, 0);
        }
        let mut buffer = ReadBuf::new(&mut self.bytes[self.end..]);
        let stream = Pin::new(&mut *stream);
        std::task::ready!(stream.poll_read(context, &mut buffer))?;
        match buffer.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            received => {
                self.end += received;
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
