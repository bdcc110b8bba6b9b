use std::process::{Child, Command, Stdio};

use tokio::task::JoinSet;
use traffik_core::{Identity, RedisBackend};

use super::throttle;
use crate::support::RedisServer;

const URL: &str = "TRAFFIK_TESTS_REDIS";

#[test]
fn several_processes_admit_exactly_the_limit() {
    let server = RedisServer::start();
    let program = std::env::current_exe().unwrap();
    let processes: Vec<Child> = (0..4)
        .map(|_| {
            Command::new(&program)
                .args(["--exact", "--ignored", "--nocapture"])
                .arg("redis_backend::processes::another_process")
                .env(URL, server.url())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let admitted = processes.into_iter().map(|process| {
        let output = process.wait_with_output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let admitted = output
            .lines()
            .find_map(|line| line.strip_prefix("admitted "));
        admitted.expect("a count").parse::<u32>().unwrap()
    });
    let admitted: Vec<u32> = admitted.collect();
    assert_eq!(admitted.iter().sum::<u32>(), 250, "{admitted:?}");
}

/// What the test above runs several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is a part of the test above"]
async fn another_process() {
    let url = std::env::var(URL).unwrap();
    let backend = RedisBackend::builder(&url).deadline(std::time::Duration::from_secs(10));
    let throttle = throttle("processes", "250/day", backend.build().unwrap());
    let mut hits = JoinSet::new();
    for _ in 0..100 {
        let throttle = throttle.clone();
        hits.spawn(async move { throttle.hit(&Identity::of("ann")).await.unwrap() });
    }
    let decisions = hits.join_all().await;
    let admitted = decisions
        .iter()
        .filter(|decision| decision.is_allowed())
        .count();
    println!("\nadmitted {admitted}");
}
