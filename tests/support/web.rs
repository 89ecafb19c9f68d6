//! A web server for tests, with faults.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// How a server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It gives no stretches, but the whole file.
    NoRanges,
    /// Bodies end in the middle.
    Truncates,
    /// It denies everything.
    Denies,
    /// So many answers are errors of the server.
    FailsFirst(usize),
    /// Every answer has another entity tag, and one that does not fit is refused.
    Changes,
}

/// A server of one file; its port is open as long as the process lives.
#[derive(Clone, Debug)]
pub struct Web {
    served: Arc<Served>,
}

#[derive(Debug)]
struct Served {
    port: u16,
    name: String,
    bytes: Vec<u8>,
    fault: Fault,
    requests: AtomicUsize,
    sent: AtomicU64,
}

impl Web {
    /// Serves `bytes` as `/name`.
    pub fn of(name: &str, bytes: Vec<u8>, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let (requests, sent) = (AtomicUsize::new(0), AtomicU64::new(0));
        let served = Arc::new(Served { port, name: format!("/{name}"), bytes, fault, requests, sent });
        let shared = Arc::clone(&served);
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let served = Arc::clone(&shared);
                thread::spawn(move || while served.answer(&stream).is_some() {});
            }
        });
        Self { served }
    }

    /// The address of the file.
    pub fn address(&self) -> String {
        self.root() + &self.served.name
    }

    /// That of the server.
    pub fn root(&self) -> String {
        format!("http://127.0.0.1:{}", self.served.port)
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.served.requests.load(Ordering::Relaxed)
    }

    /// Bytes of the file that were sent so far.
    pub fn sent(&self) -> u64 {
        self.served.sent.load(Ordering::Relaxed)
    }
}

impl Served {
    /// Answers one request; nothing where there is none any more.
    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.split('?').next()?.to_owned();
        let (mut range, mut tag) = (None, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = value.trim().strip_prefix("bytes=").and_then(|both| both.split_once('-')).map(pair),
                "if-match" => tag = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let now = if self.fault == Fault::Changes { format!("\"{number}\"") } else { "\"one\"".to_owned() };
        let all = self.bytes.len();
        let (status, start, end) = match (self.fault, range) {
            (Fault::Denies, _) => ("403 Forbidden", 0, 0),
            (Fault::FailsFirst(most), _) if number < most => ("503 Service Unavailable", 0, 0),
            _ if path != self.name => ("404 Not Found", 0, 0),
            _ if tag.is_some_and(|tag| tag != now) => ("412 Precondition Failed", 0, 0),
            (Fault::NoRanges, _) | (_, None) => ("200 OK", 0, all),
            (_, Some((start, _))) if start >= all => ("416 Range Not Satisfiable", 0, 0),
            (_, Some((start, end))) => ("206 Partial Content", start, all.min(end + 1)),
        };
        let body = &self.bytes[start..end];
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {now}\r\n", body.len());
        if status.starts_with("206") {
            head += &format!("Content-Range: bytes {start}-{}/{all}\r\n", end - 1);
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let body = if self.fault == Fault::Truncates { &body[..body.len() / 2] } else { body };
        stream.write_all(body).ok()?;
        self.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        // One that keeps back what it promised ends the connection.
        (self.fault != Fault::Truncates).then_some(())
    }
}

fn pair((start, end): (&str, &str)) -> (usize, usize) {
    (start.parse().unwrap_or(0), end.parse().unwrap_or(usize::MAX - 1))
}
