//! A cloud that a test starts, steers and asks what it was asked. It needs nothing but the standard library and JSON, so that
//! tests of other programs take it as it is.

#![allow(dead_code, reason = "two test binaries, each with its share")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A process of cloud-sim. It ends with this, or with the test's process, whichever is first.
pub(crate) struct Cloud {
    child: Child,
    /// What it listens on.
    pub(crate) url: String,
    /// Where it is steered: host and port.
    control: String,
    /// The certificate to trust, if it speaks TLS.
    pub(crate) ca: Option<PathBuf>,
}

impl Cloud {
    /// Starts one. With `ca` it speaks TLS, and writes its certificate to that file.
    pub(crate) fn start(binary: &Path, ca: Option<&Path>, arguments: &[&str]) -> Cloud {
        let mut command = Command::new(binary);
        command.args(arguments).arg("--until-stdin-closes").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(ca) = ca {
            command.arg("--tls").arg(ca);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        let control = text("control").trim_start_matches("http://").to_owned();
        Cloud { child, url: text("url"), control, ca: ca.map(Path::to_owned) }
    }

    /// Where it listens: host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Where it is steered, as a URL.
    pub(crate) fn control(&self) -> String {
        format!("http://{}", self.control)
    }

    /// Says something to the control endpoint; `GET /` there says what can be said.
    pub(crate) fn steer(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = ask(&self.control, method, path, &[], &body).unwrap();
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Orders a fault; answers its number.
    pub(crate) fn fault(&self, fault: &Value) -> u64 {
        self.steer("POST", "/faults", fault)["id"].as_u64().unwrap()
    }

    /// Takes back all that was ordered.
    pub(crate) fn reset(&self) {
        self.steer("POST", "/reset", &Value::Null);
    }

    pub(crate) fn report(&self) -> Value {
        self.steer("GET", "/report", &Value::Null)
    }

    /// How often an operation was asked for, however that ended.
    pub(crate) fn asked(&self, operation: &str) -> u64 {
        self.report()["counts"]["operations"][operation]["asked"].as_u64().unwrap_or(0)
    }

    /// The most requests of a bucket that came in any span of this length, of those that came after a time on the clock of
    /// the counts.
    pub(crate) fn most_within(&self, bucket: &str, span_ms: u64, since_ms: u64) -> u64 {
        let report = self.report();
        let slot_ms = report["counts"]["slot_ms"].as_u64().unwrap();
        let slots: Vec<(u64, u64)> = report["counts"]["buckets"][bucket]["slots"]
            .as_array()
            .map(|slots| slots.iter().map(|slot| (slot[0].as_u64().unwrap() * slot_ms, slot[1].as_u64().unwrap())))
            .into_iter()
            .flatten()
            .filter(|(begin, _)| *begin >= since_ms)
            .collect();
        let within = |from: u64| -> u64 {
            slots.iter().filter(|(at, _)| (from..from + span_ms).contains(at)).map(|(_, asked)| asked).sum()
        };
        slots.iter().map(|(begin, _)| within(*begin)).max().unwrap_or(0)
    }

    /// Closes its standard input; answers whether it ended well.
    pub(crate) fn end(mut self) -> bool {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().success()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over plain HTTP: its status and its body.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}
