use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::Port;

/// So long a server may take for anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server of ours: a process, its port and its directory. Both end with it.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    port: Port,
    directory: PathBuf,
}

/// Somebody else has the port.
#[derive(Debug)]
struct Taken;

impl Process {
    /// Starts a program on a port that nobody else has, in a directory of its own. `arguments` gets
    /// both.
    pub(crate) fn start(
        program: &'static str,
        arguments: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Process {
        Self::start_on(std::iter::repeat_with(Port::reserve), program, arguments)
    }

    /// On the first of some ports that is not taken.
    pub(crate) fn start_on(
        ports: impl IntoIterator<Item = Port>,
        program: &'static str,
        arguments: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Process {
        Self::start_in(&[], ports, program, arguments)
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_in(
        environment: &[(&'static str, String)],
        ports: impl IntoIterator<Item = Port>,
        program: &'static str,
        arguments: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Process {
        for port in ports.into_iter().take(100) {
            let name = format!("traffik-{}-{}", std::process::id(), port.number());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).expect("a directory for the server");
            let mut process = Process {
                program,
                arguments: arguments(port.number(), &directory),
                environment: environment.to_vec(),
                child: None,
                port,
                directory,
            };
            if process.spawn().is_ok() {
                return process;
            }
        }
        panic!("`{program}` finds every port taken");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts it again after [`kill`](Process::kill), and returns when no client holds its absence
    /// against it any more: whoever was refused a connection dials again only 10 ms later.
    pub(crate) fn resurrect(&mut self) {
        self.spawn().expect("its port is still its own");
        std::thread::sleep(Duration::from_millis(20));
    }

    fn spawn(&mut self) -> Result<(), Taken> {
        let log = std::fs::File::create(self.directory.join("log")).expect("a log");
        let child = Command::new(self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!(
                "`{}` cannot be run ({error}): apt-get install redis-server redis-sentinel memcached",
                self.program
            )
        }));
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Taken> {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).is_err() {
            let ended = self.child.as_mut().map(|child| child.try_wait());
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if !matches!(ended, Some(Ok(None))) && log.contains("ddress already in use") {
                return Err(Taken);
            }
            assert!(
                matches!(ended, Some(Ok(None))) && start.elapsed() < PATIENCE,
                "`{}` does not listen on port {}: {log}",
                self.program,
                self.port(),
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A stopped process dies of SIGKILL as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in its tracks: it accepts connections and commands, and answers none.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
        // On a busy machine its threads answer a few more before they hear of it.
        let start = Instant::now();
        while self.runs() {
            assert!(start.elapsed() < PATIENCE, "is not stopped");
            std::thread::yield_now();
        }
    }

    /// Whether a thread of it is not stopped, where the system tells (in Linux).
    fn runs(&self) -> bool {
        let child = self.child.as_ref().expect("a running server");
        let threads = std::fs::read_dir(format!("/proc/{}/task", child.id()));
        threads.into_iter().flatten().flatten().any(|thread| {
            // `17 (a name) T ..`
            let state = std::fs::read_to_string(thread.path().join("stat"));
            state.is_ok_and(|state| !state.contains(") T "))
        })
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("a running server");
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
