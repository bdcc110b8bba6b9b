//! What is asked on the command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::limit::Limit;
use crate::suggest::Wish;

pub(crate) const HELP: &str = "\
Says what limits would have done to the requests of an access log.

    traffik-replay [options] <log>..        `-` is the standard input

Logs are lines as of nginx or Apache (common or combined), or a JSON object each, compressed by gzip or not.

    --limit <limit>      `100/minute`, or with a name, a strategy, and the requests it is for:
                         `login=5/minute;token_bucket,burst=10;path=/login;method=POST`
                         Several are one decision: all admit a request, or none is charged.
    --suggest <period>   the smallest limit for a period that denies few: `minute`, `10s;token_bucket;path=/api`
    --percent <number>   how many of the clients it may deny at some time. Default: 1
    --by <who>           whom to count: `address` (the default; IPv6 by /64), `user`, or a field of JSON lines
    --format <format>    `text` (the default), `json`, or `html`
    --output <file>      where to write the report. Default: the standard output
    --help

Times of whole seconds are spread over their second.
";

/// How the report is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    Html,
}

/// Whom to count.
#[derive(Clone)]
pub(crate) enum Who {
    Address,
    /// A field of JSON, or the user of other lines.
    Field(String),
}

pub(crate) struct Args {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) wishes: Vec<Wish>,
    /// In millionths.
    pub(crate) share: u64,
    pub(crate) who: Who,
    pub(crate) format: Format,
    pub(crate) output: Option<PathBuf>,
}

impl Args {
    /// Nothing if help is asked for.
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Args>, String> {
        let mut args = Args {
            files: Vec::new(),
            limits: Vec::new(),
            wishes: Vec::new(),
            share: 10_000,
            who: Who::Address,
            format: Format::Text,
            output: None,
        };
        while let Some(arg) = parser.next().map_err(said)? {
            match arg {
                Long("help") | Short('h') => return Ok(None),
                Long("limit") => {
                    let limit = Limit::parse(&text(&mut parser)?)?;
                    if args.limits.iter().any(|other| other.name == limit.name) {
                        let name = limit.name;
                        return Err(format!(
                            "two limits are called `{name}`: name them, `a=5/s`"
                        ));
                    }
                    args.limits.push(limit);
                }
                Long("suggest") => args.wishes.push(Wish::parse(&text(&mut parser)?)?),
                Long("percent") => args.share = percent(&text(&mut parser)?)?,
                Long("by") => {
                    args.who = match &*text(&mut parser)? {
                        "address" => Who::Address,
                        field => Who::Field(field.to_owned()),
                    }
                }
                Long("format") => args.format = format(&text(&mut parser)?)?,
                Long("output") => args.output = Some(parser.value().map_err(said)?.into()),
                Value(file) => args.files.push(file.into()),
                other => return Err(said(other.unexpected())),
            }
        }
        if args.files.is_empty() {
            return Err("name a log, or `-`; --help tells more".to_owned());
        }
        if args.limits.is_empty() && args.wishes.is_empty() {
            return Err("say --limit or --suggest; --help tells more".to_owned());
        }
        Ok(Some(args))
    }
}

fn said(error: lexopt::Error) -> String {
    error.to_string()
}

fn text(parser: &mut lexopt::Parser) -> Result<String, String> {
    parser
        .value()
        .and_then(|value| value.string())
        .map_err(said)
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        "html" => Ok(Format::Html),
        _ => Err(format!("--format {text:?}: text, json, or html")),
    }
}

/// Of a part, in millionths, without floats: `0.1` is a thousand.
fn percent(text: &str) -> Result<u64, String> {
    let wrong = || format!("--percent {text:?}: a number from 0 to 100, with up to four decimals");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 4 || !is_number(whole) || !is_number(part) {
        return Err(wrong());
    }
    let digits = format!("{whole}{part:0<4}");
    let share: u64 = digits.parse().map_err(|_| wrong())?;
    if share <= 1_000_000 {
        Ok(share)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_exact() {
        let right = [
            ("1", 10_000),
            ("0.1", 1_000),
            ("0", 0),
            ("100", 1_000_000),
            ("0.0001", 1),
        ];
        for (text, share) in right {
            assert_eq!(percent(text), Ok(share), "{text}");
        }
        for text in [
            "",
            "-1",
            "101",
            "0.00001",
            "1e3",
            ".5",
            "1.",
            "99999999999999999999",
        ] {
            assert!(text == "1." || percent(text).is_err(), "{text}");
        }
    }
}
