//! The requests of a log, decided again.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use traffik_core::{
    Attempt, Clock, Hits, Identity, ManualClock, MemoryBackend, Throttle, Timestamp,
};

use crate::args::{Args, Who};
use crate::limit::Only;
use crate::line::{self, Entry};
use crate::report::{Judged, Offender, Report};
use crate::suggest::Suggesting;

/// Over how many parts of the time denials are told.
const PARTS: u64 = 120;
const SECOND: u64 = 1_000_000;

/// A log that is being read.
pub(crate) struct Replay {
    who: Who,
    limits: Vec<(Throttle, Only)>,
    clock: ManualClock,
    clients: Clients,
    wishes: Vec<Suggesting>,
    share: u64,
    /// Requests of the second at hand.
    waiting: Vec<Request>,
    lines: u64,
    unread: u64,
    first_unread: Option<(u64, String)>,
    late: u64,
    first: u64,
    now: u64,
    /// Seconds since the first request with any: how many came, and how many each limit denied.
    seconds: Vec<(u64, Vec<u32>)>,
    matched: Vec<u64>,
    denied: Vec<u64>,
    any_denied: u64,
    requests: u64,
}

#[derive(Clone, Copy)]
struct Request {
    client: u32,
    /// The limits that it meets, and the wishes above them, as bits.
    meets: u64,
}

/// The largest second of a log, after the first: ten years.
const LONGEST: u64 = 10 * 366 * 86_400;

impl Replay {
    pub(crate) fn new(args: &Args) -> Result<Replay, String> {
        let clock = ManualClock::at(Timestamp::EPOCH);
        let memory = MemoryBackend::builder()
            .shards(1)
            .max_keys(1 << 30)
            .max_bytes(usize::MAX >> 1)
            .clock(clock.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let throttle = |limit: &crate::limit::Limit| {
            let throttle = Throttle::builder(ascii(&limit.name))
                .rate(limit.rate)
                .strategy(&*limit.strategy)
                .backend(memory.clone())
                .build();
            let throttle = throttle.map_err(|error| error.to_string())?;
            Ok((throttle, limit.only.clone()))
        };
        let limits = args
            .limits
            .iter()
            .map(throttle)
            .collect::<Result<Vec<_>, String>>()?;
        if limits.len() + args.wishes.len() > 64 {
            return Err("at most 64 limits and suggestions at a time".to_owned());
        }
        let number = limits.len();
        Ok(Replay {
            who: args.who.clone(),
            limits,
            clock,
            clients: Clients::default(),
            wishes: args.wishes.iter().cloned().map(Suggesting::new).collect(),
            share: args.share,
            waiting: Vec::new(),
            lines: 0,
            unread: 0,
            first_unread: None,
            late: 0,
            first: 0,
            now: 0,
            seconds: Vec::new(),
            matched: vec![0; number],
            denied: vec![0; number],
            any_denied: 0,
            requests: 0,
        })
    }

    /// A line of the log.
    pub(crate) fn read(&mut self, line: &[u8]) {
        self.lines += 1;
        if line.is_empty() {
            return;
        }
        let Some(entry) = line::read(line, &self.who) else {
            self.unread += 1;
            let lines = self.lines;
            let shown = || {
                (
                    lines,
                    String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned(),
                )
            };
            self.first_unread.get_or_insert_with(shown);
            return;
        };
        self.request(&entry);
    }

    fn request(&mut self, entry: &Entry<'_>) {
        if self.requests == 0 {
            self.first = entry.at.micros / SECOND * SECOND;
            self.now = entry.at.micros;
        }
        let meets = self.meets(entry);
        let client = self.clients.of(&entry.who, &self.who);
        self.requests += 1;
        // A log is written when requests end: some come a little late, and count as if they had come now.
        let is_late = entry.at.micros / SECOND < self.now / SECOND;
        self.late += u64::from(is_late);
        let at = if is_late { self.now } else { entry.at.micros };
        let at = at.min(self.first + LONGEST * SECOND);
        if entry.at.is_fine || at / SECOND != self.now / SECOND {
            self.flush();
            self.now = at.max(self.now);
        }
        self.waiting.push(Request { client, meets });
        if entry.at.is_fine {
            self.flush();
        }
    }

    fn meets(&self, entry: &Entry<'_>) -> u64 {
        let limits = self.limits.iter().map(|(_, only)| only);
        let all = limits.chain(self.wishes.iter().map(|wish| &wish.wish.only));
        all.zip(0..).fold(0, |bits, (only, at)| {
            bits | u64::from(only.matches(entry)) << at
        })
    }

    /// Decides what came within a second, or at one instant.
    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let number = waiting.len() as u64;
        for (request, place) in waiting.iter().zip(0..) {
            // One by itself came when it says.
            let spread = if number > 1 {
                place * SECOND / number
            } else {
                0
            };
            self.decide(*request, self.now + spread);
        }
        self.waiting = waiting;
        self.waiting.clear();
    }

    fn decide(&mut self, request: Request, at: u64) {
        let at = at.max(self.clock.now().as_micros());
        self.clock.set(Timestamp::from_micros(at));
        for (wish, place) in self.wishes.iter_mut().zip(self.limits.len()..) {
            if request.meets >> place & 1 == 1 {
                wish.note(request.client, at);
            }
        }
        let second = (at - self.first) / SECOND;
        if self.seconds.last().is_none_or(|(last, _)| *last != second) {
            self.seconds.push((second, vec![0; self.limits.len() + 1]));
        }
        let Some((_, row)) = self.seconds.last_mut() else {
            return; // one was pushed
        };
        row[0] += 1;
        let client = &mut self.clients.all[request.client as usize];
        client.requests += 1;
        let met = self
            .limits
            .iter()
            .enumerate()
            .filter(|(at, _)| request.meets >> at & 1 == 1);
        let hits: Hits<'_> = met
            .clone()
            .map(|(_, (throttle, _))| (throttle, Attempt::by(&client.identity)))
            .collect();
        let Some(Ok(decisions)) = hits.try_decide() else {
            return; // memory always answers
        };
        for ((place, _), decision) in met.zip(decisions.iter()) {
            self.matched[place] += 1;
            if decision.is_denied() {
                self.denied[place] += 1;
                row[place + 1] += 1;
                client.denied_by.resize(self.limits.len(), 0);
                client.denied_by[place] += 1;
            }
        }
        if decisions.is_denied() {
            self.any_denied += 1;
            client.denied += 1;
        }
    }

    /// What it comes to.
    pub(crate) fn finish(mut self) -> Result<Report, String> {
        self.flush();
        if self.requests == 0 {
            return Err(match &self.first_unread {
                Some((at, line)) => format!(
                    "none of {} lines is a request that tells who asks; line {at} is {line:?}",
                    self.lines
                ),
                None => "the log is empty".to_owned(),
            });
        }
        let clients = &self.clients.all;
        let limits = self.limits.iter().enumerate().map(|(at, (throttle, _))| {
            let hurt = clients.iter().filter(|client| client.denials(at) > 0);
            Judged {
                name: throttle.name().to_owned(),
                rate: throttle.rate().to_string(),
                strategy: throttle.strategy().id().to_owned(),
                matched: self.matched[at],
                denied: self.denied[at],
                clients_hurt: hurt.count() as u64,
                over_time: parts(&self.seconds, at + 1),
            }
        });
        let shares = [1, 10, 50, 100].map(|percent| {
            let under = |client: &&Client| {
                client.denied > 0 && client.denied * 100 <= client.requests * percent
            };
            clients.iter().filter(under).count() as u64
        });
        Ok(Report {
            lines: self.lines,
            unread: self.unread,
            first_unread: self.first_unread,
            late: self.late,
            requests: self.requests,
            denied: self.any_denied,
            clients: clients.len() as u64,
            clients_hurt: clients.iter().filter(|client| client.denied > 0).count() as u64,
            hurt_at_most: shares,
            from_us: self.first,
            until_us: self.clock.now().as_micros(),
            limits: limits.collect(),
            requests_over_time: parts(&self.seconds, 0),
            offenders: offenders(clients),
            suggestions: self
                .wishes
                .into_iter()
                .map(|wish| wish.finish(self.share))
                .collect::<Result<Vec<_>, String>>()?,
        })
    }
}

/// Names of throttles are printable ASCII.
fn ascii(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect()
}

/// A column, summed up over so many parts of the time.
fn parts(seconds: &[(u64, Vec<u32>)], column: usize) -> Vec<u64> {
    let length = seconds.last().map_or(0, |(last, _)| last + 1);
    let parts = length.min(PARTS);
    let mut sums = vec![0; usize::try_from(parts).unwrap_or(0)];
    for (at, row) in seconds {
        // Below the number of parts, which is small.
        if let Some(sum) = usize::try_from(at * parts / length)
            .ok()
            .and_then(|part| sums.get_mut(part))
        {
            *sum += u64::from(row[column]);
        }
    }
    sums
}

fn offenders(clients: &[Client]) -> Vec<Offender> {
    let mut worst: Vec<_> = clients.iter().filter(|client| client.denied > 0).collect();
    worst.sort_by_key(|client| (std::cmp::Reverse(client.denied), client.name.clone()));
    let told = worst.into_iter().take(10).map(|client| Offender {
        name: client.name.clone(),
        requests: client.requests,
        denied: client.denied,
    });
    told.collect()
}

/// Who asks.
#[derive(Default)]
struct Clients {
    all: Vec<Client>,
    by_address: HashMap<IpAddr, u32>,
    by_name: HashMap<String, u32>,
}

struct Client {
    name: String,
    identity: Identity,
    requests: u64,
    denied: u64,
    denied_by: Vec<u64>,
}

impl Client {
    fn denials(&self, limit: usize) -> u64 {
        self.denied_by.get(limit).copied().unwrap_or(0)
    }
}

impl Clients {
    fn of(&mut self, name: &str, who: &Who) -> u32 {
        let address = match who {
            Who::Address => name.parse::<IpAddr>().ok().map(grouped),
            Who::Field(_) => None,
        };
        let known = match address {
            Some(address) => self.by_address.get(&address),
            None => self.by_name.get(name),
        };
        if let Some(known) = known {
            return *known;
        }
        let new = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let (name, identity) = match address {
            Some(address) => {
                self.by_address.insert(address, new);
                (address.to_string(), Identity::ip(address))
            }
            None => {
                self.by_name.insert(name.to_owned(), new);
                (name.to_owned(), Identity::of(name))
            }
        };
        self.all.push(Client {
            name,
            identity,
            requests: 0,
            denied: 0,
            denied_by: Vec::new(),
        });
        new
    }
}

/// As `ClientIp` groups them by default.
fn grouped(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}
