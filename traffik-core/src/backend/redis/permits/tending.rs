//! Somebody who renews the leases, and tells of what has ended.
//!
//! A thread of its own for each Redis: a handler that blocks its worker must not let the leases of all others
//! end, and a permit may be dropped where there is no runtime.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::{Inner, RedisBackend};
use super::trips::{News, push_ended, push_renewed};
use super::{Ended, RENEWALS, RETRY, Shared, State};
use crate::key::Key;

impl RedisBackend {
    /// Has somebody tend to it.
    pub(super) fn tend(&self, state: &mut State) {
        if state.is_tended {
            return;
        }
        let tended = Tended(Arc::clone(self.permits()));
        let backend = Arc::downgrade(&self.0);
        let thread = std::thread::Builder::new().name("traffik-permits".into());
        match thread.spawn(move || run(&tended, &backend)) {
            Ok(_) => state.is_tended = true,
            Err(error) => log::error!("nobody renews the leases of what is in flight: {error}"),
        }
    }
}

struct Tended(Arc<Shared>);

impl Drop for Tended {
    fn drop(&mut self) {
        self.0.lock().is_tended = false;
    }
}

/// Whatever goes wrong, it is tried again: else the leases of all that is in flight would end.
fn run(tended: &Tended, backend: &Weak<Inner>) {
    loop {
        // What is consistent between statements is so afterwards, and what was under way is put back.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(tend(&tended.0, backend));
            std::io::Result::Ok(())
        }));
        match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => log::error!("no lease of what is in flight is renewed: {error}"),
            // The panic has been told.
            Err(_) => {
                log::error!("no lease of what is in flight was renewed, and that begins anew")
            }
        }
        std::thread::sleep(RETRY);
        if backend.strong_count() == 0 {
            return;
        }
    }
}

async fn tend(permits: &Shared, backend: &Weak<Inner>) {
    loop {
        let due = permits.lock().due;
        let news = permits.news.notified();
        match due {
            Some(due) => drop(tokio::time::timeout_at(due.into(), news).await),
            None => news.await,
        }
        let Some(backend) = backend.upgrade() else {
            return;
        };
        round(permits, &RedisBackend(backend)).await;
    }
}

/// One trip, if there is anything to tell.
async fn round(permits: &Shared, backend: &RedisBackend) {
    let (news, ended, pause) = {
        let mut state = permits.lock();
        let (news, ended) = state.collect();
        (news, ended, state.pause)
    };
    if news.is_empty() {
        return;
    }
    let mut unfinished = Unfinished {
        permits,
        ended: Some(ended),
    };
    #[cfg(test)]
    permits.falter();
    let untold = backend.tell(&news, pause.unwrap_or(Duration::MAX)).await;
    // It is told, or concluded below.
    let Some(ended) = unfinished.ended.take() else {
        return;
    };
    if let Some(error) = &untold.why {
        log::debug!("what is in flight could not be told: {error}");
    }
    let mut state = permits.lock();
    // Whoever waits looks for itself, also if the server could not be told.
    for one in &ended {
        if let Some(head) = state.heads.get(&one.count) {
            head.notify_one();
        }
    }
    state.conclude(ended, &untold.keys);
    let backend = match state.ended.is_empty() {
        true => state.backend.take(),
        false => None,
    };
    // The last one ends what this is the state of.
    drop(state);
    drop(backend);
}

/// What has ended, and will be told of later if it cannot be now, be it for a panic.
struct Unfinished<'a> {
    permits: &'a Shared,
    ended: Option<Vec<Ended>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            let mut state = self.permits.lock();
            let held = state.held.keys().copied();
            let untold = ended.iter().map(|one| one.key).chain(held).collect();
            state.conclude(ended, &untold);
        }
    }
}

impl State {
    /// All that has ended, and if leases are to be renewed all that is under way; what could not be told of before
    /// that, again.
    fn collect(&mut self) -> (Vec<News>, Vec<Ended>) {
        let now = Instant::now();
        let mut news = Vec::new();
        if self.due.is_some_and(|due| due <= now) {
            let all = self.renewal.is_none_or(|due| due <= now);
            for (key, held) in &self.held {
                if all || held.untold.is_some() {
                    push_renewed(&mut news, *key, held);
                }
            }
            if all {
                let shortest = self.held.values().map(|held| held.lease).min();
                self.pause = shortest.map(|lease| lease / RENEWALS);
                self.renewal = self.pause.map(|pause| now + pause);
            }
            self.due = self.renewal;
        }
        let ended = std::mem::take(&mut self.ended);
        push_ended(&mut news, &ended);
        (news, ended)
    }

    fn conclude(&mut self, ended: Vec<Ended>, untold: &HashSet<Key>) {
        let now = Instant::now();
        let again = ended
            .into_iter()
            .filter_map(|one| match untold.contains(&one.key) {
                true => (one.until > now).then_some(one),
                // Once more, a while later.
                false if one.is_doubtful => Some(Ended {
                    is_doubtful: false,
                    ..one
                }),
                false => None,
            });
        let before = self.ended.len();
        self.ended.extend(again);
        for key in untold {
            if let Some(held) = self.held.get_mut(key) {
                // Whatever is told of from now on includes all that there are.
                held.untold = held.untold.max(Some(0));
            }
        }
        if !untold.is_empty() || self.ended.len() > before {
            let soon = now + RETRY;
            if self.due.is_none_or(|due| soon < due) {
                self.due = Some(soon);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::Count;
    use super::*;

    /// Of a server that is not there.
    fn backend() -> RedisBackend {
        RedisBackend::builder("redis://127.0.0.1:1")
            .build()
            .unwrap()
    }

    #[test]
    fn nobody_renewed_leases_after_a_panic() {
        let backend = backend();
        let permits = Arc::clone(backend.permits());
        let count = Count {
            key: Key {
                throttle: 1,
                scope: 0,
                who: 1,
            },
            limit: 9,
            lease: Duration::from_millis(30),
        };
        permits.falters.store(1, Ordering::SeqCst);
        let permit = backend.permit_unasked(count, 9).unwrap();
        backend.end_permit(count, permit);
        let start = Instant::now();
        // The round that panics, and the next one.
        while permits.rounds.load(Ordering::SeqCst) < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "nobody goes on");
            std::thread::sleep(Duration::from_millis(1));
            // So that there is something to tell, whatever has ended by itself meanwhile.
            let _ = backend.permit_unasked(count, 1);
        }
        assert_eq!(permits.falters.load(Ordering::SeqCst), 0);
        assert!(permits.lock().is_tended);
    }

    /// Of each client that had waited once something was kept, until the process ended.
    #[test]
    fn who_had_waited_was_watched_for_ever() {
        let backend = backend();
        let key = ended(backend.permits(), 7, 1).key;
        let heads = || backend.permits().lock().heads.len();
        let count = Count {
            key,
            limit: 1,
            lease: Duration::from_secs(1),
        };
        let [one, two] = [0, 1].map(|_| backend.watch_permits(key));
        let place = backend.place(count);
        drop(place);
        assert_eq!(heads(), 1);
        drop(one);
        assert_eq!(heads(), 1, "the next one is there");
        drop(two);
        assert_eq!(heads(), 0);
    }

    /// A permit of somebody that is no more.
    fn ended(permits: &Shared, who: u128, permit: u64) -> Ended {
        let key = Key {
            throttle: 1,
            scope: 0,
            who,
        };
        Ended {
            count: key,
            key,
            member: permits.member(permit),
            until: Instant::now() + Duration::from_secs(60),
            is_doubtful: false,
        }
    }

    /// Each was looked for among all others, under the lock that every request takes: after an outage, or beside
    /// as many connections, for minutes.
    #[test]
    fn what_ended_of_many_clients_held_up_everybody() {
        const CLIENTS: u64 = 100_000;
        let permits = Shared::default();
        let all = (0..2 * CLIENTS).map(|nth| ended(&permits, (nth % CLIENTS).into(), nth));
        let mut state = State {
            ended: all.collect(),
            ..State::default()
        };
        let (news, ended) = state.collect();
        assert_eq!(ended.len() as u64, 2 * CLIENTS);
        assert_eq!(news.len() as u64, CLIENTS);
        assert!(news.iter().all(|one| one.ended.len() == 2));
    }

    #[test]
    fn what_had_ended_was_forgotten_by_a_panic() {
        let permits = Shared::default();
        let one = ended(&permits, 1, 1);
        drop(Unfinished {
            permits: &permits,
            ended: Some(vec![one]),
        });
        let state = permits.lock();
        assert_eq!(state.ended.len(), 1);
        assert!(state.due.is_some(), "and is told soon");
    }
}
