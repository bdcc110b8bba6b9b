//! Requests per second over real sockets: a bare actix-web application, the same behind our
//! middleware and our macro, and behind actix-extensible-rate-limit.
//!
//! One worker on one core, a load generator of 32 keep-alive connections on another. Beside the
//! throughput this prints the processor time of the worker per request, which a busy machine and
//! a slow load generator cannot falsify.
//!
//! `cargo bench -p traffik-benches --bench requests [-- <rounds> <milliseconds>]`

mod load;
mod servers;

use std::time::Duration;

use traffik_benches::{Contestant, compete, pin};

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(5) as usize;
    let turn = Duration::from_millis(numbers.next().unwrap_or(3_000).into());

    let servers = servers::start();
    pin(1);
    for server in &servers {
        load::run(server.port, turn / 10);
    }
    let contestants = servers
        .iter()
        .map(|server| {
            Contestant::new(server.name, || {
                let before = server.worker_time();
                let requests = load::run(server.port, turn);
                let busy = server.worker_time() - before;
                [
                    requests as f64 / turn.as_secs_f64(),
                    busy.as_nanos() as f64 / requests as f64 / 1_000.0,
                ]
            })
        })
        .collect();
    println!(
        "median (min - max) of {rounds} rounds of {turn:?}; ratios are to bare in the same round"
    );
    println!(
        "{:31} {:28} {:20} {:20} bare to this",
        "", "requests/s", "ratio", "µs of worker/request"
    );
    for standing in compete(rounds, contestants) {
        let [throughput, time] = standing.figures;
        println!(
            "{:31} {:28.0} {:20.3} {:20.2} {:.3}",
            standing.name,
            throughput.value,
            throughput.ratio,
            time.value,
            time.ratio.inverse()
        );
    }
}
