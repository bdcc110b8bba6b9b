//! Says what limits would have done to the requests of an access log, whom they would have hurt, and which is the
//! smallest limit that hurts few.

mod args;
mod html;
mod input;
mod limit;
mod line;
mod progress;
mod replay;
mod report;
mod suggest;
mod text;
mod time;

use std::process::ExitCode;

use crate::args::{Args, Format};
use crate::replay::Replay;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffik-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let Some(args) = Args::parse(lexopt::Parser::from_env())? else {
        print!("{}", args::HELP);
        return Ok(());
    };
    let mut replay = Replay::new(&args)?;
    input::each_line(&args.files, |line| replay.read(line))?;
    let report = replay.finish()?;
    let written = match args.format {
        Format::Text => text::write(&report),
        Format::Json => report.to_json(),
        Format::Html => html::write(&report),
    };
    match &args.output {
        None => {
            print!("{written}");
            Ok(())
        }
        Some(path) => std::fs::write(path, written)
            .map_err(|error| format!("cannot write {}: {error}", path.display())),
    }
}
