//! Round trips: what comes up at the same moment is asked in one command.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::Cmd;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::answer::{Answer, Answers};
use super::hints::Hint;
use super::link::{Link, Lost};
use super::script::{Program, Step};
use super::{Inner, reset, script};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::name::LONGEST_NAMESPACE;
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
    trips: VecDeque<Box<Trip>>,
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
    passengers: Vec<Passenger>,
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
        terms: Terms,
        batch: &Batch<'_>,
        steps: &[Step<'_>],
        hints: &[Option<Hint>],
    ) -> (oneshot::Receiver<Result<Answer>>, bool) {
        let (answer, answered) = oneshot::channel();
        let operations = steps.len();
        let mut waiting = self.lock();
        let Waiting { trips, made } = &mut *waiting;
        let is_new = !trips
            .back()
            .is_some_and(|trip| trip.takes(&terms, operations));
        if is_new {
            trips.push_back(match made.take() {
                Some(trip) => trip.again(terms.clone()),
                None => Box::new(Trip::new(terms.clone())),
            });
        }
        if let Some(trip) = trips.back_mut() {
            if let Some(wider) = trip.terms.program.wider(&terms.program) {
                trip.terms.program = Arc::clone(wider);
            }
            trip.add(batch, steps, hints);
            trip.passengers.push(Passenger { operations, answer });
        }
        (answered, is_new)
    }

    /// The next trip to be made; nobody can join any more.
    fn depart(&self) -> Option<Box<Trip>> {
        self.lock().trips.pop_front()
    }

    /// Keeps the buffers of a trip, unless they have become large.
    fn keep(&self, trip: Box<Trip>) {
        if trip.arguments.capacity() <= Trip::MOST_KEPT {
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
    ) -> impl Future<Output = Result<Answer>> + use<> {
        let hints = self.hints.of(batch);
        let (answered, is_new) = link.trips().board(terms, batch, steps, &hints);
        if is_new {
            // In a task of its own, so that it depends on none of those who take part.
            tokio::spawn(make_a_trip(Arc::clone(self), Arc::clone(link)));
        }
        async {
            let ended = |_| {
                Err(Error::interrupted(
                    "the runtime ended before redis answered",
                ))
            };
            answered.await.unwrap_or_else(ended)
        }
    }
}

async fn make_a_trip(inner: Arc<Inner>, link: Arc<Link>) {
    // As many are made as were begun.
    let Some(mut trip) = link.trips().depart() else {
        return;
    };
    match trip.ask(&inner, &link).await {
        Ok(answers) => trip.arrive(&inner, answers).await,
        Err(error) => trip.fail(&error),
    }
    link.trips().keep(trip);
}

impl Trip {
    /// With more, the wait for the first would become the longer one.
    const MOST_OPERATIONS: usize = 64;

    /// After so many answers the runtime looks at its sockets. What the first to be answered asks next
    /// is then on its way while the others are answered. If all were answered at once, all would ask
    /// at once: this thread would wait for Redis, and Redis for this thread, at a quarter less
    /// throughput.
    const PORTION: usize = 8;

    /// Bytes of arguments whose buffer is kept.
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
            passengers: Vec::new(),
        }
    }

    fn takes(&self, terms: &Terms, operations: usize) -> bool {
        self.keys.len() + operations <= Self::MOST_OPERATIONS && self.terms.admit(terms)
    }

    fn add(&mut self, batch: &Batch<'_>, steps: &[Step<'_>], hints: &[Option<Hint>]) {
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
    }

    /// One round trip. The first on each connection brings the script along; on a server that does
    /// not know it all the same, as on a cluster's other nodes, it takes two.
    async fn ask(&mut self, inner: &Inner, link: &Arc<Link>) -> Result<Answers> {
        let (mut resent, mut loaded, mut patience) = (false, false, None);
        loop {
            let era = inner.links.era();
            self.doubt_all_before(era);
            let line = link.line().await?;
            let program = &self.terms.program;
            let command = match loaded || link.brings(&line, program) {
                false => self.command("EVALSHA", &program.sha, &inner.namespace),
                true => self.command("EVAL", &program.text, &inner.namespace),
            };
            match link.ask(line, &command, &mut patience).await {
                Ok(reply) => return Answers::parse(reply, era),
                Err(lost) if lost.is_unknown_script() && !loaded => {
                    // The server has answered, if only this: the decision begins anew.
                    (loaded, patience) = (true, None);
                }
                Err(Lost::Unexecuted(_)) if !resent => resent = true,
                Err(lost) => return Err(lost.into()),
            }
        }
    }

    /// Has cells compared with what was seen in an earlier era, possibly of another server.
    fn doubt_all_before(&mut self, era: u64) {
        for operation in &self.operations {
            if operation.era.is_some_and(|seen| seen != era) {
                script::doubt(&mut self.arguments[..operation.end]);
            }
        }
    }

    fn command(&self, name: &str, script: &str, namespace: &str) -> Cmd {
        let count = self.keys.len();
        let size = 192 + script.len() + self.arguments.len() + 128 * count;
        let mut command = Cmd::with_capacity(7 + 2 * count, size);
        command.arg(name).arg(script);
        command.arg(count + usize::from(self.hinted));
        let mut name = SmallVec::<[u8; LONGEST_NAMESPACE + 1 + Key::TEXT]>::new();
        name.extend_from_slice(namespace.as_bytes());
        name.push(b':');
        for key in &self.keys {
            name.truncate(namespace.len() + 1);
            name.extend_from_slice(&key.bytes());
            command.arg(&*name);
        }
        if self.hinted {
            command.arg(reset::mark(namespace));
        }
        match self.terms.now {
            Some(now) => command.arg(now.as_micros()),
            None => command.arg(""),
        };
        match self.terms.slack_ms {
            Some(slack) => command.arg(slack),
            None => command.arg(""),
        };
        command.arg(self.sizes());
        let mut start = 0;
        for Operation { end, .. } in &self.operations {
            command.arg(&self.arguments[start..*end]);
            start = *end;
        }
        command
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

    async fn arrive(&mut self, inner: &Inner, mut answers: Answers) {
        inner.hints.count_losses(answers.losses);
        let mut keys = &*self.keys;
        for (at, Passenger { operations, answer }) in self.passengers.drain(..).enumerate() {
            if at > 0 && at % Self::PORTION == 0 {
                tokio::task::yield_now().await;
            }
            let (own, others) = keys.split_at(operations);
            keys = others;
            let arrived = answer.send(answers.next(operations));
            if arrived.is_err() {
                // Nobody learned of the change when it was made.
                inner.denials.changed(own);
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        for passenger in self.passengers.drain(..) {
            // Whoever has gone away needs no answer.
            let _ = passenger.answer.send(Err(error.clone()));
        }
    }
}
