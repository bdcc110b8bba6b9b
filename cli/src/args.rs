//! What is asked for on the command line.

use std::net::IpAddr;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};

pub(crate) const HELP: &str = "\
traffik check FILE..
    Says what is wrong in files of limits, with line and column, or how much is in them.

traffik explain FILE METHOD PATH [-H 'NAME: VALUE'].. [--peer ADDRESS]
    Says which rules a request meets, in which order, and with what:
        traffik explain limits.toml GET /api/items -H 'host: api.example.com'

What a program registers by name (functions, predicates, backends) is taken to be there, and predicates
to be true. Environment variables need not be set. Nothing is connected to.
";

#[derive(Debug)]
pub(crate) enum Args {
    Help,
    Check(Vec<String>),
    Explain(String, Asked),
}

/// A request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
    pub(crate) peer: Option<IpAddr>,
}

impl Args {
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Args, lexopt::Error> {
        let mut words = Vec::new();
        let (mut headers, mut peer) = (Vec::new(), None);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(Args::Help),
                Short('H') | Long("header") => headers.push(parser.value()?.string()?),
                Long("peer") => peer = Some(parser.value()?.parse()?),
                Value(word) => words.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        let is_plain = headers.is_empty() && peer.is_none();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [] | ["help"] => Ok(Args::Help),
            ["check", ref files @ ..] if !files.is_empty() && is_plain => Ok(Args::Check(
                files.iter().map(|file| (*file).to_owned()).collect(),
            )),
            ["explain", file, method, path] => Ok(Args::Explain(
                file.to_owned(),
                Asked {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    headers,
                    peer,
                },
            )),
            ["check", ..] => Err("say `traffik check limits.toml`".into()),
            ["explain", ..] => Err("say `traffik explain limits.toml GET /path`".into()),
            [other, ..] => {
                Err(format!("there is no command {other:?}: there are check and explain").into())
            }
        }
    }
}
