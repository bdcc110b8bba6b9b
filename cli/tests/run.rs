//! What `traffik` says, and how it ends.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics fails; clippy knows only functions marked as tests"
)]

use std::process::Command;

/// The exit code, what is said, and what is wrong.
fn traffik(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_traffik"));
    // The variable is the server's.
    let output = command.args(args).env_remove("REDIS_URL").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).unwrap();
    path
}

const GOOD: &str = "\
[backend.default]
type = \"redis\"
url_env = \"REDIS_URL\"

[identity.account]
from = \"function\"
function = \"account\"

[throttle.api]
rate = \"10/minute\"
identity = \"account\"

[throttle.spare]
rate = \"1/s\"

[[rule]]
throttle = \"api\"
methods = \"POST\"
host = \"api.example.com\"
";

#[test]
fn a_file_is_checked_without_the_program_and_its_environment() {
    let good = file("good.toml", GOOD);
    let said = format!(
        "{good}: 2 throttles, 1 rule, 1 backend\n  it needs the environment variable REDIS_URL\n  \
         it needs the identity function `account`\n  \
         throttle `spare` is in no rule: it limits only where the program asks for it\n"
    );
    assert_eq!(traffik(&["check", &good]), (0, said.clone(), String::new()));
    let bad = file("bad.toml", &GOOD.replace("POST", "PSOT"));
    let wrong = format!("{bad}:18:11: there is no method `PSOT`, did you mean `POST`?\n");
    assert_eq!(traffik(&["check", &bad, &good]), (1, said, wrong));
    let worse = GOOD.replace("POST", "PSOT").replace("1/s", "often");
    let worse = file(
        "worse.toml",
        &worse.replace(
            "\"account\"\n\n[throttle.spare]",
            "\"acount\"\n\n[throttle.spare]",
        ),
    );
    let (code, _, wrong) = traffik(&["check", &worse]);
    let lines: Vec<&str> = wrong.lines().collect();
    assert!(code == 1 && lines.len() == 3, "{wrong}");
    for (line, place) in lines.iter().zip(["11:12", "14:8", "18:11"]) {
        assert!(line.starts_with(&format!("{worse}:{place}: ")), "{wrong}");
    }
}

#[test]
fn a_request_is_explained() {
    let good = file("explained.toml", GOOD);
    let host = ["-H", "host: api.example.com"];
    let (code, said, _) = traffik(&["explain", &good, "POST", "/x", host[0], host[1]]);
    assert_eq!(code, 0);
    let expected = format!(
        "POST /x\nrule 1 ({good}:16): the method is POST, and the host is api.example.com\n  1. `api`\n     rate 10/minute\n     \
         strategy fixed_window\n     for each: what the function `account` of the program says\n     \
         counts in `default` (redis, by the URL in REDIS_URL)\n\
         it is admitted by this throttle, and charged, or answered 429\n"
    );
    assert_eq!(said, expected);
    let (code, said, _) = traffik(&["explain", &good, "GET", "/x"]);
    assert_eq!(code, 0);
    assert!(
        said.contains("no rule is for it: it is not limited\n"),
        "{said}"
    );
    for wrong in [
        &["explain", &*good, "GET", "x"][..],
        &["explain", &good, "G ET", "/x"],
        &["explain", &good, "GET", "/x", "-H", "host"],
        &["explain", &good, "GET"],
        &["check"],
        &["chekc", &good],
        &["explain", "/nowhere.toml", "GET", "/"],
    ] {
        let (code, said, error) = traffik(wrong);
        assert_eq!((code, &*said), (1, ""), "{wrong:?}");
        assert!(error.len() > 20, "{wrong:?}: {error}");
    }
}
