//! What may follow a key.

use std::time::Duration;

use proc_macro2::Span;
use syn::{Error, Expr, Lit, LitStr, Result, UnOp};
use traffik_core::__private::LONGEST_NAME;
use traffik_core::{Rate, RateError};

use crate::suggest;
use crate::table::{Choice, Key, Kind, STRATEGIES, Strategy, Variant};

/// What a builder's method is given.
#[derive(Clone)]
pub(crate) enum Value {
    Expr(Expr),
    Number(f64, Span),
    Duration(Duration),
    /// Nothing; and if not, it is not called.
    Switch(bool),
    /// One of the variants of a type of `traffik-actix`.
    Variant(&'static Choice, &'static Variant, Span),
    /// A built-in strategy.
    Strategy(&'static Strategy, Span),
}

impl Value {
    /// Checks a value against what its key takes. Only literals can be wrong; the types of
    /// everything else are the compiler's business.
    pub(crate) fn of(key: &Key, value: Expr) -> Result<Value> {
        let refuse = |value: &Expr| Err(Error::new_spanned(value, expectation(key)));
        let Some(literal) = literal(&value) else {
            return match (key.kind, is_negative(&value)) {
                (Kind::Count(_) | Kind::Number, true) | (Kind::Switch, _) => refuse(&value),
                _ => Ok(Value::Expr(value)),
            };
        };
        let span = literal.span();
        match (key.kind, literal) {
            (Kind::Name, Lit::Str(text)) if is_name(&text.value()) => {
                check_length(text, "")?;
                Ok(Value::Expr(value))
            }
            (Kind::Rate, Lit::Str(text)) => match Rate::parse(&text.value()) {
                Ok(_) => Ok(Value::Expr(value)),
                Err(error) => Err(Error::new(span, error)),
            },
            (Kind::Strategy, Lit::Str(text)) => match Strategy::named(&text.value()) {
                Some(strategy) => Ok(Value::Strategy(strategy, span)),
                None => Err(Error::new(span, unknown_strategy(&text.value()))),
            },
            (Kind::Count(min), Lit::Int(count)) => match count.base10_parse::<u32>() {
                Ok(count) if count >= min => Ok(Value::Expr(value)),
                _ => refuse(&value),
            },
            (Kind::Number, Lit::Int(_) | Lit::Float(_)) => match number(literal) {
                Some(number) => Ok(Value::Number(number, span)),
                None => refuse(&value),
            },
            (Kind::Signed, Lit::Int(_))
            | (Kind::Text | Kind::Zone, Lit::Str(_))
            | (Kind::Bool, Lit::Bool(_)) => Ok(Value::Expr(value)),
            (Kind::Duration, Lit::Str(text)) => duration(text).map(Value::Duration),
            (Kind::Switch, Lit::Bool(on)) => Ok(Value::Switch(on.value)),
            (Kind::Choice(choice), Lit::Str(text)) => {
                let text = text.value();
                match choice.variants.iter().find(|(name, _)| *name == text) {
                    Some(variant) => Ok(Value::Variant(choice, variant, span)),
                    None => refuse(&value),
                }
            }
            _ => refuse(&value),
        }
    }
}

/// What a key takes.
fn expectation(key: &Key) -> String {
    let takes = match key.kind {
        Kind::Name => "a text of printable ASCII, such as `\"login\"`".to_owned(),
        Kind::Rate => "a text such as `\"100/minute\"`, or an expression of type `Rate`".to_owned(),
        Kind::Strategy => {
            "the name of a strategy, such as `\"gcra\"`, or an expression such as `MyStrategy::new()`"
                .to_owned()
        }
        Kind::Count(min) => format!(
            "a whole number from {min} to {}, or an expression that gives one",
            u32::MAX
        ),
        Kind::Signed => "a whole number, or an expression that gives one".to_owned(),
        Kind::Number => "a number from 0, or an expression of type `f64`".to_owned(),
        Kind::Text => "a text, or an expression that gives one".to_owned(),
        Kind::Zone => {
            "the name of a time zone such as `\"Europe/Berlin\"`, or an expression such as `MyZone::new()`"
                .to_owned()
        }
        Kind::Duration => {
            "a text such as `\"500ms\"`, or an expression of type `Duration`".to_owned()
        }
        Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Bool => "`true` or `false`, or an expression of type `bool`".to_owned(),
        Kind::Choice(choice) => {
            let texts = choice.variants.iter().map(|(text, _)| format!("\"{text}\""));
            let texts: Vec<String> = texts.collect();
            format!(
                "{}, or an expression of type `{}`",
                suggest::one_of(texts.iter().map(String::as_str)),
                choice.of
            )
        }
        Kind::Function => "a function or a closure, without quotes".to_owned(),
        Kind::Expression => "an expression, without quotes".to_owned(),
    };
    format!("`{}` takes {takes}", key.name)
}

fn unknown_strategy(name: &str) -> String {
    let names = || STRATEGIES.iter().map(|strategy| strategy.name);
    match suggest::nearest(name, names()) {
        Some(near) => format!("unknown strategy `{name}`: did you mean `{near}`?"),
        None => format!(
            "unknown strategy `{name}`: expected {}, or an expression such as `MyStrategy::new()`",
            suggest::one_of(names())
        ),
    }
}

/// Checks how long a name is, with what is added to it.
pub(crate) fn check_length(name: &LitStr, added: &str) -> Result<()> {
    let (length, longest) = (name.value().len(), LONGEST_NAME - added.len());
    if length <= longest {
        return Ok(());
    }
    let why = match added {
        "" => String::new(),
        added => format!(" where `{added}` is added to it"),
    };
    let message = format!("a name has at most {longest} bytes{why}, not {length}");
    Err(Error::new(name.span(), message))
}

/// What the name of a throttle may be; see `ThrottleBuilder::build`.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Reads a number, unless it is too large to be one.
fn number(literal: &Lit) -> Option<f64> {
    let number: f64 = match literal {
        Lit::Int(number) => number.base10_parse().ok()?,
        Lit::Float(number) => number.base10_parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Reads a duration like the period of a rate, so that there is one grammar for both.
fn duration(text: &LitStr) -> Result<Duration> {
    let message = match Rate::parse_period(&text.value()) {
        Ok(duration) => return Ok(duration),
        Err(RateError::PeriodZero) => "a duration is at least 1ms: for none leave it out",
        Err(RateError::PeriodTooLong) => "a duration is at most 366 days",
        Err(_) => "a duration is a whole number and a unit (ms, s, m, h, d, w), such as `500ms`",
    };
    Err(Error::new(text.span(), message))
}

/// The literal that a value is, also if it comes out of another macro or in parentheses.
pub(crate) fn literal(value: &Expr) -> Option<&Lit> {
    match value {
        Expr::Lit(literal) => Some(&literal.lit),
        Expr::Group(group) => literal(&group.expr),
        Expr::Paren(paren) => literal(&paren.expr),
        _ => None,
    }
}

fn is_negative(value: &Expr) -> bool {
    match value {
        Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && literal(&unary.expr).is_some(),
        Expr::Group(group) => is_negative(&group.expr),
        Expr::Paren(paren) => is_negative(&paren.expr),
        _ => false,
    }
}
