//! Files that change while requests pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use actix_web::test::TestRequest;
use actix_web::{App, HttpServer, web};
use traffik_actix::{HttpThrottle, Limits, MemoryBackend, throttle};

use super::File;
use crate::sockets::{Connection, Running};
use crate::support::{app, get, memory, send, warnings};

const BOTH: &str =
    "[[rule]]\nthrottle = \"one\"\n[[rule]]\nthrottle = \"two\"\nmethods = \"GET\"\n";

/// Two throttles at the same rate.
fn two(rate: &str) -> String {
    format!("[throttle.one]\nrate = \"{rate}\"\n[throttle.two]\nrate = \"{rate}\"\n{BOTH}")
}

#[actix_web::test]
async fn a_reload_forgot_counts_or_touched_what_stayed() {
    let (_, backend) = memory();
    let file = File::new(&two("3/day"));
    let loaded = file.builder(&backend).load().unwrap();
    let app = app(loaded.middleware()).await;
    let passes = async || {
        let mut passed = 0;
        for _ in 0..9 {
            let answer = send(&app, get("/")).await;
            assert!(answer.is_ok() || answer.is_throttled(), "{answer:?}");
            passed += usize::from(answer.is_ok());
        }
        passed
    };
    assert_eq!(passes().await, 3);
    file.write(&two("5/day"));
    let reloaded = loaded.reload().unwrap();
    assert_eq!(reloaded.to_string(), "changed one, two; 2 rules");
    assert_eq!(passes().await, 2, "the counts go on");
    // What is said of `two` is the same: what was done by hand stays.
    loaded.limits().disable("two").unwrap();
    file.write(&two("5/day").replacen("5/day", "7/day", 1));
    assert_eq!(loaded.reload().unwrap().to_string(), "changed one; 2 rules");
    assert_eq!(passes().await, 2);
    assert!(!loaded.limits().list()[1].is_enabled);
    // Gone, with its rule.
    file.write("[throttle.one]\nrate = \"7/day\"\n[throttle.new]\nrate = \"1/day\"\n[[rule]]\nthrottle = \"new\"");
    assert_eq!(
        loaded.reload().unwrap().to_string(),
        "added new; removed two; 1 rule"
    );
    assert_eq!(passes().await, 1);
    // Disabled in the file.
    file.write("[throttle.one]\nrate = \"7/day\"\nenabled = false\n[throttle.new]\nrate = \"1/day\"\n[[rule]]\nthrottle = [\"one\", \"new\"]");
    assert_eq!(loaded.reload().unwrap().to_string(), "changed one; 1 rule");
    assert_eq!(passes().await, 0, "`new` is full");
    assert!(
        !loaded
            .limits()
            .list()
            .iter()
            .any(|one| one.name == "one" && one.is_enabled)
    );
    assert_eq!(loaded.reload().unwrap().to_string(), "1 rule");
}

/// In an incident, say; and then somebody changed another one.
#[actix_web::test]
async fn a_throttle_that_was_removed_by_hand_came_back_with_any_reload() {
    let (_, backend) = memory();
    let file = File::new(&two("1/day"));
    let loaded = file.builder(&backend).load().unwrap();
    let (app, limits) = (app(loaded.middleware()).await, loaded.limits());
    let policy = async || send(&app, get("/")).await.header("ratelimit-policy");
    limits.remove("two").unwrap();
    file.write(&two("1/day").replacen("1/day", "7/day", 1));
    for says in ["changed one; 2 rules", "2 rules"] {
        assert_eq!(loaded.reload().unwrap().to_string(), says);
        assert!(limits.get("two").is_none());
        assert_eq!(policy().await.unwrap(), "\"one\";q=7;w=86400");
    }
    // Its rule is for one of this name again.
    let by_hand = HttpThrottle::builder("two")
        .rate("5/day")
        .backend(backend.clone());
    limits.add(by_hand).unwrap();
    let both = "\"one\";q=7;w=86400,\"two\";q=5;w=86400";
    assert_eq!(policy().await.unwrap(), both);
    loaded.reload().unwrap();
    assert_eq!(policy().await.unwrap(), both);
    // Until the file says something else of it.
    limits.remove("two").unwrap();
    file.write(&two("9/day"));
    let says = loaded.reload().unwrap().to_string();
    assert_eq!(says, "changed one, two; 2 rules");
    assert_eq!(
        policy().await.unwrap(),
        both.replace("=7", "=9").replace("=5", "=9")
    );
}

#[actix_web::test]
async fn a_bad_file_changed_something() {
    let (_, backend) = memory();
    let file = File::new(&two("3/day"));
    let loaded = file.builder(&backend).load().unwrap();
    let app = app(loaded.middleware()).await;
    assert!(send(&app, get("/")).await.is_ok());
    let rates = || {
        loaded
            .limits()
            .list()
            .iter()
            .map(|one| one.rate.unwrap().to_string())
            .collect::<Vec<_>>()
    };
    for bad in [
        "",
        "[",
        "\u{fffd}",
        "[throttle.one]\nrate = \"9/day\"\n[throttle.two]\nrate = \"many\"\n",
    ] {
        file.write(bad);
        assert!(loaded.reload().is_err(), "{bad:?}");
        assert_eq!(rates(), ["3/day", "3/day"], "{bad:?}");
    }
    std::fs::write(file.path(), b"\n\xff").unwrap();
    let error = loaded.reload().unwrap_err().to_string();
    assert!(
        error.ends_with(": it is no text in UTF-8, from line 2 on"),
        "{error}"
    );
    std::fs::remove_file(file.path()).unwrap();
    let error = loaded.reload().unwrap_err().to_string();
    assert!(error.contains(": it cannot be read: "), "{error}");
    let policies = send(&app, get("/"))
        .await
        .header("ratelimit-policy")
        .unwrap();
    assert_eq!(policies, "\"one\";q=3;w=86400,\"two\";q=3;w=86400");
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
}

/// The watcher over a file: it is read when it has settled, what is wrong is said once, and SIGHUP reads it at once.
#[actix_web::test]
async fn a_watched_file_was_not_followed() {
    let said = warnings();
    let (_, backend) = memory();
    let file = File::new(&two("3/day"));
    let loaded = file.builder(&backend).load().unwrap();
    let rate = || loaded.limits().list()[0].rate.unwrap().to_string();
    let until = async |what: &dyn Fn() -> bool| {
        for _ in 0..2_000 {
            if what() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it was not followed");
    };
    let watch = loaded.watch(std::time::Duration::from_millis(5));
    file.write(&two("4/day"));
    until(&|| rate() == "4/day").await;
    file.write("[throttle.one]\nrate = 5");
    let path = file.path().display().to_string();
    let ours = || {
        let said = said.lock().unwrap();
        said.iter()
            .filter(|line| line.contains(&path))
            .cloned()
            .collect::<Vec<_>>()
    };
    until(&|| !ours().is_empty()).await;
    assert_eq!(
        ours(),
        [format!(
            "{path}:2:8: `rate` of throttle `one` must be a text such as \"100/minute\", not 5: nothing is changed, and what \
             was in force stays so"
        )]
    );
    assert_eq!(rate(), "4/day");
    file.write(&two("6/day"));
    until(&|| rate() == "6/day").await;
    assert_eq!(ours().len(), 1);
    watch.abort();
}

/// Before the watcher has looked once.
#[actix_web::test]
async fn a_file_that_vanished_at_once_was_never_missed() {
    let said = warnings();
    let (_, backend) = memory();
    let file = File::new(&two("3/day"));
    let loaded = file.builder(&backend).load().unwrap();
    let watch = loaded.watch(std::time::Duration::from_millis(5));
    // Its task has not begun: this one has not waited for anything yet.
    std::fs::remove_file(file.path()).unwrap();
    let path = file.path().display().to_string();
    let ours = || {
        let said = said.lock().unwrap();
        let ours = said.iter().filter(|line| line.contains(&path));
        ours.cloned().collect::<Vec<_>>()
    };
    for _ in 0..2_000 {
        if !ours().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let ours = ours();
    assert!(
        matches!(&ours[..], [one] if one.contains("it cannot be read") && one.ends_with("what was in force stays so")),
        "{ours:?}"
    );
    watch.abort();
}

#[throttle(limit = "named")]
async fn named() -> &'static str {
    "named"
}

#[actix_web::test]
async fn a_handler_was_broken_by_a_file_without_its_throttle() {
    let (_, backend) = memory();
    let file = File::new("[throttle.named]\nrate = \"1/day\"");
    let limits = Limits::new();
    limits
        .add(HttpThrottle::builder("ours").rate("1/day"))
        .unwrap();
    let loaded = file.builder(&backend).limits(&limits).load().unwrap();
    let data = web::Data::new(limits.clone());
    let app = App::new().app_data(data).route("/", web::get().to(named));
    let app = actix_web::test::init_service(app).await;
    let ask = async || send(&app, TestRequest::get().uri("/")).await;
    assert!(ask().await.is_ok());
    assert!(ask().await.is_throttled());
    file.write("[throttle.other]\nrate = \"1/day\"");
    loaded.reload().unwrap();
    assert!(ask().await.is_ok());
    file.write("[throttle.named]\nrate = \"2/day\"");
    loaded.reload().unwrap();
    assert!(ask().await.is_ok());
    assert!(ask().await.is_throttled());
    // The names of the program are the program's.
    file.write("[throttle.ours]\nrate = \"2/day\"");
    let error = loaded.reload().unwrap_err().to_string();
    assert!(
        error.ends_with(
            ": the program has a throttle `ours` already: give the one of the file another name"
        ),
        "{error}"
    );
    assert_eq!(
        limits.get("ours").unwrap().rate().unwrap().to_string(),
        "1/day"
    );
    assert!(limits.get("named").is_some());
}

/// Two files in turn, as fast as they can be read, while sixteen clients ask: no request fails, none sees a throttle of the one file
/// beside one of the other, and no more are admitted than the larger limit allows, all of which are in the end.
#[actix_web::test]
async fn a_reload_under_load_lost_a_request_or_mixed_files() {
    let (small, large) = (two("1000/day"), two("1500/day"));
    let file = File::new(&small);
    let loaded = file.builder(&MemoryBackend::new()).load().unwrap();
    let (limits, served) = (loaded.middleware(), loaded.clone());
    let server = HttpServer::new(move || {
        App::new()
            .wrap(limits.clone())
            .route("/", web::get().to(async || "hello"))
    });
    let server = server.workers(2).bind(("127.0.0.1", 0)).unwrap();
    let (addr, running) = (server.addrs()[0], Running::start(server.run()));
    let (admitted, reloads) = web::block(move || {
        let (admitted, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let reloads = thread::scope(|scope| {
            let reloading = scope.spawn(|| {
                let mut reloads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    file.write(if reloads % 2 == 0 { &large } else { &small });
                    served.reload().unwrap();
                    reloads += 1;
                }
                reloads
            });
            let clients: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let mut socket = Connection::open(addr);
                        for _ in 0..200 {
                            let ok = ask(&mut socket);
                            admitted.fetch_add(usize::from(ok), Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            reloading.join().unwrap()
        });
        file.write(&large);
        served.reload().unwrap();
        let mut socket = Connection::open(addr);
        while ask(&mut socket) {
            admitted.fetch_add(1, Ordering::Relaxed);
        }
        (admitted.into_inner(), reloads)
    })
    .await
    .unwrap();
    running.stop().await;
    assert_eq!(admitted, 1_500, "{reloads} reloads");
    assert!(reloads > 2, "{reloads}");
}

/// All were `store`: nobody could tell in the log which of two had opened, and the metrics had one for both.
#[cfg(feature = "redis")]
#[test]
fn breakers_of_a_file_had_one_name() {
    let (_, backend) = memory();
    let store = |name: &str| {
        format!(
            "[backend.{name}]\ntype = \"redis\"\nurl = \"redis://{name}\"\nfailover = \"memory\"\n\
             [throttle.{name}]\nrate = \"1/s\"\nbackend = \"{name}\"\n"
        )
    };
    let file = File::new(&(store("carts") + &store("logins")));
    let loaded = file.builder(&backend).load().unwrap();
    for name in ["carts", "logins"] {
        let throttle = format!("{:?}", loaded.limits().get(name).unwrap());
        let breaker = format!("CircuitBreaker {{ name: \"{name}\"");
        assert!(throttle.contains(&breaker), "{throttle}");
    }
}

/// Whether it is admitted.
fn ask(socket: &mut Connection) -> bool {
    let response = socket.ask(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let policy = response
        .headers
        .iter()
        .find(|line| line.starts_with("ratelimit-policy: "));
    let policy = policy.expect("both told");
    let whole =
        |rate: u32| format!("ratelimit-policy: \"one\";q={rate};w=86400,\"two\";q={rate};w=86400");
    assert!(*policy == whole(1000) || *policy == whole(1500), "{policy}");
    match response.status {
        200 => true,
        429 => false,
        status => panic!("status {status}"),
    }
}
