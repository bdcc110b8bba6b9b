//! Limits in a file, on a Redis.

use std::thread;

use actix_web::App;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{rt::System, web};
use traffik_actix::LimitsFile;

use crate::support::{MemcachedServer, RedisCluster, RedisServer, WatchedRedis};

/// Four threads ask one Redis while the file changes between two rates and back: nothing fails, and no more are admitted than
/// the larger one allows, all of which are in the end. Of the connection nothing is made anew.
#[test]
fn reloads_under_load_admit_what_the_limit_allows() {
    let server = RedisServer::start();
    let text = |rate: u32| {
        format!(
            "[backend.default]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\ndeadline = \"10s\"\n[throttle.api]\nrate = \"{rate}/day\"\n\
             on_error = \"raise\"\n[[rule]]\nthrottle = \"api\"\n",
            server.port()
        )
    };
    let path =
        std::env::temp_dir().join(format!("traffik-redis-config-{}.toml", std::process::id()));
    std::fs::write(&path, text(300)).expect("writable");
    let file = LimitsFile::at(&path)
        .load()
        .expect("a file without mistakes");
    let admitted: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let file = &file;
                scope.spawn(move || ask(file, 200))
            })
            .collect();
        let mut at = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            at += 1;
            std::fs::write(&path, text([300, 400][at % 2])).expect("writable");
            file.reload().expect("a file without mistakes");
        }
        let counts = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        counts.sum()
    });
    std::fs::write(&path, text(400)).expect("writable");
    file.reload().expect("a file without mistakes");
    // What was denied under the smaller rate may be remembered for a second: by another client of the store it is not.
    let again = LimitsFile::at(&path)
        .load()
        .expect("a file without mistakes");
    assert_eq!(admitted + ask(&again, 400), 400);
    std::fs::remove_file(&path).expect("it is there");
}

/// Each kind of store that a file can name, on real servers: what one process admits another does not admit again.
#[test]
fn every_store_of_a_file_counts_for_all_who_read_it() {
    let (cluster, watched, memcached) = (
        RedisCluster::start(),
        WatchedRedis::start(),
        MemcachedServer::start(),
    );
    let urls: Vec<String> = cluster
        .urls()
        .iter()
        .map(|url| format!("{url:?}"))
        .collect();
    let stores = [
        ("redis_cluster", format!("urls = [{}]", urls.join(", "))),
        (
            "redis_sentinel",
            format!(
                "urls = {:?}\nmaster = \"redis://shop\"\nfailover = \"memory\"",
                watched.sentinel_url()
            ),
        ),
        ("memcached", format!("urls = [{:?}]", memcached.url())),
    ];
    for (kind, place) in stores {
        let path = std::env::temp_dir().join(format!("traffik-{kind}-{}.toml", std::process::id()));
        let text = format!(
            "[backend.default]\ntype = \"{kind}\"\n{place}\nnamespace = \"file\"\ndeadline = \"10s\"\n\
             [throttle.api]\nrate = \"3/day\"\non_error = \"raise\"\n[[rule]]\nthrottle = \"api\"\n"
        );
        std::fs::write(&path, text).expect("writable");
        let files = [0, 1].map(|_| LimitsFile::at(&path).load().expect("no mistakes"));
        assert_eq!(ask(&files[0], 2), 2, "{kind}");
        assert_eq!(ask(&files[1], 5), 1, "{kind}");
        assert_eq!(ask(&files[0], 5), 0, "{kind}");
        std::fs::remove_file(&path).expect("it is there");
    }
}

/// How many of so many requests are admitted. None fails.
fn ask(file: &LimitsFile, requests: usize) -> usize {
    System::new().block_on(async {
        let app = App::new().wrap(file.middleware());
        let app = init_service(app.route("/", web::get().to(async || "hello"))).await;
        let mut admitted = 0;
        for _ in 0..requests {
            let response = call_service(&app, TestRequest::default().to_request()).await;
            match response.status().as_u16() {
                200 => admitted += 1,
                429 => {}
                status => panic!("status {status}"),
            }
        }
        admitted
    })
}
