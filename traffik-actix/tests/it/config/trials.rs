//! A new file in shadow beside the one in force.

use traffik_actix::{Limits, TriedOutcome};

use super::File;
use crate::support::{app, get, memory, send, throttle};

#[actix_web::test]
async fn a_file_that_is_tried_denied_somebody_or_could_not_be_put_in_force() {
    let (_, backend) = memory();
    let text =
        |rate: &str| format!("[throttle.api]\nrate = \"{rate}\"\n[[rule]]\nthrottle = \"api\"\n");
    let gone = "[throttle.gone]\nrate = \"100/day\"\n[[rule]]\nthrottle = \"gone\"\n";
    let file = File::new(&(text("4/day") + gone));
    let next = File::new(&text("2/day"));
    let loaded = file
        .builder(&backend)
        .try_beside(next.path())
        .load()
        .unwrap();
    let app = app(loaded.middleware()).await;
    let mut told = Vec::new();
    for _ in 0..6 {
        let answer = send(&app, get("/")).await;
        told.push(answer.status.as_u16());
        assert!(
            !answer
                .header("ratelimit-policy")
                .unwrap()
                .contains("shadow")
        );
    }
    assert_eq!(told, [200, 200, 200, 200, 429, 429]);
    let tried: Vec<String> = loaded.tried().iter().map(ToString::to_string).collect();
    assert_eq!(
        tried,
        [
            "throttle `api`, rule 1: of 6 hits, 2 newly denied, 0 newly admitted",
            "throttle `gone`, rule 2: not in the new file, what it denies would be admitted",
        ]
    );
    // Another one is tried, which admits more.
    next.write(&text("5/day"));
    loaded.reload().unwrap();
    for _ in 0..6 {
        assert!(send(&app, get("/")).await.is_throttled());
    }
    assert_eq!(
        loaded.tried()[0].to_string(),
        "throttle `api`, rule 1: of 6 hits, 0 newly denied, 3 newly admitted",
        "two of five were taken in the first trial"
    );
    assert_eq!(loaded.tried()[1].outcome, TriedOutcome::Removed);
    // A mistake in it changes nothing, in either file.
    next.write("[throttle.api]\nrate = 1");
    file.write(&text("9/day"));
    let error = loaded.reload().unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}:2:8: ", next.path().display())),
        "{error}"
    );
    assert_eq!(
        loaded
            .limits()
            .get("api")
            .unwrap()
            .rate()
            .unwrap()
            .to_string(),
        "4/day"
    );
    assert!(
        loaded
            .promote()
            .unwrap_err()
            .to_string()
            .ends_with(" is not what was tried: reload it first")
    );
    // Promoted, with the counts in earnest: four are taken.
    next.write(&text("5/day"));
    file.write(&(text("4/day") + gone));
    loaded.reload().unwrap();
    let promoted = loaded.promote().unwrap();
    assert_eq!(
        promoted.to_string(),
        "changed api; removed api (shadow), gone; 1 rule"
    );
    assert!(!next.path().exists());
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text("5/day"));
    assert!(loaded.tried().is_empty() && loaded.promote().is_err());
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
    // It is there again without a restart.
    next.write(&text("1/day"));
    assert_eq!(
        loaded.reload().unwrap().to_string(),
        "added api (shadow); 1 rule"
    );
}

/// As if they were in earnest.
#[actix_web::test]
async fn throttles_that_would_deny_nobody_were_said_to_admit_nobody_newly() {
    let (_, backend) = memory();
    let text = |api: &str, jobs: &str| {
        let rule = "[[rule]]\nthrottle = [\"api\", \"jobs\"]\n";
        format!(
            "[throttle.api]\nrate = \"1/day\"\n{api}\n[throttle.jobs]\nrate = \"1/day\"\n{jobs}\n{rule}"
        )
    };
    let file = File::new(&text("", ""));
    let next = File::new(&text("enabled = false", "shadow = true"));
    let loaded = file.builder(&backend).try_beside(next.path());
    let loaded = loaded.load().unwrap();
    let app = app(loaded.middleware()).await;
    for _ in 0..3 {
        send(&app, get("/")).await;
    }
    let tried: Vec<String> = loaded.tried().iter().map(ToString::to_string).collect();
    assert_eq!(
        tried,
        [
            "throttle `api`, rule 1: disabled or in shadow in the new file, what it denies would be admitted",
            "throttle `jobs`, rule 1: disabled or in shadow in the new file, what it denies would be admitted",
        ]
    );
    loaded.promote().unwrap();
    assert!(send(&app, get("/")).await.is_ok());
}

/// `mv next limits` is a promotion, in one change.
#[actix_web::test]
async fn a_file_that_was_moved_over_the_other_was_not_put_in_force() {
    let (_, backend) = memory();
    let text =
        |rate: &str| format!("[throttle.api]\nrate = \"{rate}\"\n[[rule]]\nthrottle = \"api\"\n");
    let (file, next) = (File::new(&text("4/day")), File::new(&text("2/day")));
    let loaded = file
        .builder(&backend)
        .try_beside(next.path())
        .load()
        .unwrap();
    std::fs::rename(next.path(), file.path()).unwrap();
    assert_eq!(
        loaded.reload().unwrap().to_string(),
        "changed api; removed api (shadow); 1 rule"
    );
    let app = app(loaded.middleware()).await;
    let policy = send(&app, get("/"))
        .await
        .header("ratelimit-policy")
        .unwrap();
    assert_eq!(policy, "\"api\";q=2;w=86400");
}

/// The file on disk was replaced, and the one in force was not.
#[test]
fn a_file_that_could_not_be_put_in_force_was_moved() {
    let (_, backend) = memory();
    let text = |name: &str| format!("[throttle.{name}]\nrate = \"4/day\"\n");
    let (file, next) = (File::new(&text("api")), File::new(&text("jobs")));
    let limits = Limits::new();
    limits.add(throttle("jobs", "1/day")).unwrap();
    let loaded = file.builder(&backend).limits(&limits);
    let loaded = loaded.try_beside(next.path()).load().unwrap();
    let error = loaded.promote().unwrap_err().to_string();
    assert!(
        error.contains("the program has a throttle `jobs`"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text("api"));
    assert_eq!(std::fs::read_to_string(next.path()).unwrap(), text("jobs"));
    assert_eq!(loaded.tried().len(), 2);
    limits.remove("jobs").unwrap();
    assert_eq!(
        loaded.promote().unwrap().to_string(),
        "added jobs; removed api, jobs (shadow); 0 rules"
    );
}
