//! What a replay comes to.

use serde_json::{Value, json};

/// Everything there is to tell.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) lines: u64,
    pub(crate) unread: u64,
    /// The first line that is no request: its number, and how it begins.
    pub(crate) first_unread: Option<(u64, String)>,
    /// Requests that were logged more than a second after later ones.
    pub(crate) late: u64,
    pub(crate) requests: u64,
    pub(crate) denied: u64,
    pub(crate) clients: u64,
    pub(crate) clients_hurt: u64,
    /// Of these, how many were denied at most 1, 10, 50 and 100 % of their requests.
    pub(crate) hurt_at_most: [u64; 4],
    pub(crate) from_us: u64,
    pub(crate) until_us: u64,
    pub(crate) limits: Vec<Judged>,
    pub(crate) requests_over_time: Vec<u64>,
    pub(crate) offenders: Vec<Offender>,
    pub(crate) suggestions: Vec<Suggestion>,
}

/// A limit, and what it would have done.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) name: String,
    pub(crate) rate: String,
    pub(crate) strategy: String,
    pub(crate) matched: u64,
    pub(crate) denied: u64,
    pub(crate) clients_hurt: u64,
    pub(crate) over_time: Vec<u64>,
}

/// Who would have been denied most.
#[derive(Debug)]
pub(crate) struct Offender {
    pub(crate) name: String,
    pub(crate) requests: u64,
    pub(crate) denied: u64,
}

/// Limits that deny few.
#[derive(Debug)]
pub(crate) struct Suggestion {
    pub(crate) wish: String,
    pub(crate) strategy: String,
    /// The part that was asked for, in millionths.
    pub(crate) asked: u64,
    pub(crate) requests: u64,
    pub(crate) clients: u64,
    pub(crate) rows: Vec<Row>,
    /// Limits, and how many clients each denies at some time.
    pub(crate) curve: Vec<(u32, u64)>,
}

/// The smallest limit that denies at most a part of the clients, in millionths.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) share: u64,
    pub(crate) limit: u32,
    pub(crate) rate: String,
    pub(crate) clients: u64,
    pub(crate) denied: u64,
}

impl Report {
    pub(crate) fn to_json(&self) -> String {
        let limits: Vec<Value> = self.limits.iter().map(|limit| json!({
            "name": limit.name, "rate": limit.rate, "strategy": limit.strategy, "matched": limit.matched,
            "denied": limit.denied, "clients_hurt": limit.clients_hurt, "over_time": limit.over_time,
        })).collect();
        let offenders: Vec<Value> = self
            .offenders
            .iter()
            .map(|one| {
                json!({
                    "client": one.name, "requests": one.requests, "denied": one.denied,
                })
            })
            .collect();
        let suggestions: Vec<Value> = self.suggestions.iter().map(|one| json!({
            "wish": one.wish, "strategy": one.strategy, "requests": one.requests, "clients": one.clients,
            "limits": one.rows.iter().map(|row| json!({
                "denies_at_most_ppm": row.share, "rate": row.rate, "limit": row.limit, "clients_hurt": row.clients, "denied": row.denied,
            })).collect::<Vec<_>>(),
            "curve": one.curve,
        })).collect();
        let whole = json!({
            "lines": self.lines, "unread": self.unread, "late": self.late, "requests": self.requests,
            "denied": self.denied, "clients": self.clients, "clients_hurt": self.clients_hurt,
            "from_us": self.from_us, "until_us": self.until_us, "limits": limits,
            "requests_over_time": self.requests_over_time, "offenders": offenders, "suggestions": suggestions,
        });
        format!("{whole:#}\n")
    }
}

/// A part in percent, with up to four decimals: of millionths.
pub(crate) fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A part of a whole in percent, rounded to a hundredth.
pub(crate) fn part(part: u64, whole: u64) -> String {
    let hundredths = (u128::from(part) * 20_000 / u128::from(whole.max(1))).div_ceil(2);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_as_people_write_them() {
        let told = [
            percent(10_000),
            percent(1_000),
            percent(0),
            percent(1),
            percent(1_000_000),
        ];
        assert_eq!(told, ["1 %", "0.1 %", "0 %", "0.0001 %", "100 %"]);
        assert_eq!(
            [part(1, 3), part(0, 0), part(2, 2)],
            ["33.33 %", "0.00 %", "100.00 %"]
        );
    }
}
