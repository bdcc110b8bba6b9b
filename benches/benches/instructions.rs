//! Instructions per request, as callgrind counts them: what a limit adds to a bare actix-web
//! application, beside its peers. Unlike seconds they are the same on a busy machine.
//!
//! Every contestant is a process of its own with one worker under `valgrind --tool=callgrind`; a
//! client beside it asks over one keep-alive connection, or over 32 at once. Once it is warm it counts
//! from zero: what it takes to start, such as to find out how fast the processor's clock runs, is not
//! the same twice.
//!
//! `cargo bench -p traffik-benches --bench instructions [-- --check | --write] [part of a name ...]`
//!
//! `--check` asks ours alone, and fails if a row has grown by more than 3 % of what `benches/instructions.tsv`
//! says; `--write` writes that file. Both skip, and say so, where there is no valgrind. Another compiler makes
//! other code, and for another processor the C library has other copies of `memcpy`: what has grown is then
//! said, and no failure. So it is of requests in company, whose trips depend on how they meet, and of leases of
//! a hot key, which are tended by time.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use traffik_benches::load::{REQUEST, is_complete};
use traffik_benches::store::Store;

mod contestants;

use contestants::{CONTESTANTS, Contestant, Kind};

/// Requests that warm up, and those that count.
const FEW: u32 = 512;
const MANY: u32 = 4_096;

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
    let is_check = has("--check");
    let rows = measure(|contestant| {
        !(is_check && contestant.kind == Kind::Peer)
            && (parts.is_empty() || parts.iter().any(|part| contestant.name.contains(&**part)))
    });
    println!("\n{}", Row::table(&rows));
    if has("--write") {
        std::fs::write(recorded(), Row::record(&rows)).expect("the file can be written");
    }
    match is_check {
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
    let out = std::env::temp_dir().join(format!("traffik-callgrind-{}", std::process::id()));
    let mut serving = Serving::start(contestant, url, &out);
    let mut client = Client::connect(serving.port, contestant.connections);
    client.ask(FEW);
    serving.count_from_here();
    client.ask(MANY);
    serving.stop();
    let text = std::fs::read_to_string(&out).expect("callgrind wrote its file");
    let _ = std::fs::remove_file(&out);
    // Its `summary` is of everything since the start.
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals:")?.trim().parse::<u32>().ok());
    let total = total.expect("callgrind says how many instructions there were");
    f64::from(total) / f64::from(MANY)
}

/// A contestant under callgrind.
struct Serving {
    process: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Serving {
    fn start(contestant: &Contestant, url: &str, out: &Path) -> Serving {
        let own = std::env::current_exe().expect("this program");
        let mut process = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(format!("--zero-before=*{}*", contestants::FROM_HERE))
            .arg(own)
            .args([contestants::SERVE, contestant.name, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("valgrind starts");
        let output = BufReader::new(process.stdout.take().expect("piped above"));
        let mut serving = Serving {
            process,
            output,
            port: 0,
        };
        let port = serving.line();
        serving.port = port.parse().expect("the contestant prints its port");
        serving
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.expect("the contestant says something");
        line.trim().to_owned()
    }

    fn count_from_here(&mut self) {
        let input = self.process.stdin.as_mut().expect("piped above");
        input.write_all(b"\n").expect("it reads");
        assert_eq!(self.line(), contestants::FROM_HERE);
    }

    /// It ends when its input does.
    fn stop(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

/// Asks for one page, over and over.
struct Client(Vec<TcpStream>);

impl Client {
    fn connect(port: u16, connections: u32) -> Client {
        let connect = |_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.set_nodelay(true).expect("a socket has this option");
            stream
        };
        Client((0..connections).map(connect).collect())
    }

    /// One request at a time on every connection.
    fn ask(&mut self, requests: u32) {
        let mut buffer = [0; 4096];
        for _ in 0..requests as usize / self.0.len() {
            for stream in &mut self.0 {
                stream.write_all(REQUEST).expect("a live connection");
            }
            for stream in &mut self.0 {
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
        let lines = ours.map(|Row { name, added, .. }| format!("{added:.0}\t{name}\n"));
        std::iter::once(counted_by()).chain(lines).collect()
    }
}

/// A line that says by which compiler, and on which processor.
fn counted_by() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|output| output.stdout).unwrap_or_default();
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = cpus.split("\n\n").next().unwrap_or_default();
    let parts = ["model name", "model", "stepping"].map(|part| {
        let mut lines = first.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| name.trim_end() == part);
        found.map_or("?", |(_, value)| value.trim()).to_owned()
    });
    let version = String::from_utf8_lossy(&version);
    format!("# {}; {}\n", version.trim(), parts.join(" "))
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.tsv")
}

fn check(rows: &[Row]) -> ExitCode {
    let text = std::fs::read_to_string(recorded()).expect("the figures are checked in");
    let mut grown = 0;
    let (recorded_by, lines) = text
        .split_once('\n')
        .expect("how it was counted is in the first line");
    for line in lines.lines() {
        let (before, name) = line.split_once('\t').expect("a figure, a tab and a name");
        let before: f64 = before.parse().expect("a figure");
        let Some(row) = rows.iter().find(|row| row.name == name) else {
            continue;
        };
        let percent = 100.0 * (row.added / before - 1.0);
        let is_exact = !name.ends_with("in company") && name != "leases, a hot key";
        if percent > TOLERANCE {
            eprintln!(
                "{name}: {before:.0} -> {:.0}, {percent:.1} % more",
                row.added
            );
            grown += u32::from(is_exact);
        }
    }
    let is_same = recorded_by == counted_by().trim_end();
    match grown {
        0 => println!("no row has grown by more than {TOLERANCE} %"),
        _ if is_same => eprintln!("find out why, or record it: `-- --write`"),
        _ => eprintln!(
            "no failure: recorded with {recorded_by}, this is {}",
            counted_by()
        ),
    }
    ExitCode::from(u8::from(grown > 0 && is_same))
}
