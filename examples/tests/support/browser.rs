use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::Example;
use super::example::{PATIENCE, told};

/// The page of an example in a browser, which is closed when dropped.
pub(crate) struct Page {
    browser: Child,
    profile: PathBuf,
    /// The browser's [protocol](https://chromedevtools.github.io/devtools-protocol/).
    socket: WebSocket<TcpStream>,
    session: Value,
    calls: u64,
}

impl Page {
    /// In a browser if there is one (Debian's `chromium`).
    pub(crate) fn open(example: &Example) -> Option<Page> {
        static PAGES: AtomicU32 = AtomicU32::new(0);
        let page = PAGES.fetch_add(1, Ordering::Relaxed);
        let name = format!("traffik-browser-{}-{page}", std::process::id());
        let profile = std::env::temp_dir().join(name);
        let browser = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut browser) = browser else {
            eprintln!("skipped: there is no chromium to look at the page with");
            return None;
        };
        let url = told(browser.stderr.take().unwrap(), |line| {
            let (_, url) = line.split_once("DevTools listening on ")?;
            Some(url.to_string())
        });
        let url = url.expect("the browser tells where it listens");
        let addr = url.split('/').nth(2).unwrap();
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut page = Page {
            browser,
            profile,
            socket: client(&*url, socket).unwrap().0,
            session: Value::Null,
            calls: 0,
        };
        let opened = page.call("Target.createTarget", json!({ "url": example.url("/") }));
        let target = json!({ "targetId": opened["targetId"], "flatten": true });
        page.session = page.call("Target.attachToTarget", target)["sessionId"].clone();
        Some(page)
    }

    /// Waits until all of these are in it, scripts aside.
    pub(crate) fn shows(&mut self, texts: &[&str]) {
        let start = Instant::now();
        loop {
            let page = self.evaluate(
                "(() => {
                    const page = document.documentElement.cloneNode(true)
                    for (const script of page.querySelectorAll('script')) script.remove()
                    return page.outerHTML
                })()",
            );
            let page = page.as_str().unwrap_or_default();
            if texts.iter().all(|text| page.contains(text)) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{texts:?} are not all in {page}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let asked = json!({ "expression": script, "returnByValue": true });
        self.call("Runtime.evaluate", asked)["result"]["value"].clone()
    }

    /// A key, by its name and its number on Windows.
    pub(crate) fn press(&mut self, key: &str, number: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let pressed = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number,
            });
            self.call("Input.dispatchKeyEvent", pressed);
        }
    }

    /// Makes the screen as narrow as that.
    pub(crate) fn narrow(&mut self, width: u32) {
        let screen =
            json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": true });
        self.call("Emulation.setDeviceMetricsOverride", screen);
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(call.to_string())).unwrap();
        loop {
            let heard = self.socket.read().unwrap().into_text().unwrap();
            let heard: Value = serde_json::from_str(&heard).unwrap();
            if heard["id"] == self.calls {
                assert!(heard["error"].is_null(), "{method}: {heard}");
                return heard["result"].clone();
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
