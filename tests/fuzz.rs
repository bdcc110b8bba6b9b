//! What others send, at random: see `fuzz/README.md`.

mod targets;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use traffik_core::strategy::NAMES;

use self::targets::{TARGETS, Target, cell, forwarded, rate, strategy, x_forwarded_for};
use crate::support::Random;

proptest! {
    // Whatever is found belongs into the corpus.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rates(text in r"\PC{0,24}|[0-9/ .a-zA-Z]{0,16}|[0-9]{1,12} ?/ ?[0-9]{0,6} ?(ms|us|s|sec|second|min|m|h|hour|d|day|week)s?") {
        rate(text.as_bytes());
    }

    #[test]
    fn strategies(name in prop::sample::select(NAMES), options in r"(,[a-z_]{1,20}=[-0-9a-z.:|]{0,20}){0,3}|\PC{0,30}") {
        strategy(format!("{name}{options}").as_bytes());
    }

    #[test]
    fn cells(bytes in prop::collection::vec(any::<u8>(), 0..120), shape in 0x10..0x20_u8) {
        cell(&bytes);
        let mut valid = bytes;
        if let Some(at) = valid.get_mut(9) {
            *at = shape;
        }
        cell(&valid);
    }

    #[test]
    fn forwarded_headers(text in r#"(for|by|proto)?=?"?[-0-9a-zA-Z:.\[\]_"\\;, =]{0,60}|\PC{0,40}"#) {
        forwarded(text.as_bytes());
        x_forwarded_for(text.as_bytes());
    }
}

/// The inputs that are checked in, each of which was once wrong or is the beginning of something.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a file"))
        .collect()
}

#[test]
fn what_is_checked_in_is_read() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}");
        corpus.iter().for_each(|bytes| target(bytes));
    }
}

/// Changes what is checked in at random for a while: `TRAFFIK_FUZZ_SECONDS=600 cargo test -p traffik-tests
/// --release -- --ignored fuzz`.
#[test]
#[ignore = "takes as long as it is told to"]
fn for_a_while() {
    let seconds = std::env::var("TRAFFIK_FUZZ_SECONDS");
    let seconds = seconds.map_or(10, |seconds| seconds.parse().expect("seconds"));
    std::thread::scope(|scope| {
        for (name, target) in TARGETS {
            scope.spawn(move || mutate(name, target, Duration::from_secs(seconds)));
        }
    });
}

fn mutate(name: &str, target: Target, time: Duration) {
    let corpus = corpus(name);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut random =
        Random::new(u64::try_from(seed.expect("after 1970").as_nanos()).expect("soon"));
    let (start, mut inputs) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..1_000 {
            let input = mutated(&corpus, &mut random);
            let read = catch_unwind(|| target(&input));
            assert!(
                read.is_ok(),
                "{name}: {input:?} = {:?}",
                String::from_utf8_lossy(&input)
            );
            inputs += 1;
        }
    }
    println!("{name}: {inputs} inputs in {:?}", start.elapsed());
}

/// Two inputs joined where one is cut, then a few bytes changed, put in, left out or doubled.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut below = |end: usize| usize::try_from(random.below(end.max(1) as u64)).expect("small");
    let (one, other) = (&corpus[below(corpus.len())], &corpus[below(corpus.len())]);
    let mut input = one.clone();
    if below(2) == 0 {
        input.truncate(below(one.len() + 1));
        input.extend_from_slice(&other[below(other.len() + 1)..]);
    }
    const TELLING: &[u8] = b"0123456789/.:,;|=-+ \"\\[]_%smhdxXeE\0\xff\x7f\x80";
    for _ in 0..below(6) {
        let at = below(input.len());
        let byte = match below(3) {
            0 => u8::try_from(below(256)).expect("a byte"),
            _ => TELLING[below(TELLING.len())],
        };
        match below(4) {
            0 if !input.is_empty() => input[at] = byte,
            1 if !input.is_empty() => drop(input.remove(at)),
            2 => {
                let end = (at + below(8)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                input.extend_from_slice(&part);
            }
            _ => input.insert(at.min(input.len()), byte),
        }
    }
    input
}
