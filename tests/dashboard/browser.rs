//! A headless Chromium, driven through its debugging protocol.
//!
//! **Invariant:** the browser and its folder go with the [`Browser`]; every wait is bounded and says for what it waited.
//! Left out: what is tested.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that are looked for.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

pub struct Browser {
    child: Child,
    folder: PathBuf,
    socket: WebSocket<TcpStream>,
    next: u64,
    session: Option<String>,
    /// What the page said went wrong.
    pub complaints: Vec<String>,
    pub downloads: PathBuf,
}

/// The path of a browser, if the machine has one.
pub fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).flat_map(|p| NAMES.map(|name| p.join(name)));
    places.into_iter().find(|place| place.is_file())
}

impl Browser {
    /// Starts a browser with one page of this size.
    pub fn start(program: &Path, width: u32, height: u32) -> Browser {
        let number = std::process::id();
        let at = Instant::now();
        let folder = std::env::temp_dir().join(format!(
            "mobula-browser-{number}-{:?}",
            std::thread::current().id()
        ));
        let downloads = folder.join("downloads");
        std::fs::create_dir_all(&downloads).expect("a folder for the browser");
        let mut child = Command::new(program)
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args([
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--disable-background-networking",
            ])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", folder.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        // It says where it listens, and then this and that, which nobody reads but the pipe.
        let said = BufReader::new(child.stderr.take().expect("its errors are piped"));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("DevTools listening on ") {
                    let _ = tell.send(url.to_owned());
                }
            }
        });
        let url = told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the browser did not listen within {:?}", at.elapsed())
        });
        let authority = url
            .trim_start_matches("ws://")
            .split('/')
            .next()
            .expect("an address");
        let stream = TcpStream::connect(authority).expect("the browser listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = tungstenite::client(&url, stream).expect("the browser talks");
        let mut browser = Browser {
            child,
            folder,
            socket,
            next: 0,
            session: None,
            complaints: Vec::new(),
            downloads,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(width, height);
        let downloads = json!({ "behavior": "allow", "downloadPath": browser.downloads });
        browser.call("Page.setDownloadBehavior", downloads);
        browser
    }

    /// One command, and its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .expect("the browser listens");
        loop {
            let message = self
                .socket
                .read()
                .unwrap_or_else(|e| panic!("{method}: {e}"));
            let Message::Text(text) = message else {
                continue;
            };
            let value: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if value["id"] == id {
                assert!(value["error"].is_null(), "{method}: {}", value["error"]);
                return value["result"].clone();
            }
            self.event(&value);
        }
    }

    fn event(&mut self, value: &Value) {
        let params = &value["params"];
        let complaint = match value["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled")
                if params["type"] == "error" || params["type"] == "warning" =>
            {
                Some(params["args"].to_string())
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                Some(params["entry"].to_string())
            }
            _ => None,
        };
        self.complaints.extend(complaint);
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression, awaited if it is a promise.
    pub fn eval(&mut self, code: &str) -> Value {
        let params = json!({ "expression": code, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(
            result["exceptionDetails"].is_null(),
            "{code}: {}",
            result["exceptionDetails"]
        );
        result["result"]["value"].clone()
    }

    /// Waits until an expression holds.
    #[track_caller]
    pub fn until(&mut self, code: &str) {
        let start = Instant::now();
        let guarded =
            format!("(() => {{ try {{ return !!({code}); }} catch {{ return false; }} }})()");
        while self.eval(&guarded) != true {
            if start.elapsed() > PATIENCE {
                let stats = self.eval("JSON.stringify(window.mobula?.stats())");
                panic!("never came: {code}; {stats}; {:?}", self.complaints);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The page's numbers about itself.
    pub fn stats(&mut self) -> Value {
        self.eval("window.mobula.stats()")
    }

    pub fn size(&mut self, width: u32, height: u32) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// As if the system preferred `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        self.media(&[("prefers-color-scheme", scheme)]);
    }

    /// As if the system had these preferences.
    pub fn media(&mut self, features: &[(&str, &str)]) {
        let one = |(name, value): &(&str, &str)| json!({ "name": name, "value": value });
        let features: Vec<Value> = features.iter().map(one).collect();
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Moves the mouse there.
    pub fn mouse(&mut self, x: f64, y: f64) {
        let params = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.call("Input.dispatchMouseEvent", params);
    }

    /// Presses a key, as the page sees it: `a`, `+`, `Enter`.
    pub fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            _ if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        let down = if text.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        };
        let params =
            json!({ "type": down, "key": key, "text": text, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", params);
        let params = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", params);
    }

    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    pub fn wheel(&mut self, x: f64, y: f64, delta: f64) {
        let params = json!({ "type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": delta });
        self.call("Input.dispatchMouseEvent", params);
    }

    /// Saves what is seen.
    pub fn picture(&mut self, name: &str) {
        let usual = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        let folder = std::env::var_os("PICTURES").map_or(usual, PathBuf::from);
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = decode(picture["data"].as_str().expect("a picture"));
        std::fs::write(folder.join(format!("{name}.png")), data).expect("the picture is saved");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Base64, as the protocol has it.
fn decode(text: &str) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bytes: Vec<u8> = text.bytes().filter(|&b| b != b'=').collect();
    let mut out = Vec::with_capacity(bytes.len() * 3 / 4);
    for four in bytes.chunks(4) {
        let word =
            four.iter().fold(0u32, |w, &b| w << 6 | u32::from(value(b))) << (6 * (4 - four.len()));
        out.extend(&word.to_be_bytes()[1..four.len()]);
    }
    out
}
