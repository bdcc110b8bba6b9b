//! What is asked and told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::super::RedisBackend;
use super::super::link::Lost;
use super::super::script::Program;
use super::{ASK, Count, Ended, Held, Member, Place, RENEW, WAITS, waiters};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::patience::in_time;
use crate::time::Timestamp;
use crate::together::together;

/// What becomes of a question for a permit.
#[derive(Debug)]
pub(super) enum Answer {
    Granted {
        remaining: u32,
    },
    Denied {
        place: Vec<u8>,
    },
    /// The server does not know of one that the asker has.
    Forgotten,
}

/// What is new about the permits of one key.
#[derive(Debug)]
pub(super) struct News {
    key: Key,
    lease: Duration,
    renewed: Vec<u64>,
    /// How many of those, at the end, the server has never heard of.
    unasked: usize,
    /// The latest among them that the server has yet to hear of.
    untold: Option<u64>,
    pub(super) ended: Vec<Member>,
}

/// What could not be told, and why not.
#[derive(Debug, Default)]
pub(super) struct Untold {
    pub(super) keys: HashSet<Key>,
    pub(super) why: Option<Error>,
}

/// How many permits a command tells of: a millisecond of the server's time.
const MOST_TOLD: usize = 1_000;

/// How many commands are on their way to a node of a cluster.
const AT_ONCE: usize = 32;

/// At the end of keys, by which they are no cells: a reset forgets counts, and not what is under way.
const MARK: &str = ":in-flight";

/// Rounded up, so that nothing ends early.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl RedisBackend {
    /// The answer, and how many leases have ended since nobody renewed them.
    pub(super) async fn ask_for(
        &self,
        count: Count,
        permit: u64,
        own: Option<u64>,
        place: Option<&Place>,
    ) -> Result<(Answer, u64)> {
        let keys = [count.key, waiters(&count.key)];
        let own = own.map_or_else(Member::new, |own| self.permits().member(own));
        let asked = self.run(&ASK, &keys, |command| {
            command.arg(count.limit).arg(millis(count.lease));
            command.arg(self.0.slack_ms());
            command.arg(&*self.permits().member(permit)).arg(&*own);
            match place {
                Some(place) => command.arg(millis(WAITS)).arg(&place.text),
                None => command.arg(0).arg(""),
            };
        });
        let reply = asked.await?;
        let (kind, remaining, place, expired): (u8, u32, Vec<u8>, u64) =
            redis::from_redis_value(reply).map_err(|error| {
                Error::other("redis answered with something else than a permit").with_source(error)
            })?;
        let answer = match kind {
            0 => Answer::Denied { place },
            1 => Answer::Granted { remaining },
            _ => Answer::Forgotten,
        };
        Ok((answer, expired))
    }

    /// Tells of all that is under way of one count.
    pub(super) async fn tell_of(&self, count: Key) -> Result<()> {
        let mut news = Vec::new();
        if let Some(held) = self.permits().lock().held.get(&count) {
            push_renewed(&mut news, count, held);
        }
        self.tell(&news, Duration::MAX)
            .await
            .why
            .map_or(Ok(()), Err)
    }

    /// Tells of what is under way, and of what is no more. Whatever ended while it travelled is told of once more: the
    /// server may have heard of that first.
    ///
    /// With a node of a cluster that hangs there is no more `patience` than this: others are to be told again.
    pub(super) async fn tell(&self, news: &[News], patience: Duration) -> Untold {
        let untold = self.tell_once(news, patience).await;
        let permits = self.permits();
        let mut state = permits.lock();
        for one in news {
            let held = state.held.get_mut(&one.key);
            // Unless there is a later one by now.
            let held = held.map(|held| {
                if !untold.keys.contains(&one.key) {
                    for permit in &one.renewed {
                        held.unasked.remove(permit);
                    }
                    if held.untold == one.untold {
                        held.untold = None;
                    }
                }
                &*held
            });
            let is_held = |permit: &u64| held.is_some_and(|held| held.permits.contains(permit));
            let ended: Vec<u64> = one
                .renewed
                .iter()
                .copied()
                .filter(|one| !is_held(one))
                .collect();
            for permit in ended {
                let ended = Ended {
                    count: one.key,
                    key: one.key,
                    member: permits.member(permit),
                    until: Instant::now() + one.lease,
                    is_doubtful: false,
                };
                state.ended.push(ended);
                permits.news.notify_one();
            }
        }
        untold
    }

    /// All nodes at once: while one hangs, the leases on the others go on.
    async fn tell_once(&self, news: &[News], patience: Duration) -> Untold {
        if !self.0.links.connect().has_slots() {
            let news: Vec<_> = news.iter().collect();
            return self.tell_server(&news).await;
        }
        let mut nodes = BTreeMap::<u64, Vec<&News>>::new();
        for one in news {
            nodes.entry(self.shard_of(&one.key)).or_default().push(one);
        }
        let telling = nodes
            .values()
            .map(|news| Box::pin(self.tell_node(news, patience)));
        let mut untold = Untold::default();
        for of_node in together(telling).await {
            untold.keys.extend(of_node.keys);
            untold.why = untold.why.or(of_node.why);
        }
        untold
    }

    /// Several keys with each command, one after the other.
    async fn tell_server(&self, news: &[&News]) -> Untold {
        let mut rest = news;
        while !rest.is_empty() {
            let mut size = 0;
            let fit = rest.iter().take_while(|one| {
                size += 1 + one.renewed.len() + one.ended.len();
                size <= MOST_TOLD
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            if let Err(why) = self.renew(now).await {
                return Untold::of(rest, why);
            }
            rest = later;
        }
        Untold::default()
    }

    /// A command for each key, since they are in several slots. A node that hangs gets no more than one.
    async fn tell_node(&self, news: &[&News], patience: Duration) -> Untold {
        let late = || {
            Err(Error::timeout(
                "a node of redis was not told of leases in time",
            ))
        };
        let (mut untold, mut rest, mut size) = (Untold::default(), news, 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            let telling = now.chunks(1).map(|one| {
                Box::pin(async move {
                    let renewed = in_time(patience, self.renew(one)).await;
                    renewed.unwrap_or_else(late)
                })
            });
            let told = together(telling).await;
            let is_away = told.iter().all(Result::is_err)
                // The slot of one key may have moved to a node that is.
                && (size > 1 || told.iter().flat_map(|one| one.as_ref().err()).any(Error::is_timeout));
            for (one, told) in now.iter().zip(told) {
                if let Err(why) = told {
                    untold.keys.insert(one.key);
                    untold.why.get_or_insert(why);
                }
            }
            if is_away {
                untold.keys.extend(later.iter().map(|one| one.key));
                break;
            }
            (rest, size) = (later, AT_ONCE);
        }
        untold
    }

    /// One command.
    async fn renew(&self, news: &[&News]) -> Result<()> {
        let keys: Vec<Key> = news.iter().map(|one| one.key).collect();
        let told = self.run(&RENEW, &keys, |command| {
            command.arg(self.0.slack_ms());
            for one in news {
                one.write(self, command);
            }
        });
        let ends: Vec<(u64, u64)> = redis::from_redis_value(told.await?).map_err(|error| {
            Error::other("redis answered with something else than ends of leases")
                .with_source(error)
        })?;
        let state = self.permits().lock();
        for (one, (lost, expired)) in news.iter().zip(ends) {
            state.lost(&one.key, lost);
            state.expired(&one.key, expired);
        }
        Ok(())
    }

    /// One round trip, or two where the server does not know the script.
    async fn run(
        &self,
        program: &Arc<Program>,
        keys: &[Key],
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value> {
        let inner = &self.0;
        inner.check_open()?;
        let link = inner.links.of_this_thread()?;
        let (mut resent, mut loaded, mut patience) = (false, false, None);
        loop {
            let line = link.line().await?;
            let mut command = match loaded || link.brings(line.epoch(), program) {
                false => start("EVALSHA", &program.sha),
                true => start("EVAL", &program.text),
            };
            command.arg(keys.len());
            for key in keys {
                command.arg(format!("{}:{key}{MARK}", inner.namespace));
            }
            match inner.now().map(Timestamp::as_micros) {
                Some(now) => command.arg(now / 1_000),
                None => command.arg(""),
            };
            arguments(&mut command);
            match link.ask(line, &command, &mut patience).await {
                Ok(reply) => return Ok(reply),
                Err(lost) if lost.is_unknown_script() && !loaded => {
                    (loaded, patience) = (true, None);
                }
                Err(Lost::Unexecuted(_)) if !resent => resent = true,
                Err(lost) => return Err(lost.into()),
            }
        }
    }
}

fn start(name: &str, script: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script);
    command
}

/// All that is under way of a count, in as many pieces as it takes.
pub(super) fn push_renewed(news: &mut Vec<News>, key: Key, held: &Held) {
    let is_unasked = |permit: &u64| held.unasked.contains(permit);
    let mut permits: Vec<u64> = held.permits.iter().copied().collect();
    if !held.unasked.is_empty() {
        permits.sort_by_key(is_unasked);
    }
    news.extend(permits.chunks(MOST_TOLD - 1).map(|part| News {
        key,
        lease: held.lease,
        renewed: part.to_vec(),
        unasked: part.iter().filter(|permit| is_unasked(permit)).count(),
        untold: held.untold,
        ended: Vec::new(),
    }));
}

/// Beside what else there is to tell of these keys.
pub(super) fn push_ended(news: &mut Vec<News>, all: &[Ended]) {
    if all.is_empty() {
        return;
    }
    // The latest of each key. There may be as many keys as clients, and others wait meanwhile.
    let places = news.iter().enumerate().map(|(at, one)| (one.key, at));
    let mut places: HashMap<Key, usize> = places.collect();
    for ended in all {
        let place = places.get(&ended.key).map(|at| &mut news[*at]);
        let has_room = |one: &&mut News| one.ended.len() + one.renewed.len() < MOST_TOLD - 1;
        if let Some(one) = place.filter(has_room) {
            one.ended.push(ended.member.clone());
            continue;
        }
        places.insert(ended.key, news.len());
        news.push(News {
            key: ended.key,
            lease: Duration::ZERO,
            renewed: Vec::new(),
            unasked: 0,
            untold: None,
            ended: vec![ended.member.clone()],
        });
    }
}

impl Untold {
    fn of(news: &[&News], why: Error) -> Untold {
        Untold {
            keys: news.iter().map(|one| one.key).collect(),
            why: Some(why),
        }
    }
}

impl News {
    fn write(&self, backend: &RedisBackend, command: &mut Cmd) {
        command.arg(millis(self.lease));
        command.arg(self.renewed.len()).arg(self.unasked);
        command.arg(self.ended.len());
        for permit in &self.renewed {
            command.arg(&*backend.permits().member(*permit));
        }
        for member in &self.ended {
            command.arg(&**member);
        }
    }
}
