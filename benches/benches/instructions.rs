//! Instructions per request, as callgrind counts them: what a limit adds to a bare actix-web
//! application, beside its peers. Unlike seconds they are the same on a busy machine.
//!
//! Every contestant is a process of its own with one worker under `valgrind --tool=callgrind`; a
//! client beside it asks over one keep-alive connection, or over 32 at once. It is run twice, with
//! few requests and with many, and the difference is what the requests took.
//!
//! `cargo bench -p traffik-benches --bench instructions [-- --check | --write] [part of a name ...]`
//!
//! `--check` fails if a row of ours has grown by more than 3 % of what `benches/instructions.tsv`
//! says, `--write` writes that file. Both skip, and say so, where there is no valgrind.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use traffik_benches::load::{REQUEST, is_complete};
use traffik_benches::store::Store;

mod contestants;

use contestants::{CONTESTANTS, Contestant, Kind};

/// Requests of the short run, which warms up, and of the long one.
const FEW: u32 = 512;
const MANY: u32 = FEW + 4_096;

/// What a row may grow by, in percent. Counts differ by a few from run to run, and between
/// processors by what `memcpy` and its like make of them.
const TOLERANCE: f64 = 3.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, url] = &*arguments
        && flag == contestants::SERVE
    {
        contestants::serve(name, url);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: there is no valgrind here (Debian: apt-get install valgrind)");
        return ExitCode::SUCCESS;
    }
    let has = |flag| arguments.iter().any(|argument| argument == flag);
    let parts: Vec<&String> = arguments
        .iter()
        .filter(|one| !one.starts_with("--"))
        .collect();
    let rows = measure(|contestant| {
        parts.is_empty() || parts.iter().any(|part| contestant.name.contains(&**part))
    });
    println!("\n{}", Row::table(&rows));
    if has("--write") {
        std::fs::write(recorded(), Row::record(&rows)).expect("the file can be written");
    }
    match has("--check") {
        true => check(&rows),
        false => ExitCode::SUCCESS,
    }
}

/// What one contestant adds to the bare application, in instructions per request.
struct Row {
    name: &'static str,
    kind: Kind,
    added: f64,
}

fn measure(wanted: impl Fn(&Contestant) -> bool) -> Vec<Row> {
    let redis = Store::redis();
    let url = redis.url("redis");
    let mut bare = [None; 2];
    let mut rows = Vec::new();
    for contestant in CONTESTANTS {
        let is_bare = contestant.kind == Kind::Bare;
        if !is_bare && !wanted(contestant) {
            continue;
        }
        let taken = instructions_per_request(contestant, &url);
        let of = usize::from(contestant.connections > 1);
        eprintln!("{:50} {taken:9.0}", contestant.name);
        match is_bare {
            true => bare[of] = Some(taken),
            false => rows.push(Row {
                name: contestant.name,
                kind: contestant.kind,
                added: taken - bare[of].expect("the bare ones come first"),
            }),
        }
    }
    rows
}

fn instructions_per_request(contestant: &Contestant, url: &str) -> f64 {
    let [few, many] = [FEW, MANY].map(|requests| run(contestant, url, requests));
    (many - few) as f64 / f64::from(MANY - FEW)
}

/// All instructions of a process that served so many requests.
fn run(contestant: &Contestant, url: &str, requests: u32) -> u64 {
    let out = std::env::temp_dir().join(format!("traffik-callgrind-{}", std::process::id()));
    let serving = Serving::start(contestant, url, &out);
    serving.ask(contestant.connections, requests);
    serving.stop();
    let text = std::fs::read_to_string(&out).expect("callgrind wrote its file");
    let _ = std::fs::remove_file(&out);
    let total = text.lines().find_map(|line| {
        let line = line
            .strip_prefix("summary:")
            .or(line.strip_prefix("totals:"))?;
        line.trim().parse().ok()
    });
    total.expect("callgrind says how many instructions there were")
}

/// A contestant under callgrind.
struct Serving {
    process: Child,
    port: u16,
}

impl Serving {
    fn start(contestant: &Contestant, url: &str, out: &Path) -> Serving {
        let own = std::env::current_exe().expect("this program");
        let mut process = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(own)
            .args([contestants::SERVE, contestant.name, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("valgrind starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped above");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let port = line.trim().parse().expect("the contestant prints its port");
        Serving { process, port }
    }

    /// One request at a time on every connection.
    fn ask(&self, connections: u32, requests: u32) {
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
            stream.set_nodelay(true).expect("a socket has this option");
            stream
        };
        let mut streams: Vec<TcpStream> = (0..connections).map(|_| connect()).collect();
        let mut buffer = [0; 4096];
        for _ in 0..requests / connections {
            for stream in &mut streams {
                stream.write_all(REQUEST).expect("a live connection");
            }
            for stream in &mut streams {
                let mut length = 0;
                while !is_complete(&buffer[..length]) {
                    let read = stream
                        .read(&mut buffer[length..])
                        .expect("a live connection");
                    assert!(read > 0, "the server hung up");
                    length += read;
                }
                assert!(buffer.starts_with(b"HTTP/1.1 200"), "it was denied");
            }
        }
    }

    /// It ends when its input does.
    fn stop(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Row {
    fn table(rows: &[Row]) -> String {
        let mut table = format!("{:50} {:>9}\n", "instructions added to a request", "");
        for Row { name, added, .. } in rows {
            let _ = writeln!(table, "{name:50} {added:9.0}");
        }
        table
    }

    fn record(rows: &[Row]) -> String {
        let ours = rows.iter().filter(|row| row.kind == Kind::Ours);
        ours.map(|Row { name, added, .. }| format!("{added:.0}\t{name}\n"))
            .collect()
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.tsv")
}

fn check(rows: &[Row]) -> ExitCode {
    let text = std::fs::read_to_string(recorded()).expect("the figures are checked in");
    let mut grown = 0;
    for line in text.lines() {
        let (before, name) = line.split_once('\t').expect("a figure, a tab and a name");
        let before: f64 = before.parse().expect("a figure");
        let Some(row) = rows.iter().find(|row| row.name == name) else {
            continue;
        };
        let percent = 100.0 * (row.added / before - 1.0);
        if percent > TOLERANCE {
            eprintln!(
                "{name}: {before:.0} -> {:.0}, {percent:.1} % more",
                row.added
            );
            grown += 1;
        }
    }
    match grown {
        0 => println!("no row has grown by more than {TOLERANCE} %"),
        _ => eprintln!("find out why, or record it: `-- --write`"),
    }
    ExitCode::from(u8::from(grown > 0))
}
