//! Applications on one worker, and how they fare under load.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use crate::load::{Answers, Load};
use crate::{Contestant, Standing, compete, pin};

/// An application that runs until the process ends; see [`serve!`](crate::serve).
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    load: Load,
    port: u16,
    /// Where the kernel says how long the worker ran.
    schedstat: PathBuf,
}

impl Server {
    /// For [`serve!`](crate::serve): `run` is to run an application on the listener, on a worker
    /// that gives a sign of life.
    #[doc(hidden)]
    pub fn start(
        name: &'static str,
        run: impl FnOnce(TcpListener, Sign) + Send + 'static,
    ) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || run(listener, Sign(tell)));
        Server {
            name,
            load: Load::of_clients(32),
            port,
            schedstat: told.recv().expect("the worker starts"),
        }
    }

    /// Sets who asks. Default: 32 clients with a connection each.
    pub fn under(mut self, load: Load) -> Server {
        self.load = load;
        self
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How long the worker was on a processor until now.
    pub fn worker_time(&self) -> Duration {
        let text = std::fs::read_to_string(&self.schedstat).expect("Linux, and the worker lives");
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanos.expect("nanoseconds come first"))
    }

    fn run(&self, load: Load, time: Duration) -> Answers {
        let answers = load.run(self.port, time);
        if let Err([one, other]) = answers.status() {
            panic!("{} answered {one} and {other}", self.name);
        }
        answers
    }

    fn turn(&self, time: Duration) -> [f64; 6] {
        let before = self.worker_time();
        let answers = self.run(self.load, time);
        let busy = self.worker_time() - before;
        let alone = self.run(Load::of_one_client(1), time / 8);
        [
            answers.count() as f64 / time.as_secs_f64(),
            busy.as_nanos() as f64 / answers.count() as f64 / 1_000.0,
            answers.within(50),
            answers.within(99),
            alone.within(50),
            alone.within(99),
        ]
    }
}

/// Tells that a worker has started.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Sign(mpsc::Sender<PathBuf>);

impl Sign {
    /// Called on the worker, which this binds to the first core.
    pub fn give(&self) {
        pin(0);
        let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
        // Nobody listens any more if the worker was replaced.
        let _ = self
            .0
            .send(PathBuf::from("/proc").join(thread).join("schedstat"));
    }
}

/// Starts an application on one worker, on the first core: `serve!("bare", || App::new())`. The
/// closure is made in a runtime that lives as long as the server, so it may be `.await`ed.
///
/// A macro, since the type of an `App` cannot be written down.
#[macro_export]
macro_rules! serve {
    ($name:expr, $app:expr) => {
        $crate::server::Server::start($name, move |listener, sign| {
            $crate::server::actix_rt::System::new().block_on(async move {
                let app = $app;
                let factory = move || {
                    sign.give();
                    app()
                };
                let server = $crate::server::HttpServer::new(factory).workers(1);
                let server = server.listen(listener).expect("it listens");
                server.run().await.expect("it runs until the process ends");
            })
        })
    };
}

#[doc(hidden)]
pub use actix_rt;
#[doc(hidden)]
pub use actix_web::HttpServer;

/// Puts each under load in turn, prints what became of them, and returns it: requests per second, then
/// in µs what a request took the worker, the median and the 99th percentile of the latency, and both
/// with nobody else there.
///
/// Rounds and milliseconds of a turn may be given on the command line.
pub fn race(servers: &[Server]) -> Vec<Standing<6>> {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(5) as usize;
    let turn = Duration::from_millis(numbers.next().unwrap_or(2_000).into());

    pin(1);
    for server in servers {
        // Those that deny admit somebody first, and a single client may be somebody else.
        for load in [server.load, Load::of_one_client(1)] {
            load.run(server.port, turn / 10);
        }
    }
    let contestants = servers
        .iter()
        .map(|server| Contestant::new(server.name, || server.turn(turn)))
        .collect();
    let standings = compete(rounds, contestants);

    println!(
        "median (min - max) of {rounds} rounds of {turn:?}; ratios are to {} in the same round",
        servers[0].name
    );
    println!(
        "{:35} {:26} {:21} {:19} {:8} {:8} {:8} {:8}",
        "", "requests/s", "ratio", "µs of worker", "p50 µs", "p99 µs", "alone", "p99 alone"
    );
    for standing in &standings {
        let [throughput, time, p50, p99, alone, p99_alone] = &standing.figures;
        println!(
            "{:35} {:26.0} {:21.3} {:19.2} {:<8.0} {:<8.0} {:<8.0} {:<8.0}",
            standing.name,
            throughput.value,
            throughput.ratio,
            time.value,
            p50.value.median,
            p99.value.median,
            alone.value.median,
            p99_alone.value.median,
        );
    }
    standings
}
