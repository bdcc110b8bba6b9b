//! Redis servers with clocks of their own, by [libfaketime](https://github.com/wolfcw/libfaketime).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Whether it is installed, and this Redis can be run with it: not all allocators can.
pub(crate) fn clocks_can_be_set() -> bool {
    static CAN_BE: LazyLock<bool> = LazyLock::new(|| library().is_some() && redis_starts());
    *CAN_BE
}

/// What sets a server's clock ahead.
pub(super) fn ahead(seconds: u64) -> Vec<(&'static str, String)> {
    if seconds == 0 {
        return Vec::new();
    }
    let library = library().expect("libfaketime").display().to_string();
    vec![
        ("FAKETIME", format!("+{seconds}")),
        // Else timers of the server were confused, and a changed time be seen late.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Its allocator asks for the time when it begins, for which libfaketime needs an allocator: that of libc.
        ("LD_PRELOAD", format!("{library}:libc.so.6")),
    ]
}

fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = folders
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let below: Vec<PathBuf> = below.map(|folder| folder.path()).collect();
    let mut all = folders.into_iter().chain(below);
    all.find_map(|folder| {
        let library = folder.join("faketime/libfaketimeMT.so.1");
        library.exists().then_some(library)
    })
}

/// Where it cannot be run, it hangs before it has begun.
fn redis_starts() -> bool {
    let server = Command::new("redis-server")
        .arg("--version")
        .envs(ahead(10))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut server) = server else {
        return false;
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if let Ok(Some(status)) = server.try_wait() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = server.kill();
    let _ = server.wait();
    false
}
