//! Reading the values of flags.

use std::fmt::Display;
use std::str::FromStr;

use lexopt::{Parser, ValueExt};

pub(crate) type Error = Box<dyn std::error::Error>;

/// The value of a flag whose parser says itself what would be right.
pub(crate) fn understand<T, E: Display>(
    flag: &str,
    args: &mut Parser,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Error> {
    let text = args.value()?.string()?;
    parse(&text).map_err(|error| format!("{flag} {text:?}: {error}").into())
}

pub(crate) fn number<T: FromStr + Display + PartialOrd>(
    flag: &str,
    args: &mut Parser,
    least: T,
    most: T,
) -> Result<T, Error> {
    let text = args.value()?.string()?;
    match text.parse() {
        Ok(number) if least <= number && number <= most => Ok(number),
        _ => Err(
            format!("{flag} must be a whole number from {least} to {most}, not {text:?}").into(),
        ),
    }
}

pub(crate) fn choose<T: Clone>(
    flag: &str,
    args: &mut Parser,
    choices: &[(&str, T)],
) -> Result<T, Error> {
    let text = args.value()?.string()?;
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, choice)) => Ok(choice.clone()),
        None => {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("{flag} must be one of {}, not {text:?}", names.join(", ")).into())
        }
    }
}
