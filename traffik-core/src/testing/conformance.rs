//! What every backend must do.
//!
//! Each function panics if the backend does not conform. They take the backend under test as it
//! would be used; where time matters it must be built on a [`ManualClock`] that is passed along.
//! The backend must be empty, and used by nobody else.
//!
//! ```
//! use std::sync::Arc;
//! use traffik_core::testing::conformance;
//! use traffik_core::{FixedWindow, Gcra, ManualClock, MemoryBackend, Strategy, TokenBucket};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let clock = ManualClock::default();
//! let backend = MemoryBackend::builder().clock(clock.clone()).build()?;
//! let strategies: [Arc<dyn Strategy>; 3] =
//!     [Arc::new(FixedWindow), Arc::new(TokenBucket::new()), Arc::new(Gcra::new())];
//!
//! conformance::decides_like_the_strategy(&backend, &clock, &strategies, 20).await;
//! conformance::admits_exactly_the_limit(&backend, &strategies).await;
//! conformance::batches_are_all_or_nothing(&backend).await;
//! conformance::dropped_futures_leave_nothing_behind(&backend).await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod trace;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use self::trace::Trace;
use crate::backend::{Backend, Batch, Op};
use crate::cell::Cell;
use crate::decision::{Decision, Decisions};
use crate::identity::{Attributes, Identity};
use crate::key::{Key, KeyHasher};
use crate::rate::Rate;
use crate::strategy::{Lending, Loan, Sharing, Strategy};
use crate::time::{ManualClock, Timestamp};
use crate::together::together;

/// Holds every decision, load and batch of `traces` random traces, for each strategy and for all
/// of them mixed, to what the strategies say: bit-identical, the clock of the backend included.
///
/// A trace hits a few keys at costs around the limit, at moments around the promised ones, with
/// changing rates, and a clock that now and then steps back. Strategies that
/// [share](Sharing::Everybody) a cell are hit by a crowd as well.
///
/// # Panics
///
/// If a decision differs or is an error; the message names the seed of the trace.
pub async fn decides_like_the_strategy(
    backend: &dyn Backend,
    clock: &ManualClock,
    strategies: &[Arc<dyn Strategy>],
    traces: u64,
) {
    for seed in 0..traces {
        for strategy in strategies {
            let one = std::slice::from_ref(strategy);
            Trace::new(backend, clock, one, seed).run().await;
        }
        Trace::new(backend, clock, strategies, seed).run().await;
    }
    for strategy in strategies {
        if strategy.sharing() == Sharing::Everybody {
            let one = std::slice::from_ref(strategy);
            Trace::new(backend, clock, one, traces).crowd().await;
        }
    }
}

/// Hits one key of each strategy from many futures at once.
///
/// # Panics
///
/// If not exactly as much is admitted as the strategy admits one after the other.
pub async fn admits_exactly_the_limit(backend: &dyn Backend, strategies: &[Arc<dyn Strategy>]) {
    // A period so long that nothing comes back meanwhile.
    let rate = Rate::per_day(17);
    for strategy in strategies {
        let op = op(key(backend, "exact", strategy, 0), strategy, rate);
        let (mut cell, now) = backend.load(&op).await.expect("a load");
        let one_by_one = (0..64).filter(|_| op.step(&mut cell, now).is_allowed());
        let expected = one_by_one.count();
        let batch = Batch::new(std::slice::from_ref(&op));
        let decisions = at_once((0..64).map(|_| backend.apply(&batch))).await;
        let admitted = decisions
            .iter()
            .filter(|decisions| decisions.is_allowed())
            .count();
        assert_eq!(
            admitted,
            expected,
            "{}: {admitted} of 64 hits at once were admitted, not {expected}",
            strategy.id(),
        );
    }
}

/// Charges two keys together from many futures at once, one of which has room for less, while
/// others hit only that one.
///
/// # Panics
///
/// If a key was charged for a batch that was denied.
pub async fn batches_are_all_or_nothing(backend: &dyn Backend) {
    let strategy: Arc<dyn Strategy> = Arc::new(crate::FixedWindow);
    let wide = op(
        key(backend, "wide", &strategy, 0),
        &strategy,
        Rate::per_day(1_000),
    );
    let narrow = op(
        key(backend, "narrow", &strategy, 0),
        &strategy,
        Rate::per_day(20),
    );
    let both = [wide, narrow];
    let reversed = [narrow, wide];
    let batches = [
        Batch::new(&both),
        Batch::new(&reversed),
        Batch::new(&both[1..]),
    ];
    let decided = at_once((0..60).map(|at| backend.apply(&batches[at % 3]))).await;

    let admitted = |batch: usize| {
        let of_it = decided.iter().skip(batch).step_by(3);
        of_it.filter(|decisions| decisions.is_allowed()).count() as u64
    };
    assert_eq!(
        admitted(0) + admitted(1) + admitted(2),
        20,
        "the narrow limit is exact"
    );
    let taken = wide.rate.limit() as u64 - remaining(backend, &wide).await;
    assert_eq!(
        taken,
        admitted(0) + admitted(1),
        "the wide limit is charged with it or not at all"
    );
}

/// Drops decisions at every stage of waiting, then decides as if nothing had been.
///
/// # Panics
///
/// If the key cannot be decided any more, or was charged more often than hit.
pub async fn dropped_futures_leave_nothing_behind(backend: &dyn Backend) {
    let strategy: Arc<dyn Strategy> = Arc::new(crate::FixedWindow);
    let op = op(
        key(backend, "dropped", &strategy, 0),
        &strategy,
        Rate::per_day(1_000),
    );
    let batch = Batch::new(std::slice::from_ref(&op));
    for polls in 0..8 {
        let mut deciding = pin!(backend.apply(&batch));
        let mut polled = 0;
        poll_fn(|context| {
            if polled == polls {
                return Poll::Ready(());
            }
            polled += 1;
            match deciding.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => {
                    // Polls that are not due are allowed, and come to the next stage sooner.
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }
    let decision = decide(backend, &batch).await[0];
    assert!(decision.is_allowed());
    assert!(
        (1_000 - 9..1_000).contains(&decision.remaining()),
        "nine hits were made, but {} are left of a thousand",
        decision.remaining()
    );
}

/// Fills two backends that share a store under different namespaces, and resets one.
///
/// # Panics
///
/// If the one is not as new, or the other is not as before.
pub async fn resets_its_own_namespace_only(backend: &dyn Backend, neighbour: &dyn Backend) {
    let strategy: Arc<dyn Strategy> = Arc::new(crate::FixedWindow);
    let rate = Rate::per_day(1);
    for who in 0..100 {
        for backend in [backend, neighbour] {
            let op = op(key(backend, "reset", &strategy, who), &strategy, rate);
            assert!(decide(backend, &Batch::new(&[op])).await.is_allowed());
        }
    }
    backend.reset().await.expect("a reset");
    for who in 0..100 {
        for (backend, left) in [(backend, 1), (neighbour, 0)] {
            let op = op(key(backend, "reset", &strategy, who), &strategy, rate);
            assert_eq!(remaining(backend, &op).await, left);
        }
    }
}

/// Lends hits to two handles of one store, of which one gives back a part of its own.
///
/// # Panics
///
/// If what comes back is not there for the other, or anything else is.
pub async fn what_comes_back_is_there_for_others(one: &dyn Backend, other: &dyn Backend) {
    let strategies: [Arc<dyn Strategy>; 4] = [
        Arc::new(crate::FixedWindow),
        Arc::new(crate::QuotaWithRollover::new()),
        Arc::new(crate::TokenBucket::new()),
        Arc::new(crate::LeakyBucket),
    ];
    let rate = Rate::new(100, Rate::MAX_PERIOD).expect("a limit and a period in range");
    for strategy in &strategies {
        let key = key(one, "lending", strategy, 0);
        let loan = |want, back, back_of| Loan {
            want,
            length_us: 60_000_000,
            back,
            back_of,
            spent: 0,
        };
        let lend = async |backend: &dyn Backend, cost, loan| {
            let lending = Lending::of(strategy, cost, loan);
            let shared: Arc<dyn Strategy> = Arc::clone(&lending) as _;
            let op = op(key, &shared, rate);
            let decided = decide(backend, &Batch::new(&[op])).await;
            (decided.is_allowed(), lending.lent())
        };
        let (_, mine) = lend(one, 0, loan(40, 0, 0)).await;
        let (_, yours) = lend(other, 0, loan(1_000, 0, 0)).await;
        assert_eq!((mine.amount, yours.amount, yours.free), (40, 60, 0));
        assert!(!lend(one, 1, Loan::default()).await.0, "all was lent");

        let (_, back) = lend(other, 0, loan(0, 30, yours.term)).await;
        assert_eq!((back.known, back.free), (true, 30));
        for _ in 0..30 {
            assert!(lend(one, 1, Loan::default()).await.0, "30 are back");
        }
        assert!(!lend(one, 1, Loan::default()).await.0, "30 are gone");
        let (_, void) = lend(other, 0, loan(1, 1, yours.term + 7)).await;
        assert_eq!((void.known, void.amount), (false, 0));
    }
}

/// Damages stored cells through `damage`, which stores the given bytes in place of the cell with
/// the given [text of a key](Key::text).
///
/// # Panics
///
/// If a damaged cell does not decide like a fresh one, or is not repaired by the next hit.
pub async fn repairs_what_was_damaged<D, F>(
    backend: &dyn Backend,
    strategies: &[Arc<dyn Strategy>],
    mut damage: D,
) where
    D: FnMut(String, Vec<u8>) -> F,
    F: Future<Output = ()>,
{
    for strategy in strategies {
        let op = op(
            key(backend, "damage", strategy, 0),
            strategy,
            Rate::per_day(100),
        );
        let batch = Batch::new(std::slice::from_ref(&op));
        let whole = decide(backend, &batch).await[0];
        let (cell, _) = backend.load(&op).await.expect("a load");
        for bytes in garbage(&cell) {
            damage(op.key.text(), bytes.clone()).await;
            let after = decide(backend, &batch).await[0];
            assert_eq!(
                (after.verdict(), after.remaining()),
                (whole.verdict(), whole.remaining()),
                "{}: {bytes:x?} does not decide like a fresh cell",
                strategy.id(),
            );
            let (repaired, now) = backend.load(&op).await.expect("a load");
            assert_eq!(
                op.stat(&repaired, now).remaining,
                whole.remaining(),
                "{}: {bytes:x?} is not repaired",
                strategy.id()
            );
        }
    }
}

/// What may be found in place of a cell.
fn garbage(cell: &Cell) -> Vec<Vec<u8>> {
    let whole = cell.encode();
    let cut = |len| whole[..len].to_vec();
    let mut garbage = vec![b"0".to_vec(), b"OK".to_vec(), vec![0xff; whole.len()]];
    garbage.extend([0, 1, 9, whole.len() - 1].map(cut));
    // Another version.
    garbage.push([&[whole[0] ^ 0x30], &whole[1..]].concat());
    for words in (0..=Cell::MAX_WORDS).filter(|count| *count != cell.words().len()) {
        let mut other = Cell::fresh();
        other.set(&[1; Cell::MAX_WORDS][..words], cell.expires());
        garbage.push(other.encode());
    }
    garbage
}

fn op<'a>(key: Key, strategy: &'a Arc<dyn Strategy>, rate: Rate) -> Op<'a> {
    Op {
        key,
        strategy,
        rate,
        cost: 1,
        attributes: &Attributes::NONE,
    }
}

fn key(backend: &dyn Backend, test: &str, strategy: &Arc<dyn Strategy>, who: u64) -> Key {
    Key {
        throttle: KeyHasher::throttle(&[test, &format!("{strategy:?}")]),
        scope: 0,
        who: backend.key_hasher().identity(&Identity::of(who)),
    }
}

async fn remaining(backend: &dyn Backend, op: &Op<'_>) -> u64 {
    let (mut cell, now) = backend.load(op).await.expect("a load");
    op.peek(&mut cell, now).remaining()
}

/// Decides as an adapter would: without waiting if the backend can.
async fn decide(backend: &dyn Backend, batch: &Batch<'_>) -> Decisions {
    let decided = match backend.try_apply(batch) {
        Some(decided) => decided,
        None => backend.apply(batch).await,
    };
    decided.unwrap_or_else(|error| panic!("no decision on {:?}: {error:?}", batch.ops()))
}

/// Waits for all of them at once.
async fn at_once<F>(futures: impl Iterator<Item = F>) -> Vec<Decisions>
where
    F: Future<Output = crate::Result<Decisions>> + Unpin,
{
    let decided = together(futures).await.into_iter();
    decided
        .map(|decisions| decisions.expect("a decision"))
        .collect()
}
