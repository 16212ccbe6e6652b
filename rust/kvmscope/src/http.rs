// SPDX-License-Identifier: GPL-2.0

//! As much of HTTP as a scraper speaks: GET of one page, over a connection each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Longer requests are none that we would answer.
const REQUEST_MAX: u64 = 16 << 10;
/// For all of a request, and for all of an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one request after the other, for ever: a scraper comes every few
/// seconds, and one who is slow is cut off.
pub fn serve(listener: &TcpListener, page: impl Fn() -> anyhow::Result<String>) -> ! {
    loop {
        match listener.accept() {
            // A client that goes away in the middle is nobody's trouble but its own.
            Ok((stream, _)) => drop(answer(&stream, &page)),
            // Out of file descriptors, for instance.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(stream: &TcpStream, page: &impl Fn() -> anyhow::Result<String>) -> io::Result<()> {
    exchange(Patient::new(stream), Patient::new(stream), page)
}

/// A connection, for so long from its first use on.
struct Patient<'a> {
    stream: &'a TcpStream,
    until: Option<Instant>,
}

impl<'a> Patient<'a> {
    fn new(stream: &'a TcpStream) -> Patient<'a> {
        Patient {
            stream,
            until: None,
        }
    }

    fn left(&mut self) -> io::Result<Option<Duration>> {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + PATIENCE);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Reads a request and writes the answer to it.
pub fn exchange(
    input: impl Read,
    stream: impl Write,
    page: &impl Fn() -> anyhow::Result<String>,
) -> io::Result<()> {
    let request = read_request(input)?;
    let words: Vec<&str> = request.split(' ').collect();
    let (method, path) = match words[..] {
        [method, path, version] if version.starts_with("HTTP/1.") => (method, path),
        _ => return reply(stream, "400 Bad Request", true, "this is no HTTP request\n"),
    };
    let body = method != "HEAD";
    if body && method != "GET" {
        return reply(
            stream,
            "405 Method Not Allowed",
            true,
            "only GET and HEAD\n",
        );
    }
    match path.split('?').next() {
        Some("/metrics") => match page() {
            Ok(page) => reply(stream, "200 OK", body, &page),
            Err(error) => {
                let text = format!("{error:#}\n");
                reply(stream, "503 Service Unavailable", body, &text)
            }
        },
        Some("/") => reply(stream, "200 OK", body, "kvmscope: see /metrics\n"),
        _ => reply(stream, "404 Not Found", body, "see /metrics\n"),
    }
}

/// The request's first line. The rest is read too, or closing would reset the
/// connection before the client has our answer.
fn read_request(input: impl Read) -> io::Result<String> {
    let mut reader = BufReader::new(input.take(REQUEST_MAX));
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    let first = String::from_utf8_lossy(&bytes).trim_end().to_string();
    loop {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() || bytes == b"\r\n" || bytes == b"\n" {
            return Ok(first);
        }
    }
}

fn reply(mut stream: impl Write, status: &str, body: bool, text: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    if body {
        stream.write_all(text.as_bytes())?;
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often one gives a sign of life.
    #[test]
    fn patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let until = Some(Instant::now() + Duration::from_millis(100));
        let mut patient = Patient {
            stream: &stream,
            until,
        };
        let error = loop {
            client.write_all(b"G").unwrap();
            std::thread::sleep(Duration::from_millis(10));
            if let Err(error) = patient.read(&mut [0; 1]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
