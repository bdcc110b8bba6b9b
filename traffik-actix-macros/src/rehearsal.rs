//! Asks the library while the handler is compiled what it would say when the server runs.

use proc_macro2::Span;
use syn::{Error, Lit, LitStr, Result};
use traffik_core::{Attributes, Cell, Hit, Rate, Timestamp, Verdict, strategy};

use crate::args::{Call, Limit};
use crate::table::{DEFAULT_STRATEGY, Strategy};
use crate::value::{Value, literal};

/// Checks that the strategy can serve the rate and that the cost can ever be paid, as far as they
/// are literals.
pub(crate) fn rehearse(limit: &Limit) -> Result<()> {
    let Some(Lit::Str(rate)) = given(limit, "rate") else {
        return Ok(());
    };
    let Some((of, at)) = strategy_of(limit, rate) else {
        return Ok(());
    };
    let Some(text) = in_words(of, &limit.options) else {
        return Ok(());
    };
    let strategy = strategy::named(&text).map_err(|error| Error::new(at, error))?;
    let rate = Rate::parse(&rate.value()).map_err(|error| Error::new(rate.span(), error))?;
    if rate.is_unlimited() {
        return Ok(());
    }
    strategy
        .validate(&rate)
        .map_err(|error| Error::new(at, error))?;

    let Some(Lit::Int(cost)) = given(limit, "cost").filter(|_| of.is_uniform) else {
        return Ok(());
    };
    let first = Hit {
        now: Timestamp::EPOCH,
        rate: &rate,
        cost: cost.base10_parse()?,
        attributes: &Attributes::NONE,
    };
    let decision = strategy.step(&mut Cell::fresh(), &first);
    match decision.verdict() {
        Verdict::Never => Err(Error::new(
            cost.span(),
            format!(
                "a cost of {} is never admitted: this limit never has more than {}",
                first.cost,
                decision.remaining()
            ),
        )),
        Verdict::Allow | Verdict::Deny => Ok(()),
    }
}

/// The literal that an argument is given, if it is one.
fn given<'a>(limit: &'a Limit, key: &str) -> Option<&'a Lit> {
    let call = limit.calls.iter().find(|call| call.method == key)?;
    match &call.value {
        Value::Expr(value) => literal(value),
        _ => None,
    }
}

/// The built-in strategy, and where to point at if it is unsuitable: at its only option, if it has
/// one, else at its name.
fn strategy_of(limit: &Limit, rate: &LitStr) -> Option<(&'static Strategy, Span)> {
    match limit.calls.iter().find(|call| call.method == "strategy") {
        None => Some((DEFAULT_STRATEGY, rate.span())),
        Some(Call {
            value: Value::Strategy(strategy, name),
            ..
        }) => match &*limit.options {
            [option] => Some((strategy, option.method.span())),
            _ => Some((strategy, *name)),
        },
        Some(_) => None,
    }
}

/// Name and options as [`strategy::named`] reads them, if all of them are literals.
fn in_words(strategy: &Strategy, options: &[Call]) -> Option<String> {
    let mut text = strategy.name.to_owned();
    for Call { method, value } in options {
        let value = match value {
            Value::Duration(duration) => format!("{}ms", duration.as_millis()),
            Value::Number(number, _) => number.to_string(),
            Value::Switch(on) => on.to_string(),
            Value::Expr(value) => match literal(value)? {
                Lit::Int(count) => count.base10_digits().to_owned(),
                Lit::Bool(on) => on.value.to_string(),
                Lit::Str(text) => in_one_word(text.value())?,
                _ => return None,
            },
            Value::Variant(_, (text, _), _) => (*text).to_owned(),
            Value::Strategy(..) => return None,
        };
        text += &format!(",{method}={value}");
    }
    Some(text)
}

/// A text that the reader of options leaves as it is: it trims them and splits them at commas.
fn in_one_word(text: String) -> Option<String> {
    (!text.contains(',') && text.trim() == text).then_some(text)
}
