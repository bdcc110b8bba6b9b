//! Checks files of limits, and explains which of their rules a request meets.

mod args;

use std::process::ExitCode;

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use traffik_actix::LimitsFile;

use crate::args::{Args, Asked};

fn main() -> ExitCode {
    let done = match Args::parse(lexopt::Parser::from_env()) {
        Ok(Args::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Args::Check(files)) => check(&files),
        Ok(Args::Explain(file, asked)) => explain(&file, &asked),
        Err(error) => Err(format!("traffik: {error}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(files: &[String]) -> Result<(), String> {
    let mut errors = Vec::new();
    for name in files {
        match LimitsFile::at(name).rehearse() {
            Ok(file) => println!("{name}: {}", file.summary()),
            Err(error) => errors.push(error.to_string()),
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(errors.join("\n")),
    }
}

fn explain(name: &str, asked: &Asked) -> Result<(), String> {
    let file = LimitsFile::at(name).rehearse();
    let file = file.map_err(|error| error.to_string())?;
    print!("{}", file.explain(&request(asked)?));
    Ok(())
}

fn request(asked: &Asked) -> Result<HttpRequest, String> {
    let method = Method::from_bytes(asked.method.as_bytes())
        .map_err(|_| format!("traffik: {:?} is no method such as GET", asked.method))?;
    let is_target =
        asked.path.starts_with('/') && asked.path.parse::<actix_web::http::Uri>().is_ok();
    if !is_target {
        return Err(format!(
            "traffik: {:?} is no path such as /api/items?page=2; characters outside of ASCII are written %C3%A9",
            asked.path
        ));
    }
    let mut req = TestRequest::default().method(method).uri(&asked.path);
    for line in &asked.headers {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::try_from(name.trim()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some(header) = parsed else {
            return Err(format!(
                "traffik: {line:?} is no header such as \"x-plan: gold\""
            ));
        };
        req = req.append_header(header);
    }
    if let Some(peer) = asked.peer {
        req = req.peer_addr((peer, 0).into());
    }
    Ok(req.to_http_request())
}
