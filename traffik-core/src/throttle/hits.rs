use smallvec::SmallVec;

use super::{Attempt, Failure, OnError, Recover, Throttle};
use crate::backend::{Backend, Batch, Op};
use crate::decision::{Decision, Decisions};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::key::KeyHasher;
use crate::observe::{self, Stopwatch};
use crate::resilience::Outage;
use crate::together::together;

/// The hits of one request on several throttles, decided together: all are admitted and charged,
/// or none is charged.
///
/// ```
/// use traffik_core::{Hits, Identity, MemoryBackend, Throttle};
///
/// let backend = MemoryBackend::new();
/// let burst = Throttle::builder("burst").rate("2/second").backend(backend.clone()).build()?;
/// let daily = Throttle::builder("daily").rate("1/day").backend(backend).build()?;
/// let ann = Identity::of("ann");
///
/// let hits = Hits::from_iter([(&burst, &ann), (&daily, &ann)]);
/// assert!(hits.try_decide().unwrap()?.is_allowed());
/// let decisions = hits.try_decide().unwrap()?;
/// assert!(decisions[1].is_denied());
/// assert_eq!(decisions[0].remaining(), 1); // not charged, since `daily` denied
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// Throttles on *different* backends cannot be decided in one atomic step. All backends are then
/// asked first, at once, and charged afterwards, one after the other, so that a denial charges
/// nothing, unless another request takes the last of a limit in between. A backend that fails when
/// it is asked is not asked again to charge.
///
/// `P` is what is asked if a backend fails; see [`Recover`].
#[derive(Clone, Debug)]
pub struct Hits<'a, P = &'a OnError> {
    pub(crate) entries: SmallVec<[Entry<'a, P>; 3]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a, P> {
    pub(crate) throttle: &'a Throttle,
    pub(crate) attempt: Attempt<'a>,
    pub(crate) backend: &'a dyn Backend,
    policy: P,
}

/// The operations of all hits on one backend, and which hit each belongs to.
struct Group<'a> {
    backend: &'a dyn Backend,
    ops: SmallVec<[Op<'a>; 3]>,
    /// For every hit its position in `ops`, if it is in this group and limited at all.
    op_of: SmallVec<[Option<usize>; 3]>,
}

impl<'a> Group<'a> {
    /// Puts an operation beside the others; its place, if it has one.
    #[inline]
    fn place(&mut self, op: Op<'a>, is_shadow: bool) -> Option<usize> {
        let Some(twin) = self.ops.iter().position(|other| other.key == op.key) else {
            self.ops.push(op);
            return Some(self.ops.len() - 1);
        };
        // Who only says what it would do takes nothing of what another takes.
        if is_shadow {
            return None;
        }
        let other = &mut self.ops[twin];
        if other.strategy.is_correction() {
            *other = op;
            let of_twin = self.op_of.iter_mut().filter(|of| **of == Some(twin));
            of_twin.for_each(|of| *of = None);
        } else {
            // Two hits on one count are one hit of both costs.
            other.cost = other.cost.saturating_add(op.cost);
        }
        Some(twin)
    }
}

/// What several backends would answer.
#[derive(Default)]
struct Preview {
    decisions: Decisions,
    /// The places of the groups whose backends could not say.
    failed: SmallVec<[usize; 1]>,
}

impl<'a> Hits<'a> {
    /// No hits.
    pub fn new() -> Hits<'a> {
        Hits::default()
    }

    /// Adds an attempt on a throttle and its own backend.
    pub fn push(&mut self, throttle: &'a Throttle, attempt: impl Into<Attempt<'a>>) {
        self.push_on(
            throttle,
            attempt.into(),
            throttle.backend(),
            &OnError::Throttle,
        );
    }

    /// Decides a single hit on the throttle's own backend, if that need not wait.
    #[inline]
    pub(super) fn try_decide_own(
        throttle: &'a Throttle,
        attempt: Attempt<'a>,
    ) -> Option<Result<Decision>> {
        let entry = Entry {
            throttle,
            attempt,
            backend: throttle.backend(),
            policy: &OnError::Throttle,
        };
        let decided = entry.try_decide(&throttle.0.hasher);
        entry.note(&decided);
        decided
    }

    /// Decides a hit of one and the same identity on each of several throttles without waiting, if their
    /// backend can: the same as a list of such hits, where nothing is put together that only other lists need.
    /// For adapters, which know that all have a rate, nobody is exempt, no two share a count, and what to
    /// do about [errors](Hits::recover_from).
    #[doc(hidden)]
    #[inline]
    pub fn try_decide_all(
        throttles: impl Iterator<Item = &'a Throttle> + Clone,
        identity: &'a Identity,
        backend: &dyn Backend,
    ) -> Option<Result<Decisions>> {
        let hasher = backend.key_hasher();
        let who = hasher.identity(identity);
        let attempt = Attempt::by(identity);
        let mut ops = SmallVec::<[Op<'a>; 3]>::new();
        for throttle in throttles.clone() {
            ops.push(throttle.op_by(&throttle.0.rate, &attempt, hasher, || who));
        }
        let mut decided = backend.try_apply(&Batch::new(&ops))?;
        if let Ok(decisions) = &mut decided {
            let is_denied = decisions.is_denied();
            for (decision, throttle) in decisions.iter_mut().zip(throttles) {
                if is_denied {
                    *decision = throttle.floor(*decision);
                }
                observe::decided(throttle, identity, decision, is_denied);
            }
        }
        Some(decided)
    }
}

impl<'a, P: Recover> Hits<'a, P> {
    /// Adds an attempt on a throttle, on a backend the caller found for it, with what to do if that
    /// fails.
    pub fn push_on(
        &mut self,
        throttle: &'a Throttle,
        attempt: Attempt<'a>,
        backend: &'a dyn Backend,
        policy: P,
    ) {
        self.entries.push(Entry {
            throttle,
            attempt,
            backend,
            policy,
        });
    }

    /// Decides a single hit without waiting, if its backend can; the same as a list of one.
    #[inline]
    pub fn try_decide_one(
        throttle: &'a Throttle,
        attempt: Attempt<'a>,
        backend: &'a dyn Backend,
        policy: P,
    ) -> Option<Result<Decision>> {
        let entry = Entry {
            throttle,
            attempt,
            backend,
            policy,
        };
        let decided = entry.try_decide(backend.key_hasher());
        entry.note(&decided);
        decided
    }

    /// Decides without waiting, if every backend can.
    #[inline]
    pub fn try_decide(&self) -> Option<Result<Decisions>> {
        let decided = self.try_ask()?;
        self.note(&decided);
        Some(decided)
    }

    /// The same, which is not the last word.
    #[inline]
    pub(crate) fn try_ask(&self) -> Option<Result<Decisions>> {
        let first = match &*self.entries {
            [] => return Some(Ok(Decisions::default())),
            [entry] => {
                return entry
                    .try_decide(entry.backend.key_hasher())
                    .map(|decided| decided.map(Decisions::from));
            }
            [first, ..] => first,
        };
        let group = self.group(first.backend);
        if !self
            .entries
            .iter()
            .all(|entry| same(entry.backend, first.backend))
        {
            return None;
        }
        let decided = match group.ops.is_empty() {
            true => Ok(Decisions::default()),
            false => first.backend.try_apply(&Batch::new(&group.ops))?,
        };
        match decided {
            Ok(decisions) => {
                let mut decisions = self.spread(&group, decisions);
                if decisions.is_denied() {
                    self.try_successors(&mut decisions);
                }
                Some(Ok(decisions))
            }
            Err(error) => self.recover_now(&group, error),
        }
    }

    /// Decides alone what is to replace the throttle that denied: the batch undid what it charged.
    #[cold]
    fn try_successors(&self, decisions: &mut Decisions) {
        for at in self.successors(decisions) {
            let entry = &self.entries[at];
            let hasher = entry.backend.key_hasher();
            if let Some(Ok(decision)) = entry.try_decide(hasher) {
                decisions[at] = decision;
            }
        }
    }

    async fn decide_successors(&self, decisions: &mut Decisions) {
        for at in self.successors(decisions) {
            let entry = &self.entries[at];
            if let Ok(decision) = entry.decide().await {
                decisions[at] = decision;
            }
        }
    }

    /// Decides.
    ///
    /// # Errors
    ///
    /// If a backend fails and [`OnError::Raise`] is in force, or an error handler fails.
    pub async fn decide(&self) -> Result<Decisions> {
        observe::spanned(self, self.ask_and_note()).await
    }

    async fn ask_and_note(&self) -> Result<Decisions> {
        let decided = self.ask().await;
        self.note(&decided);
        decided
    }

    /// The same, which is not the last word: whoever waits for their turn asks again. For adapters.
    #[doc(hidden)]
    pub async fn ask(&self) -> Result<Decisions> {
        match &*self.entries {
            [] => Ok(Decisions::default()),
            [entry] => Ok(entry.decide().await?.into()),
            // Boxed, since it would enlarge the future of a single hit.
            _ => Box::pin(self.decide_together()).await,
        }
    }

    async fn decide_together(&self) -> Result<Decisions> {
        let watch = Stopwatch::start();
        let mut decided = self.decide_groups().await;
        for entry in &self.entries {
            entry.took(&watch);
        }
        if let Ok(decisions) = &mut decided
            && decisions.is_denied()
        {
            self.decide_successors(decisions).await;
        }
        decided
    }

    async fn decide_groups(&self) -> Result<Decisions> {
        let groups = self.groups();
        // Boxed, since it is rare and would enlarge the future of every hit.
        let preview = match groups.len() > 1 {
            true => Box::pin(self.preview_of(&groups)).await?,
            false => Preview::default(),
        };
        for failed in &preview.failed {
            self.note_degraded(&groups[*failed]);
        }
        if preview.decisions.is_denied() {
            return Ok(preview.decisions);
        }
        let mut all = self.unlimited();
        for (place, group) in groups.iter().enumerate() {
            if preview.failed.contains(&place) {
                self.merge(&mut all, group, &preview.decisions);
                continue;
            }
            let decided = match group.ops.is_empty() {
                true => Ok(Decisions::default()),
                false => group.backend.apply(&Batch::new(&group.ops)).await,
            };
            let decisions = match decided {
                Ok(decisions) => {
                    for entry in self.limited(group) {
                        entry.outage().succeed();
                    }
                    self.spread(group, decisions)
                }
                Err(error) => {
                    let recovered = Box::pin(self.recover(group, error)).await?;
                    self.note_degraded(group);
                    recovered
                }
            };
            self.merge(&mut all, group, &decisions);
            if all.is_denied() {
                break;
            }
        }
        Ok(all)
    }

    /// What each hit would be answered, charging nothing.
    ///
    /// # Errors
    ///
    /// As [`decide`](Hits::decide).
    pub async fn preview(&self) -> Result<Decisions> {
        Ok(self.preview_of(&self.groups()).await?.decisions)
    }

    /// Takes no longer than the slowest of the backends.
    async fn preview_of(&self, groups: &[Group<'a>]) -> Result<Preview> {
        let mut loads = Vec::new();
        for group in groups {
            loads.extend(group.ops.iter().map(|op| group.backend.load(op)));
        }
        let mut loaded = together(loads).await.into_iter();
        let mut preview = Preview {
            decisions: self.unlimited(),
            failed: SmallVec::new(),
        };
        for (place, group) in groups.iter().enumerate() {
            let cells: Vec<_> = loaded.by_ref().take(group.ops.len()).collect();
            let decided = group.ops.iter().zip(cells).map(|(op, loaded)| {
                let (mut cell, now) = loaded?;
                let before = op.peek(&mut cell, now);
                let next = op.step(&mut cell, now);
                let tells = next.is_denied() || next.hides_denial();
                Ok(if tells { next } else { before })
            });
            let decisions = match decided.collect() {
                Ok(decisions) => self.spread(group, decisions),
                Err(error) => {
                    preview.failed.push(place);
                    self.recover(group, error).await?
                }
            };
            self.merge(&mut preview.decisions, group, &decisions);
        }
        Ok(preview)
    }

    fn groups(&self) -> SmallVec<[Group<'a>; 1]> {
        let mut groups = SmallVec::<[Group<'a>; 1]>::new();
        for entry in &self.entries {
            if !groups
                .iter()
                .any(|group| same(group.backend, entry.backend))
            {
                groups.push(self.group(entry.backend));
            }
        }
        groups
    }

    #[inline]
    fn group(&self, backend: &'a dyn Backend) -> Group<'a> {
        let hasher = backend.key_hasher();
        let mut group = Group {
            backend,
            ops: SmallVec::new(),
            op_of: SmallVec::new(),
        };
        // Mostly all are by one and the same.
        let mut known: Option<(&Identity, u128)> = None;
        let mut digest = |identity: &'a Identity| match known {
            Some((one, digest)) if one.who == identity.who => digest,
            _ => known.insert((identity, hasher.identity(identity))).1,
        };
        for entry in &self.entries {
            let Entry {
                throttle, attempt, ..
            } = entry;
            let rate = match same(entry.backend, backend) {
                true => throttle.rate_of(attempt),
                false => None,
            };
            let op =
                rate.map(|rate| throttle.op_by(rate, attempt, hasher, || digest(attempt.identity)));
            let place = op.and_then(|op| group.place(op, throttle.is_shadow()));
            group.op_of.push(place);
        }
        group
    }

    /// Takes the decisions of the hits on the backend of a group.
    fn merge(&self, all: &mut Decisions, group: &Group<'a>, decisions: &Decisions) {
        for (at, entry) in self.entries.iter().enumerate() {
            if same(entry.backend, group.backend) {
                all[at] = decisions[at];
            }
        }
    }

    /// The hits that are limited, on the backend of a group.
    fn limited(&self, group: &Group<'a>) -> impl Iterator<Item = &Entry<'a, P>> {
        let entries = self.entries.iter().zip(&group.op_of);
        entries.filter_map(|(entry, op)| op.map(|_| entry))
    }

    /// Gives every hit the decision of its operation.
    #[inline]
    fn spread(&self, group: &Group<'a>, decisions: Decisions) -> Decisions {
        self.entries
            .iter()
            .zip(&group.op_of)
            .map(|(entry, op)| op.map_or(Decision::UNLIMITED, |op| entry.floor(decisions[op])))
            .collect()
    }

    /// What is decided because a backend failed that all of these hits are on, unless that has to be waited
    /// for. For adapters that [asked it themselves](Hits::try_decide_all).
    #[doc(hidden)]
    #[cold]
    pub fn recover_from(&self, error: Error) -> Option<Result<Decisions>> {
        let backend = self.entries.first()?.backend;
        let decided = self.recover_now(&self.group(backend), error)?;
        self.note(&decided);
        Some(decided)
    }

    /// Applies everybody's error policy, if none has to be waited for.
    #[cold]
    fn recover_now(&self, group: &Group<'a>, error: Error) -> Option<Result<Decisions>> {
        let mut all = self.unlimited();
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(op) = group.op_of[at].map(|op| &group.ops[op]) {
                match entry.recover_now(&error, op)? {
                    Some(decision) => all[at] = decision,
                    None => return Some(Err(error)),
                }
            }
        }
        self.note_degraded(group);
        Some(Ok(all))
    }

    #[cold]
    async fn recover(&self, group: &Group<'a>, error: Error) -> Result<Decisions> {
        let mut all = self.unlimited();
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(op) = group.op_of[at].map(|op| &group.ops[op]) {
                match entry.answer(&error, op).await {
                    Some(decision) => all[at] = entry.floor(decision?),
                    None => return Err(error),
                }
            }
        }
        Ok(all)
    }

    fn note_degraded(&self, group: &Group<'a>) {
        for entry in self.limited(group) {
            entry.outage().degrade(1);
        }
    }

    /// Tells what was decided in the end.
    #[doc(hidden)]
    #[inline]
    pub fn note(&self, decided: &Result<Decisions>) {
        match decided {
            Ok(decisions) => {
                let is_denied = decisions.is_denied();
                for (entry, decision) in self.entries.iter().zip(decisions.iter()) {
                    match decision.shadowed() {
                        None => entry.note_one(decision, is_denied),
                        Some(would) => self.note_shadow(entry, &would, decisions),
                    }
                }
            }
            Err(_) => self.entries.iter().for_each(Entry::note_failed),
        }
    }

    #[cold]
    fn note_shadow(&self, entry: &Entry<'_, P>, would: &Decision, decisions: &Decisions) {
        let is_replaced = entry.throttle.replaces_all(self.denying(decisions));
        entry.note_shadow(would, decisions.is_denied(), is_replaced);
    }

    /// The throttles that denied.
    fn denying(&self, decisions: &Decisions) -> impl Iterator<Item = &Throttle> {
        let all = self.entries.iter().zip(decisions.iter());
        all.filter(|(_, decision)| decision.is_denied())
            .map(|(entry, _)| entry.throttle)
    }

    /// The throttles in shadow that would be asked alone, since nothing denied but what they are to replace.
    fn successors(&self, decisions: &Decisions) -> SmallVec<[usize; 1]> {
        let shadows = self.entries.iter().enumerate();
        shadows
            .filter(|(at, entry)| {
                decisions[*at].shadowed().is_some()
                    && entry.throttle.replaces_all(self.denying(decisions))
            })
            .map(|(at, _)| at)
            .collect()
    }

    fn unlimited(&self) -> Decisions {
        self.entries.iter().map(|_| Decision::UNLIMITED).collect()
    }
}

impl<P: Recover> Entry<'_, P> {
    /// The common case: one limit.
    #[inline]
    fn try_decide(&self, hasher: &KeyHasher) -> Option<Result<Decision>> {
        let Some(rate) = self.throttle.rate_of(&self.attempt) else {
            return Some(Ok(Decision::UNLIMITED));
        };
        let op = self.throttle.op_at(rate, &self.attempt, hasher);
        let mut decided = self.backend.try_step(&op);
        // In place: an admission is not taken apart and put together again on its way.
        match &mut decided {
            Some(Ok(decision)) if decision.is_denied() => *decision = self.floor(*decision),
            Some(Err(error)) => {
                if let Some(answer) = self.recover_now(error, &op)? {
                    self.outage().degrade(1);
                    decided = Some(Ok(answer));
                }
            }
            Some(Ok(_)) | None => {}
        }
        decided
    }

    async fn decide(&self) -> Result<Decision> {
        let hasher = self.backend.key_hasher();
        let Some(op) = self.throttle.op(&self.attempt, hasher) else {
            return Ok(Decision::UNLIMITED);
        };
        let batch = Batch::new(std::slice::from_ref(&op));
        let watch = Stopwatch::start();
        let applied = self.backend.apply(&batch).await;
        self.took(&watch);
        match applied {
            Ok(decisions) => {
                self.outage().succeed();
                Ok(self.floor(decisions[0]))
            }
            // Boxed, since it is rare and would enlarge the future of every hit.
            Err(error) => Box::pin(self.recover(&op, error)).await,
        }
    }

    /// What the error policy says; but a throttle in shadow stops nobody.
    #[cold]
    fn recover_now(&self, error: &Error, op: &Op<'_>) -> Option<Option<Decision>> {
        let failure = self.failure(error, op);
        match self.throttle.is_shadow() {
            true => Some(Some(failure.allow().into_shadow())),
            false => self.policy.recover_now(&failure),
        }
    }

    #[cold]
    async fn answer(&self, error: &Error, op: &Op<'_>) -> Option<Result<Decision>> {
        let failure = self.failure(error, op);
        match self.throttle.is_shadow() {
            true => Some(Ok(failure.allow().into_shadow())),
            false => self.policy.recover(&failure).await,
        }
    }

    #[cold]
    async fn recover(&self, op: &Op<'_>, error: Error) -> Result<Decision> {
        let recovered = self.answer(&error, op).await;
        let decision = self.floor(recovered.unwrap_or(Err(error))?);
        self.outage().degrade(1);
        Ok(decision)
    }

    #[inline]
    fn note(&self, decided: &Option<Result<Decision>>) {
        match decided {
            Some(Ok(decision)) => match decision.shadowed() {
                None => self.note_one(decision, false),
                Some(would) => self.note_shadow(&would, false, false),
            },
            Some(Err(_)) => self.note_failed(),
            None => {}
        }
    }

    #[cold]
    fn note_shadow(&self, would: &Decision, is_denied: bool, is_replaced: bool) {
        let difference = self.throttle.0.shadow.note(would, is_denied, is_replaced);
        observe::shadowed(self.throttle, would, difference);
    }

    #[inline]
    fn note_one(&self, decision: &Decision, is_denied: bool) {
        observe::decided(self.throttle, self.attempt.identity, decision, is_denied);
    }

    fn note_failed(&self) {
        if self.throttle.rate_of(&self.attempt).is_some() {
            observe::failed(self.throttle);
        }
    }

    #[inline]
    fn took(&self, watch: &Stopwatch) {
        if !self.backend.is_local() && self.throttle.rate_of(&self.attempt).is_some() {
            self.throttle.meters().took(watch);
        }
    }

    #[inline]
    fn floor(&self, decision: Decision) -> Decision {
        self.throttle.floor(decision)
    }

    fn outage(&self) -> &Outage {
        &self.throttle.0.outage
    }

    #[cold]
    fn failure<'f>(&'f self, error: &'f Error, op: &Op<'_>) -> Failure<'f> {
        if !error.is_invalid() {
            self.outage().fail(error);
        }
        Failure {
            error,
            throttle: self.throttle,
            identity: self.attempt.identity,
            scope: self.attempt.scope,
            rate: op.rate,
            cost: op.cost,
            backend: self.backend,
        }
    }
}

#[cfg(feature = "tracing")]
impl<P> Hits<'_, P> {
    pub(crate) fn first(&self) -> Option<&Throttle> {
        self.entries.first().map(|entry| entry.throttle)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<P> Default for Hits<'_, P> {
    fn default() -> Self {
        Hits {
            entries: SmallVec::new(),
        }
    }
}

fn same(one: &dyn Backend, other: &dyn Backend) -> bool {
    one.store_id() == other.store_id()
}

impl<'a> From<(&'a Throttle, Attempt<'a>)> for Hits<'a> {
    fn from((throttle, attempt): (&'a Throttle, Attempt<'a>)) -> Self {
        let mut hits = Hits::new();
        hits.push(throttle, attempt);
        hits
    }
}

impl<'a, A: Into<Attempt<'a>>> FromIterator<(&'a Throttle, A)> for Hits<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a Throttle, A)>>(attempts: I) -> Self {
        let mut hits = Hits::new();
        for (throttle, attempt) in attempts {
            hits.push(throttle, attempt);
        }
        hits
    }
}
