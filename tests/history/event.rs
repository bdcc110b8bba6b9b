//! What happened, and its text, in which a process tells another of it.

use std::collections::HashMap;

use traffik_core::{Cell, Decision, Timestamp, Verdict};

/// Hits that were made together, and what became of them.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// When it was asked and when answered, in ns since the epoch by the clock of this machine.
    pub(super) asked_ns: u64,
    /// `u64::MAX` if the answer was lost.
    pub(super) answered_ns: u64,
    pub(super) hits: Vec<Hit>,
    pub(super) outcome: Outcome,
    /// Whether no store was asked.
    pub(super) is_local: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hit {
    /// Its place in the world.
    pub(super) cell: usize,
    pub(super) cost: u32,
    /// Who asks.
    pub(super) asker: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Nobody knows whether they were charged.
    Lost,
    /// The backend said that they certainly were not.
    Unexecuted,
    /// For each hit.
    Told(Vec<Told>),
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) decision: Decision,
    /// Absent if a strategy was not asked where one looked.
    pub(super) seen: Option<Seen>,
}

/// What a strategy was shown when it decided.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) cell: Cell,
}

impl Event {
    pub(super) fn told(&self) -> &[Told] {
        match &self.outcome {
            Outcome::Told(told) => told,
            Outcome::Lost | Outcome::Unexecuted => &[],
        }
    }

    /// When the backend decided, by its own clock; or when it was asked, if nobody saw.
    pub(super) fn time(&self) -> Timestamp {
        let seen = self.told().iter().find_map(|told| told.seen.as_ref());
        let asked = Timestamp::from_micros(self.asked_ns / 1_000);
        seen.map_or(asked, |seen| seen.now)
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.outcome, Outcome::Lost)
    }

    /// Whether something else than the store decided.
    pub(super) fn is_degraded(&self) -> bool {
        self.told().iter().any(|told| told.decision.is_degraded())
    }

    pub(super) fn is_admitted(&self) -> bool {
        let told = self.told();
        !told.is_empty() && told.iter().all(|told| told.decision.is_allowed())
    }

    /// The line that is written before it is asked.
    pub(super) fn question(&self, id: u64) -> String {
        let hits = self
            .hits
            .iter()
            .map(|hit| format!("{}:{}:{}", hit.cell, hit.cost, hit.asker));
        let hits: Vec<String> = hits.collect();
        format!("? {id} {} {}\n", self.asked_ns, hits.join(","))
    }

    /// The line that is written when it was answered.
    pub(super) fn answer(&self, id: u64) -> String {
        let outcome = match &self.outcome {
            Outcome::Lost => "lost".to_owned(),
            Outcome::Unexecuted => "unexecuted".to_owned(),
            Outcome::Told(told) => {
                let told: Vec<String> = told.iter().map(Told::text).collect();
                told.join(",")
            }
        };
        let kind = if self.is_local { '=' } else { '!' };
        format!("{kind} {id} {} {outcome}\n", self.answered_ns)
    }
}

impl Told {
    fn text(&self) -> String {
        let Told { decision, seen } = self;
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap();
        let seen = seen.as_ref().map_or("-:-".into(), |seen| {
            let cell: String = seen
                .cell
                .encode()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{}:{cell}", seen.now.as_micros())
        });
        format!(
            "{:?}:{}:{}:{}:{}:{}:{seen}",
            decision.verdict(),
            decision.limit(),
            decision.remaining(),
            micros(decision.wait()),
            micros(decision.reset()),
            decision.is_degraded(),
        )
    }

    fn parse(text: &str) -> Option<Told> {
        let mut parts = text.split(':');
        let mut next = || parts.next();
        let verdict = next()?;
        let mut number = || next()?.parse::<u64>().ok();
        let (limit, remaining, wait, reset) = (number()?, number()?, number()?, number()?);
        let decision = match verdict {
            "Allow" => Decision::allow(limit, remaining),
            "Deny" => Decision::deny(limit, remaining, wait),
            "Never" => Decision::never(limit, remaining),
            _ => return None,
        };
        let mut decision = decision.resets_in(reset);
        if next()? == "true" {
            decision = decision.into_degraded();
        }
        let (now, cell) = (next()?, next()?);
        let seen = now.parse().ok().map(|now| {
            let bytes = (0..cell.len() / 2).map(|at| u8::from_str_radix(&cell[2 * at..][..2], 16));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("hexadecimal digits");
            Seen {
                now: Timestamp::from_micros(now),
                cell: Cell::decode(&bytes),
            }
        });
        Some(Told { decision, seen })
    }
}

/// The events that a process told of. What it asked without telling of an answer is lost; a last line
/// in the middle of which it was killed was not asked yet, or is lost.
pub(super) fn parse(text: &str) -> Vec<Event> {
    let mut events = HashMap::new();
    for line in text.split_inclusive('\n') {
        let whole = line.strip_suffix('\n').and_then(|line| {
            let mut words = line.split(' ');
            Some([words.next()?, words.next()?, words.next()?, words.next()?])
        });
        let Some([kind, id, time, rest]) = whole else {
            continue;
        };
        let time = time.parse().expect("a time");
        if kind == "?" {
            let hits = rest.split(',').map(|hit| {
                let mut parts = hit.split(':').map(|part| part.parse().expect("a number"));
                let mut next = || parts.next().expect("three numbers");
                Hit {
                    cell: next(),
                    cost: u32::try_from(next()).expect("a cost"),
                    asker: next(),
                }
            });
            let event = Event {
                asked_ns: time,
                answered_ns: u64::MAX,
                hits: hits.collect(),
                outcome: Outcome::Lost,
                is_local: false,
            };
            events.insert(id, event);
            continue;
        }
        let event: &mut Event = events.get_mut(id).expect("it was asked");
        event.outcome = match rest {
            "lost" => continue,
            "unexecuted" => Outcome::Unexecuted,
            told => Outcome::Told(
                told.split(',')
                    .map(|told| Told::parse(told).expect("an answer"))
                    .collect(),
            ),
        };
        event.answered_ns = time;
        event.is_local = kind == "=";
    }
    events.into_values().collect()
}

/// Whether two decisions say the same, whoever made them.
pub(super) fn is_same(one: &Decision, other: &Decision) -> bool {
    let all = |decision: &Decision| -> (Verdict, [u64; 2], [std::time::Duration; 2]) {
        (
            decision.verdict(),
            [decision.limit(), decision.remaining()],
            [decision.wait(), decision.reset()],
        )
    };
    all(one) == all(other)
}

#[test]
fn events_survive_being_told() {
    let mut cell = Cell::fresh();
    cell.set(&[1, 2, 3], Timestamp::from_micros(4));
    cell.queue_mut().push([5, 6]);
    let told = Told {
        decision: Decision::deny(7, 6, 5).resets_in(8).into_degraded(),
        seen: Some(Seen {
            now: Timestamp::from_micros(9),
            cell,
        }),
    };
    let never = Told {
        decision: Decision::never(7, 7),
        seen: None,
    };
    let hits = [(1, 2, 0), (3, 0, 1)].map(|(cell, cost, asker)| Hit { cell, cost, asker });
    let event = |outcome| Event {
        asked_ns: 10,
        answered_ns: 20,
        hits: hits.to_vec(),
        outcome,
        is_local: false,
    };
    let all = [
        Event {
            is_local: true,
            ..event(Outcome::Told(vec![never.clone()]))
        },
        event(Outcome::Told(vec![told, never])),
        event(Outcome::Unexecuted),
        Event {
            answered_ns: u64::MAX,
            ..event(Outcome::Lost)
        },
    ];
    for event in &all {
        let text = event.question(1) + &event.answer(1) + "? 2 30 1:1";
        let [parsed] = &parse(&text)[..] else {
            panic!("{text}")
        };
        assert_eq!(format!("{parsed:?}"), format!("{event:?}"));
    }
    assert!(parse(&all[0].question(1))[0].is_lost(), "it was killed");
}
