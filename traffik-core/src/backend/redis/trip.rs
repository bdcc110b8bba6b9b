//! Round trips: what comes up at the same moment is asked in one command.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::answer::{Answer, Answers, nonsense};
use super::hints::Hint;
use super::link::{Link, Lost};
use super::script::{Program, Step};
use super::{Inner, reset, resp, script};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::patience::Patience;
use crate::time::Timestamp;

/// What a command says once for all its batches.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) program: Arc<Program>,
    /// `None` to ask the server.
    pub(super) now: Option<Timestamp>,
    /// How long cells outlive their use, or `None` to leave them as they are.
    pub(super) slack_ms: Option<u64>,
    /// Whether other batches may come along.
    pub(super) shared: bool,
}

impl Terms {
    fn admit(&self, other: &Terms) -> bool {
        let is = |terms: &Terms| (terms.now, terms.slack_ms, terms.shared);
        self.shared && is(self) == is(other) && self.program.wider(&other.program).is_some()
    }
}

/// The trips of a link that have not yet departed.
///
/// A worker under load turns to many requests between two looks at its sockets. What they all ask
/// fits in one command, which spares both sides most of the work: in the script, a decision among
/// sixteen takes Redis less than half the time of one that comes alone. Nobody waits for company:
/// a trip departs once the tasks that are ready to run now have run.
#[derive(Default)]
pub(super) struct Trips(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    trips: VecDeque<Ready>,
    /// One that was made, whose buffers the next one takes over.
    made: Option<Box<Trip>>,
}

#[derive(Debug)]
pub(super) struct Trip {
    terms: Terms,
    keys: Vec<Key>,
    /// What is to be done with each key, one after the other.
    arguments: Vec<u8>,
    operations: Vec<Operation>,
    /// Whether anything is known about any of the cells.
    hinted: bool,
    passengers: VecDeque<Passenger>,
    /// A buffer for the reply.
    reply: Vec<u8>,
}

/// A trip, and whose it is.
pub(super) struct Ready {
    pub(super) trip: Box<Trip>,
    pub(super) inner: Arc<Inner>,
}

/// How far a trip got that did not go as usual.
#[derive(Default)]
pub(super) struct Again {
    /// Whether it was sent once, to no avail.
    pub(super) resent: bool,
    /// Whether the server has said that it does not know the script.
    pub(super) loaded: bool,
    /// Of those who wait, if it has begun.
    pub(super) patience: Option<Patience>,
}

/// A trip that was made, and of whose answers some may not have been told.
pub(super) struct Arrival {
    ready: Ready,
    answers: Answers,
    /// How many of the keys.
    told: usize,
}

/// What is to be done with one key.
#[derive(Debug)]
struct Operation {
    /// Of its arguments.
    end: usize,
    /// Of what is known about the cell, if that tells whether the cell is older.
    era: Option<u64>,
}

/// Who waits for what becomes of a batch.
#[derive(Debug)]
struct Passenger {
    operations: usize,
    answer: oneshot::Sender<Result<Answer>>,
}

/// What will have become of a batch.
pub(super) struct Answered(oneshot::Receiver<Result<Answer>>);

impl Trips {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Consistent between statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a batch into the next trip, and tells whether that is a new one, which has to be made.
    ///
    /// What is known about the cells comes with the steps; nothing may be.
    fn board(
        &self,
        inner: &Arc<Inner>,
        terms: Terms,
        batch: &Batch<'_>,
        steps: &[Step<'_>],
        hints: &[Option<Hint>],
    ) -> (Answered, bool) {
        let (answer, answered) = oneshot::channel();
        let operations = steps.len();
        let mut waiting = self.lock();
        let Waiting { trips, made } = &mut *waiting;
        let passenger = Passenger { operations, answer };
        if let Some(Ready { trip, .. }) = trips.back_mut()
            && trip.takes(&terms, operations)
        {
            if let Some(wider) = trip.terms.program.wider(&terms.program) {
                trip.terms.program = Arc::clone(wider);
            }
            trip.add(batch, steps, hints, passenger);
            return (Answered(answered), false);
        }
        let mut trip = match made.take() {
            Some(trip) => trip.again(terms),
            None => Box::new(Trip::new(terms)),
        };
        trip.add(batch, steps, hints, passenger);
        let inner = Arc::clone(inner);
        trips.push_back(Ready { trip, inner });
        (Answered(answered), true)
    }

    /// The next trip to be made; nobody can join any more.
    pub(super) fn depart(&self) -> Option<Ready> {
        self.lock().trips.pop_front()
    }

    /// Keeps the buffers of a trip, unless they have become large.
    pub(super) fn keep(&self, trip: Box<Trip>) {
        if trip.arguments.capacity().max(trip.reply.capacity()) <= Trip::MOST_KEPT {
            self.lock().made = Some(trip);
        }
    }
}

impl Inner {
    /// Has a batch decided in the next trip, and makes that unless somebody else does.
    ///
    /// It takes no longer than the deadline, once there is a connection. If nobody waits for the answer any more, the trip is
    /// made all the same.
    pub(super) fn travel(
        self: &Arc<Self>,
        link: &Arc<Link>,
        terms: Terms,
        batch: &Batch<'_>,
        steps: &[Step<'_>],
    ) -> Answered {
        let hints = self.hints.of(batch);
        let trips = link.trips();
        let (answered, is_new) = trips.board(self, terms, batch, steps, &hints);
        if is_new && !link.wake() {
            tokio::spawn(make_the_next(Arc::clone(link)));
        }
        answered
    }
}

impl Future for Answered {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Answer>> {
        let ended = |_| {
            Err(Error::interrupted(
                "the runtime ended before redis answered",
            ))
        };
        let polled = Pin::new(&mut self.0).poll(context);
        polled.map(|answer| answer.unwrap_or_else(ended))
    }
}

/// Makes a trip in a task of its own, so that it depends on none of those who take part.
pub(super) fn carry(ready: Ready, link: &Arc<Link>, again: Again) {
    // If the runtime has ended, all who wait are told so.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(make(ready, Arc::clone(link), again));
    }
}

/// As many are made as were begun.
async fn make_the_next(link: Arc<Link>) {
    if let Some(ready) = link.trips().depart() {
        make(ready, link, Again::default()).await;
    }
}

async fn make(mut ready: Ready, link: Arc<Link>, again: Again) {
    let trip = match ready.ask(&link, again).await {
        Ok(answers) => {
            let mut arrival = Arrival::of(ready, answers);
            while !arrival.tell(&mut { Trip::PORTION }) {
                tokio::task::yield_now().await;
            }
            arrival.into_trip()
        }
        Err(error) => {
            ready.trip.fail(&error);
            ready.trip
        }
    };
    link.trips().keep(trip);
}

impl Ready {
    /// One round trip. The first on each connection brings the script along; on a server that does
    /// not know it all the same, as on a cluster's other nodes, it takes two.
    async fn ask(&mut self, link: &Arc<Link>, again: Again) -> Result<Answers> {
        let Again {
            mut resent,
            mut loaded,
            mut patience,
        } = again;
        loop {
            let era = self.inner.links.era();
            self.trip.doubt_all_before(era);
            let line = link.line().await?;
            let brings = loaded || link.brings(line.epoch(), self.trip.program());
            let command = self.trip.command(brings, &self.inner.namespace);
            match link.ask(line, &command, &mut patience).await {
                Ok(Value::BulkString(reply)) => return Answers::parse(reply, era),
                Ok(_) => return Err(nonsense()),
                Err(lost) if lost.is_unknown_script() && !loaded => {
                    // The server has answered, if only this: the decision begins anew.
                    (loaded, patience) = (true, None);
                }
                Err(Lost::Unexecuted(_)) if !resent => resent = true,
                Err(lost) => return Err(lost.into()),
            }
        }
    }

    /// Writes the command, which may bring the script along.
    pub(super) fn pack(&mut self, era: u64, brings: bool, to: &mut Vec<u8>) {
        self.trip.doubt_all_before(era);
        resp::begin(self.trip.count(), to);
        let namespace = &self.inner.namespace;
        self.trip
            .say(brings, namespace, |pieces| resp::argue(pieces, to));
    }
}

impl Arrival {
    pub(super) fn of(ready: Ready, answers: Answers) -> Arrival {
        ready.inner.hints.count_losses(answers.losses);
        Arrival {
            ready,
            answers,
            told: 0,
        }
    }

    /// Tells so many at most what became of their batches, of whom it makes the number less; whether
    /// all have been told.
    pub(super) fn tell(&mut self, portion: &mut usize) -> bool {
        let Ready { trip, inner } = &mut self.ready;
        while let Some(left) = portion.checked_sub(1)
            && let Some(Passenger { operations, answer }) = trip.passengers.pop_front()
        {
            *portion = left;
            let own = self.told..self.told + operations;
            self.told = own.end;
            let arrived = answer.send(self.answers.next(operations));
            if arrived.is_err() {
                // Nobody learned of the change when it was made.
                inner.denials.changed(&trip.keys[own]);
            }
        }
        trip.passengers.is_empty()
    }

    pub(super) fn into_trip(self) -> Box<Trip> {
        let mut trip = self.ready.trip;
        trip.reply = self.answers.into_reply();
        trip
    }
}

impl Trip {
    /// With more, the wait for the first would become the longer one.
    const MOST_OPERATIONS: usize = 64;

    /// After so many answers the runtime looks at its sockets. What the first to be answered asks next
    /// is then on its way while the others are answered. If all were answered at once, all would ask
    /// at once: this thread would wait for Redis, and Redis for this thread, at a quarter less
    /// throughput.
    pub(super) const PORTION: usize = 8;

    /// Bytes of arguments, or of a reply, whose buffer is kept.
    const MOST_KEPT: usize = 16 * 1024;

    /// Another one in the buffers of one that was made.
    fn again(mut self: Box<Self>, terms: Terms) -> Box<Trip> {
        self.terms = terms;
        self.keys.clear();
        self.arguments.clear();
        self.operations.clear();
        self.hinted = false;
        self.passengers.clear();
        self
    }

    fn new(terms: Terms) -> Trip {
        Trip {
            terms,
            keys: Vec::new(),
            arguments: Vec::new(),
            operations: Vec::new(),
            hinted: false,
            passengers: VecDeque::new(),
            reply: Vec::new(),
        }
    }

    fn takes(&self, terms: &Terms, operations: usize) -> bool {
        self.keys.len() + operations <= Self::MOST_OPERATIONS && self.terms.admit(terms)
    }

    fn add(
        &mut self,
        batch: &Batch<'_>,
        steps: &[Step<'_>],
        hints: &[Option<Hint>],
        passenger: Passenger,
    ) {
        for (at, (op, step)) in batch.ops().iter().zip(steps).enumerate() {
            let hint = hints.get(at).and_then(Option::as_ref);
            step.encode(&self.terms.program, hint, &mut self.arguments);
            self.operations.push(Operation {
                end: self.arguments.len(),
                era: hint.filter(|hint| hint.grows(op)).map(|hint| hint.era),
            });
            self.keys.push(op.key);
        }
        self.hinted |= !hints.is_empty();
        self.passengers.push_back(passenger);
    }

    /// Has cells compared with what was seen in an earlier era, possibly of another server.
    fn doubt_all_before(&mut self, era: u64) {
        for operation in &self.operations {
            if operation.era.is_some_and(|seen| seen != era) {
                script::doubt(&mut self.arguments[..operation.end]);
            }
        }
    }

    pub(super) fn program(&self) -> &Arc<Program> {
        &self.terms.program
    }

    fn command(&self, brings: bool, namespace: &str) -> Cmd {
        let script = match brings {
            true => self.terms.program.text.len(),
            false => self.terms.program.sha.len(),
        };
        let size = 192 + script + self.arguments.len() + 128 * self.keys.len();
        let mut command = Cmd::with_capacity(self.count(), size);
        self.say(brings, namespace, |pieces| {
            match pieces {
                [argument] => command.arg(argument),
                pieces => command.arg(pieces.concat()),
            };
        });
        command
    }

    /// How many arguments the command has.
    fn count(&self) -> usize {
        6 + 2 * self.keys.len() + usize::from(self.hinted)
    }

    /// The arguments of the command, which may bring the script along; each in pieces.
    fn say(&self, brings: bool, namespace: &str, mut argue: impl FnMut(&[&[u8]])) {
        let (name, script) = match brings {
            false => (&b"EVALSHA"[..], &self.terms.program.sha),
            true => (&b"EVAL"[..], &self.terms.program.text),
        };
        argue(&[name]);
        argue(&[script.as_bytes()]);
        let keys = self.keys.len() + usize::from(self.hinted);
        resp::Decimal::of(keys as u64).then(|digits| argue(&[digits]));
        for key in &self.keys {
            argue(&[namespace.as_bytes(), b":", &key.bytes()]);
        }
        if self.hinted {
            argue(&[namespace.as_bytes(), reset::MARK]);
        }
        let now = self.terms.now.map(Timestamp::as_micros);
        for time in [now, self.terms.slack_ms] {
            match time {
                Some(time) => resp::Decimal::of(time).then(|digits| argue(&[digits])),
                None => argue(&[]),
            }
        }
        argue(&[&self.sizes()]);
        let mut start = 0;
        for Operation { end, .. } in &self.operations {
            argue(&[&self.arguments[start..*end]]);
            start = *end;
        }
    }

    /// A copy of what is in a reply, where the last one was.
    pub(super) fn keep_reply(&mut self, reply: &[u8]) -> Vec<u8> {
        let mut kept = std::mem::take(&mut self.reply);
        kept.clear();
        kept.extend_from_slice(reply);
        kept
    }

    /// How many operations each batch has; nothing if each has one.
    fn sizes(&self) -> Vec<u8> {
        if self.keys.len() == self.passengers.len() {
            return Vec::new();
        }
        let size = |passenger: &Passenger| {
            let size = u16::try_from(passenger.operations);
            size.expect("`Inner::ask` refuses more").to_be_bytes()
        };
        self.passengers.iter().flat_map(size).collect()
    }

    pub(super) fn fail(&mut self, error: &Error) {
        for passenger in self.passengers.drain(..) {
            // Whoever has gone away needs no answer.
            let _ = passenger.answer.send(Err(error.clone()));
        }
    }
}
