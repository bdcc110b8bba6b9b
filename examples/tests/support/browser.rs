use std::process::Command;

use super::Example;

/// The page of an example, in a browser if there is one (Debian's `chromium`).
pub(crate) fn assert_page_shows(example: &Example, texts: &[&str]) {
    let mut page = String::new();
    // Time is virtual there, and may be over before an answer came on a busy machine.
    for _ in 0..10 {
        let dumped = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--virtual-time-budget=5000", "--dump-dom"])
            .arg(example.url("/"))
            .output();
        let Ok(dumped) = dumped else {
            return eprintln!("skipped: there is no chromium to look at the page with");
        };
        page = String::from_utf8_lossy(&dumped.stdout).into_owned();
        if texts.iter().all(|text| page.contains(text)) {
            return;
        }
    }
    panic!("{texts:?} are not all in {page}");
}
