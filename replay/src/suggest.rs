//! The smallest limit that denies few.

use std::sync::Arc;
use std::time::Duration;

use traffik_core::{Attributes, Cell, Hit, Rate, Strategy, Timestamp};

use crate::limit::{self, Only};
use crate::report::Suggestion;

/// What kind of limit is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    text: String,
    period: Duration,
    strategy: Arc<dyn Strategy>,
    pub(crate) only: Only,
}

impl Wish {
    /// `minute`, `10s;token_bucket;path=/api`.
    pub(crate) fn parse(text: &str) -> Result<Wish, String> {
        let within = |error: String| format!("--suggest {text:?}: {error}");
        let mut parts = text.split(';').map(str::trim);
        let period = Rate::parse_period(parts.next().unwrap_or_default());
        let period = period.map_err(|error| within(error.to_string()))?;
        let (strategy, only) = limit::rest(parts).map_err(within)?;
        let strategy =
            traffik_core::strategy::named(&strategy).map_err(|error| within(error.to_string()))?;
        Ok(Wish {
            text: text.to_owned(),
            period,
            strategy,
            only,
        })
    }

    fn rate(&self, limit: u32) -> Result<Rate, String> {
        Rate::new(limit, self.period).map_err(|error| error.to_string())
    }

    /// How many of one client's requests are denied.
    fn denied(&self, limit: u32, times: &[u64]) -> Result<u64, String> {
        let rate = self.rate(limit)?;
        let mut cell = Cell::fresh();
        let mut denied = 0;
        for at in times {
            let now = Timestamp::from_micros(*at);
            if now >= cell.expires() {
                cell = Cell::fresh();
            }
            let hit = Hit {
                now,
                rate: &rate,
                cost: 1,
                attributes: &Attributes::NONE,
            };
            denied += u64::from(self.strategy.step(&mut cell, &hit).is_denied());
        }
        Ok(denied)
    }

    /// The smallest limit that never denies one client, or the largest there is.
    fn enough_for(&self, times: &[u64]) -> Result<u32, String> {
        let is_enough = |limit: u32| Ok::<_, String>(self.denied(limit, times)? == 0);
        let mut most = 1;
        while most < Rate::MAX_LIMIT && !is_enough(most)? {
            most = most.saturating_mul(2).min(Rate::MAX_LIMIT);
        }
        let mut least = most / 2 + 1;
        while least < most {
            let middle = least + (most - least) / 2;
            match is_enough(middle)? {
                true => most = middle,
                false => least = middle + 1,
            }
        }
        Ok(most)
    }
}

/// A wish, and what came meanwhile.
pub(crate) struct Suggesting {
    pub(crate) wish: Wish,
    hits: Vec<(u32, u64)>,
}

/// Of the suggestions beside the one that was asked for, in millionths.
const OTHERS: [u64; 4] = [0, 1_000, 10_000, 50_000];
/// As many points has the curve.
const POINTS: usize = 100;

impl Suggesting {
    pub(crate) fn new(wish: Wish) -> Suggesting {
        Suggesting {
            wish,
            hits: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, client: u32, at: u64) {
        self.hits.push((client, at));
    }

    /// The smallest limits that deny at most these parts of the clients.
    pub(crate) fn finish(mut self, share: u64) -> Result<Suggestion, String> {
        self.hits.sort_unstable();
        let clients: Vec<Vec<u64>> = self
            .hits
            .chunk_by(|a, b| a.0 == b.0)
            .map(|hits| hits.iter().map(|(_, at)| *at).collect())
            .collect();
        let mut enough = Vec::with_capacity(clients.len());
        for (times, at) in clients.iter().zip(0_usize..) {
            enough.push((self.wish.enough_for(times)?, at));
        }
        enough.sort_unstable_by_key(|(limit, _)| std::cmp::Reverse(*limit));
        let mut shares = OTHERS.to_vec();
        shares.push(share);
        shares.sort_unstable();
        shares.dedup();
        let mut rows = Vec::new();
        for part in shares.into_iter().filter(|_| !enough.is_empty()) {
            // So many may be denied; the next one must not be.
            let may = usize::try_from(enough.len() as u64 * part / 1_000_000).unwrap_or(0);
            let limit = enough[may.min(enough.len() - 1)].0;
            let hurt: Vec<_> = enough
                .iter()
                .take_while(|(needs, _)| *needs > limit)
                .collect();
            let mut denied = 0;
            for (_, at) in &hurt {
                denied += self.wish.denied(limit, &clients[*at])?;
            }
            rows.push((part, limit, hurt.len() as u64, denied));
        }
        let step = enough.len().div_ceil(POINTS).max(1);
        let curve = enough.iter().enumerate().step_by(step);
        Ok(Suggestion {
            wish: self.wish.text.clone(),
            strategy: self.wish.strategy.id().to_owned(),
            asked: share,
            requests: self.hits.len() as u64,
            clients: enough.len() as u64,
            rows: rows
                .into_iter()
                .map(|(share, limit, clients, denied)| {
                    Ok(crate::report::Row {
                        share,
                        rate: self.wish.rate(limit)?.to_string(),
                        limit,
                        clients,
                        denied,
                    })
                })
                .collect::<Result<Vec<_>, String>>()?,
            curve: curve
                .map(|(hurt, (limit, _))| (*limit, hurt as u64))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggesting(text: &str, hits: &[(u32, u64)]) -> Suggestion {
        let mut suggesting = Suggesting::new(Wish::parse(text).unwrap());
        for (client, second) in hits {
            suggesting.note(*client, second * 1_000_000);
        }
        suggesting.finish(250_000).unwrap()
    }

    #[test]
    fn the_smallest_limit_is_the_smallest() {
        // Most in a minute: 5, 3, 2 and 1.
        let hits = [(0, 5), (1, 3), (2, 2), (3, 1)];
        let hits: Vec<_> = hits
            .iter()
            .flat_map(|(client, n)| (0..*n).map(|at| (*client, at)))
            .collect();
        let suggestion = suggesting("minute", &hits);
        let row = |share| {
            suggestion
                .rows
                .iter()
                .find(|row| row.share == share)
                .unwrap()
        };
        assert_eq!((row(0).limit, row(0).clients, row(0).denied), (5, 0, 0));
        assert_eq!(
            (
                row(250_000).limit,
                row(250_000).clients,
                row(250_000).denied
            ),
            (3, 1, 2)
        );
        assert_eq!(&*row(250_000).rate, "3/minute");
    }

    #[test]
    fn evenly_spaced_requests_need_little_of_what_spaces_them() {
        let hits: Vec<_> = (0..60).map(|at| (0, at * 2)).collect();
        let suggestion = suggesting("minute;gcra", &hits);
        assert_eq!(suggestion.rows[0].limit, 30);
    }
}
