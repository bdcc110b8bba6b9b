//! What options are given. What does not parse is answered with what would.

use std::time::Duration;

use crate::identity::Priority;
use crate::rate::Rate;
use crate::strategy::Weekday;

/// A value, or what it must be.
pub(super) type Result<T> = std::result::Result<T, &'static str>;

pub(super) fn word(text: &str) -> Result<String> {
    Ok(text.to_owned())
}

pub(super) fn count(text: &str) -> Result<u32> {
    text.parse()
        .map_err(|_| "a whole number from 0 to 4294967295")
}

pub(super) fn signed(text: &str) -> Result<i32> {
    text.parse().map_err(|_| "a whole number such as `-5`")
}

pub(super) fn number(text: &str) -> Result<f64> {
    factor(text).ok_or("a number of at least 0 such as `0.5`")
}

pub(super) fn flag(text: &str) -> Result<bool> {
    text.parse().map_err(|_| "`true` or `false`")
}

pub(super) fn duration(text: &str) -> Result<Duration> {
    Rate::parse_period(text)
        .map_err(|_| "a duration such as `500ms` or `2 hours`, of 366 days at most")
}

pub(super) fn priority(text: &str) -> Result<Priority> {
    level(text).ok_or("low, normal, high or critical")
}

pub(super) fn weekday(text: &str) -> Result<Weekday> {
    Ok(match text {
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        "sunday" => Weekday::Sunday,
        _ => return Err("monday, tuesday, wednesday, thursday, friday, saturday or sunday"),
    })
}

pub(super) fn reserves(text: &str) -> Result<Vec<(Priority, f64)>> {
    list(text, |entry| named(entry, level))
        .ok_or("priorities and their parts such as `high:0.1|critical:0.2`")
}

pub(super) fn tiers(text: &str) -> Result<Vec<(String, f64)>> {
    list(text, |entry| named(entry, name))
        .ok_or("tiers and their multipliers such as `free:1|gold:4.5`")
}

pub(super) fn regions(text: &str) -> Result<Vec<(String, f64)>> {
    list(text, |entry| named(entry, name)).ok_or("regions and their parts such as `eu:0.6|us:0.4`")
}

pub(super) fn hours(text: &str) -> Result<Vec<(u32, u32, f64)>> {
    list(text, interval).ok_or("hours of the day and their multipliers such as `9-17:2|22-6:0.5`")
}

pub(super) fn minutes(text: &str) -> Result<Vec<(u32, u32, f64)>> {
    list(text, interval)
        .ok_or("minutes of the day and their multipliers such as `570-1050:2|1320-360:0.5`")
}

#[cfg(feature = "time-zone")]
pub(super) fn zone(text: &str) -> Result<crate::IanaZone> {
    crate::IanaZone::named(text)
        .map_err(|_| "a time zone of the IANA database such as `Europe/Berlin`")
}

fn list<T>(text: &str, entry: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split('|').map(entry).collect()
}

/// `free:1`
fn named<T>(entry: &str, name: fn(&str) -> Option<T>) -> Option<(T, f64)> {
    let (who, amount) = entry.rsplit_once(':')?;
    Some((name(who.trim())?, factor(amount)?))
}

/// `9-17:2`
fn interval(entry: &str) -> Option<(u32, u32, f64)> {
    let (hours, multiplier) = entry.split_once(':')?;
    let (from, to) = hours.split_once('-')?;
    let bound = |text: &str| text.trim().parse().ok();
    Some((bound(from)?, bound(to)?, factor(multiplier)?))
}

fn name(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn factor(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn level(text: &str) -> Option<Priority> {
    match text {
        "low" => Some(Priority::Low),
        "normal" => Some(Priority::Normal),
        "high" => Some(Priority::High),
        "critical" => Some(Priority::Critical),
        _ => None,
    }
}
