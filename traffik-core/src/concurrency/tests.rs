use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll, Waker};

use super::*;

fn limit(in_flight: u32) -> ConcurrencyBuilder {
    Concurrency::builder("uploads").in_flight(in_flight)
}

fn ann() -> Identity {
    Identity::of("ann")
}

#[test]
fn exactly_so_many_are_under_way_however_many_threads_try() {
    use std::sync::atomic::AtomicU32;
    let limit = limit(7).build().unwrap();
    let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let mut held = Vec::new();
                for round in 0..20_000 {
                    if let Ok(one) = limit.try_acquire(&ann()) {
                        let now = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        held.push(one);
                    }
                    if round % 3 == 0
                        && let Some(one) = held.pop()
                    {
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(one);
                    }
                }
                now.fetch_sub(u32::try_from(held.len()).unwrap(), Ordering::SeqCst);
            });
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert_eq!(limit.info(), ConcurrencyInfo::default());
}

#[test]
fn an_identity_with_nothing_under_way_takes_no_room() {
    let limit = limit(2).build().unwrap();
    let empty = limit.0.table.room();
    let mut held = Vec::new();
    for who in 0..100_000_u32 {
        held.push(limit.try_acquire(&Identity::of(who)).unwrap());
    }
    assert_eq!(limit.info().counts, 100_000);
    held.clear();
    assert_eq!(limit.info(), ConcurrencyInfo::default());
    assert!(limit.0.table.room() <= empty + 16 * 2 * 64);
}

#[test]
fn who_is_exempt_is_not_counted_and_anonymous_ones_are_one() {
    let limit = limit(1).build().unwrap();
    let free: Vec<_> = (0..9)
        .map(|_| limit.try_acquire(&Identity::EXEMPT))
        .collect();
    assert!(
        free.iter()
            .all(|one| one.as_ref().is_ok_and(|one| !one.is_counted()))
    );
    let one = limit.try_acquire(&Identity::ANONYMOUS).unwrap();
    assert_eq!(one.remaining(), 0);
    let busy = limit.try_acquire(&Identity::ANONYMOUS).unwrap_err();
    assert_eq!(busy.to_string(), "one is under way already");
    assert_eq!(limit.in_flight(&Identity::ANONYMOUS), 1);
}

#[test]
fn a_shared_limit_counts_everybody_together() {
    let limit = limit(2).shared().build().unwrap();
    let _one = limit.try_acquire(&ann()).unwrap();
    let _two = limit.try_acquire(&Identity::of("ben")).unwrap();
    assert!(limit.try_acquire(&Identity::of("cid")).is_err());
    assert_eq!(limit.info().counts, 1);
}

#[test]
fn builders_say_what_is_wrong_and_what_would_be_right() {
    let error = |builder: ConcurrencyBuilder| builder.build().unwrap_err().to_string();
    assert!(error(Concurrency::builder("a")).contains("write `.in_flight(10)`"));
    assert!(error(limit(0)).contains("nothing would ever be admitted"));
    assert!(error(Concurrency::builder("größe").in_flight(1)).contains("printable ASCII"));
    assert!(error(Concurrency::builder("").in_flight(1)).contains("such as `uploads`"));
    assert!(error(Concurrency::builder("x".repeat(257)).in_flight(1)).contains("256 bytes"));
}

/// A future that is looked at by hand.
type Acquiring<'a> = std::pin::Pin<Box<dyn Future<Output = Result<InFlight, Busy>> + 'a>>;

fn acquire(limit: &Concurrency, max_wait: Duration) -> Acquiring<'_> {
    Box::pin(async move { limit.acquire(&ann(), max_wait).await })
}

fn look(acquiring: &mut Acquiring<'_>) -> Poll<Result<InFlight, Busy>> {
    let mut context = Context::from_waker(Waker::noop());
    acquiring.as_mut().poll(&mut context)
}

#[tokio::test]
async fn who_waits_is_admitted_in_order_and_nobody_overtakes() {
    let limit = limit(1).build().unwrap();
    let mut held = limit.try_acquire(&ann()).unwrap();
    let mut waiters: Vec<_> = (0..5).map(|_| acquire(&limit, Duration::MAX)).collect();
    for waiter in &mut waiters {
        assert!(look(waiter).is_pending());
    }
    assert_eq!(limit.info().waiting, 5);
    while !waiters.is_empty() {
        drop(held);
        assert!(limit.try_acquire(&ann()).is_err(), "a newcomer overtakes");
        for later in &mut waiters[1..] {
            assert!(look(later).is_pending());
        }
        let Poll::Ready(Ok(next)) = look(&mut waiters[0]) else {
            panic!("its turn has come");
        };
        held = next;
        drop(waiters.remove(0));
    }
    drop(held);
    assert_eq!(limit.info(), ConcurrencyInfo::default());
}

/// Dropped at any point: before its turn, when it has come and nobody knows, and in the middle of the queue.
#[tokio::test]
async fn a_waiter_that_is_dropped_keeps_nothing() {
    let limit = limit(1).build().unwrap();
    let held = limit.try_acquire(&ann()).unwrap();
    let mut waiters: Vec<_> = (0..4).map(|_| acquire(&limit, Duration::MAX)).collect();
    for waiter in &mut waiters {
        assert!(look(waiter).is_pending());
    }
    drop(waiters.remove(1));
    assert_eq!(limit.info().waiting, 3);
    drop(held);
    assert_eq!((limit.info().waiting, limit.in_flight(&ann())), (2, 1));
    // The first has not looked yet.
    drop(waiters.remove(0));
    assert_eq!((limit.info().waiting, limit.in_flight(&ann())), (1, 1));
    let Poll::Ready(Ok(second)) = look(&mut waiters[0]) else {
        panic!("its turn has come");
    };
    drop(second);
    drop(waiters);
    assert_eq!(limit.info(), ConcurrencyInfo::default());
    assert!(limit.try_acquire(&ann()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time_and_its_place_is_given_up() {
    let limit = limit(1).build().unwrap();
    let held = limit.try_acquire(&ann()).unwrap();
    let start = tokio::time::Instant::now();
    let busy = acquire(&limit, Duration::from_secs(2)).await.unwrap_err();
    assert!(busy.waited());
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(limit.info().waiting, 0);
    drop(held);
    assert!(acquire(&limit, Duration::from_secs(2)).await.is_ok());
}

/// Bounded for each and over all, and a client cannot take every place of a shared limit.
#[tokio::test]
async fn places_to_wait_are_bounded() {
    let limit = limit(1)
        .shared()
        .max_waiters(6)
        .max_waiters_per_client(4)
        .build()
        .unwrap();
    let _held = limit.try_acquire(&ann()).unwrap();
    let mut waiting = Vec::new();
    let mut admitted = |who: &str| {
        let (limit, who) = (limit.clone(), Identity::of(who));
        let mut waiter: Acquiring<'static> =
            Box::pin(async move { limit.acquire(&who, Duration::MAX).await });
        let waits = look(&mut waiter).is_pending();
        waiting.push(waiter);
        waits
    };
    let places = ["ann", "ann", "ann", "ann", "ann", "ben", "ben", "cid"];
    let waits = places.map(&mut admitted);
    assert_eq!(waits, [true, true, true, true, false, true, true, false]);
    let default = self::limit(1).max_waiters(2).build().unwrap();
    assert_eq!(default.0.max_waiters_per_client, 1);
}

/// Nobody is forgotten when waiters come, go and are served on several threads.
#[test]
fn nobody_is_forgotten() {
    let limit = limit(3)
        .max_waiters(10_000)
        .max_waiters_per_client(10_000)
        .build()
        .unwrap();
    let now = Arc::new(AtomicU32::new(0));
    let served: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| served_of_500(&limit, &now)))
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).sum()
    });
    // Of each 500 there are 333 that wait for as long as it takes.
    assert!(served >= 4 * 333, "{served}");
    assert_eq!(limit.info(), ConcurrencyInfo::default());
}

fn served_of_500(limit: &Concurrency, now: &Arc<AtomicU32>) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..500_u64 {
            let (limit, now) = (limit.clone(), Arc::clone(now));
            tasks.spawn(async move {
                // Some give up, whenever that is.
                let patience = match n % 3 {
                    0 => Duration::from_micros(n),
                    _ => Duration::MAX,
                };
                let Ok(one) = limit.acquire(&ann(), patience).await else {
                    return 0;
                };
                assert!(now.fetch_add(1, Ordering::SeqCst) < 3);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                drop(one);
                1
            });
        }
        tasks.join_all().await.into_iter().sum()
    })
}
